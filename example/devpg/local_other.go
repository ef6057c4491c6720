//go:build !unix

package devpg

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

// watchdog needs a POSIX shell.
type watchdog struct{}

func startWatchdog(string) (*watchdog, error) { return nil, nil }

func (*watchdog) stop() error { return nil }
