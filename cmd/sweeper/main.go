// Command sweeper deletes expired sessions and old tombstones. It is made for cron:
// it does one sweep and exits. Run it with -h for its flags.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := &program{
		args: os.Args[1:], env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	status := p.run(ctx)
	stop()
	os.Exit(status)
}
