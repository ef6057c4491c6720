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
	context.AfterFunc(ctx, stop) // a second signal ends us at once
	p := &program{
		args: os.Args[1:], env: os.Environ(), stdout: os.Stdout, stderr: os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())), columns: columns(os.Getenv("TERM")),
	}
	status := p.run(ctx)
	stop()
	os.Exit(status)
}

// columns is how wide a bar on standard error may be, or 0 where none can be drawn.
func columns(terminal string) int {
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || terminal == "dumb" {
		return 0
	}
	return width
}
