//go:build !unix

package pglocal

import (
	"os"
	"os/exec"
)

var (
	fastSignal = os.Kill
	quitSignal = os.Kill
)

func giveAway(...string) error { return nil }

func unprivileged(cmd *exec.Cmd, dir string) { cmd.Dir = dir }

// Watchdog needs a POSIX shell: here it does nothing.
type Watchdog struct{}

// Watch does nothing.
func Watch(string) (*Watchdog, error) { return nil, nil }

// Stop does nothing.
func (*Watchdog) Stop() error { return nil }
