// Package pgtest gives tests a PostgreSQL: a schema each, on the server that
// PGSTORE_TEST_DSN names, else on a throwaway one made from the programs on this machine.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

const envDSN = "PGSTORE_TEST_DSN"

// shared is the server that all tests of this process share.
var shared struct {
	once sync.Once
	*server
	err error
}

type server struct {
	dsn   string
	local *pglocal.Server // nil where PGSTORE_TEST_DSN names one
	admin *pgxpool.Pool   // makes and drops schemas
}

// DSN returns the server's. The first call starts it; it ends with Main.
func DSN(t testing.TB) string {
	t.Helper()
	return get(t).dsn
}

func get(t testing.TB) *server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = start(context.WithoutCancel(t.Context()), os.Getenv(envDSN)) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// start connects to the server of the DSN, or starts one if that is "".
func start(ctx context.Context, dsn string) (*server, error) {
	if dsn != "" {
		admin, err := connect(ctx, dsn)
		if err != nil {
			return nil, fmt.Errorf("the server that %s names: %w", envDSN, err)
		}
		return &server{dsn: dsn, admin: admin}, nil
	}
	local, err := pglocal.Start(ctx, pglocal.ForTests...)
	if err != nil {
		return nil, fmt.Errorf("no PostgreSQL to test on: its programs on this machine: %w\n"+
			"ways out: %s; or set %s=postgres://user:password@host:5432/database", err, pglocal.WayOut, envDSN)
	}
	admin, err := connect(ctx, local.DSN)
	if err != nil {
		return nil, errors.Join(err, local.Stop())
	}
	fmt.Fprintln(os.Stderr, "tests run on a throwaway server from", local.Bin)
	return &server{dsn: local.DSN, local: local, admin: admin}, nil
}

func connect(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pglocal.StartTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func (s *server) stop() error {
	s.admin.Close()
	if s.local == nil {
		return nil
	}
	return s.local.Stop()
}

// OwnServer starts a server for one test: to be killed, for what transactions of other
// tests would disturb, or for settings of its own. Without PostgreSQL's programs the test is skipped, but fails if CI
// is set.
func OwnServer(t testing.TB, settings ...string) *pglocal.Server {
	t.Helper()
	s, err := pglocal.Start(t.Context(), append(settings, "fsync=off")...)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("a server for this test alone: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Main runs the tests, stops the server if it started one, and exits. A goroutine of this
// module that is left is a failure.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to do before it exits.
func Run(m *testing.M) (status int) {
	status = m.Run()
	fail := func(args ...any) {
		fmt.Fprintln(os.Stderr, args...)
		status = 1
	}
	if shared.server != nil {
		if err := shared.stop(); err != nil {
			fail("the test server was not stopped cleanly:", err)
		}
	}
	if status == 0 {
		if left := leaked(); left != "" {
			fail("goroutines are left:\n" + left)
		}
	}
	return status
}

// leaked returns the stacks that ours still finds after a moment.
func leaked() string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := ours()
		if left == "" || time.Now().After(deadline) {
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ours returns the stacks of this module's goroutines, but for the caller's and those
// that wait for a server to end.
func ours() string {
	buf := make([]byte, 16<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		waits := strings.Contains(stack, "internal/pgtest/pglocal.await(")
		if i > 0 && strings.Contains(stack, "github.com/scspg/scspg/") && !waits { // the first is the caller's
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
