// Command withpg runs a command with PGSTORE_TEST_DSN set to a PostgreSQL for tests,
// which it finds or starts, and which ends with the command:
//
//	withpg -- go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/scspg/scspg/integration_test/internal/testserver"
)

const stopTimeout = time.Minute

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: withpg -- command [argument...]")
		os.Exit(2)
	}
	status, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "withpg:", err)
	}
	os.Exit(status)
}

// run returns the exit status of the command, or 1 with an error.
func run(args []string) (status int, err error) {
	passOn := make(chan os.Signal, 1)
	signal.Notify(passOn, os.Interrupt, syscall.SIGTERM)
	starting, started := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	server, err := testserver.Start(starting)
	started()
	if err != nil {
		return 1, err
	}
	fmt.Fprintln(os.Stderr, "tests run on", server.Source)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if stopErr := server.Stop(ctx); stopErr != nil {
			status, err = 1, errors.Join(err, fmt.Errorf("the test server was not stopped cleanly: %w", stopErr))
		}
	}()
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // signals end it
	cmd.Env = append(os.Environ(), testserver.EnvDSN+"="+server.DSN)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for sig := range passOn {
			_ = cmd.Process.Signal(sig)
		}
	}()
	err = cmd.Wait()
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case !failed && err != nil:
		return 1, err
	case failed && exit.ExitCode() < 0:
		return 1, exit // a signal ended it
	}
	return cmd.ProcessState.ExitCode(), nil
}
