//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
)

func TestOnSignals(t *testing.T) {
	ctx, hurry := onSignals([]os.Signal{syscall.SIGUSR2})
	send := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	}
	send()
	<-ctx.Done()
	select {
	case <-hurry:
		t.Error("one signal is enough to cut off requests")
	default:
	}
	send()
	<-hurry
}
