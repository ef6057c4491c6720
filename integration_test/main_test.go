// Package integration_test holds the tests that need a PostgreSQL server.
package integration_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scspg/scspg/example/devpg"
	"github.com/scspg/scspg/integration_test/internal/testserver"
)

// server is the one that all tests share, each in a schema of its own.
var server *devpg.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (status int) {
	ctx := context.Background()
	var err error
	server, err = testserver.Start(ctx)
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
	if status = m.Run(); status != 0 {
		return status
	}
	closeSharedPools()
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
