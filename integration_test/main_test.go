// Package integration_test holds the tests that need more than PostgreSQL: poolers,
// servers to kill, the built programs, the README.
package integration_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scspg/scspg/integration_test/internal/testserver"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (status int) {
	ctx := context.Background()
	server, err := testserver.Start(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "tests run on", server.Source)
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "the test server was not stopped cleanly:", err)
			status = 1
		}
	}()
	defer removePrograms()
	if err := os.Setenv(testserver.EnvDSN, server.DSN); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if status = pgtest.Run(m); status != 0 {
		return status
	}
	// What a store or a migration had started must have ended. The server's own
	// goroutines (its process being waited for, the container client) are not ours.
	if err := goleak.Find(
		// scs.New starts one with its default store, and has no way to end it.
		goleak.IgnoreAnyFunction("github.com/alexedwards/scs/v2/memstore.(*MemStore).startCleanup"),
		goleak.IgnoreAnyFunction("github.com/scspg/scspg/internal/pgtest/pglocal.await"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreTopFunction("os/exec.(*Cmd).watchCtx"),
	); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
