package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/example/devpg"
)

// sharedDatabase is the server of all tests of this package, each in a schema of
// its own. It starts with the first that needs it.
var sharedDatabase struct {
	sync.Once
	server *devpg.Server
	err    error
}

func testDatabase(t testing.TB) string {
	t.Helper()
	d := &sharedDatabase
	d.Do(func() {
		// Not t's context: the server outlives this test.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		d.server, d.err = devpg.Start(ctx, devpg.Env("PGSTORE_TEST_DSN"), devpg.Local(), devpg.Container(), devpg.Download())
	})
	if d.err != nil {
		t.Fatal(d.err)
	}
	return d.server.DSN
}

func TestMain(m *testing.M) {
	code := m.Run()
	if server := sharedDatabase.server; server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		cancel()
	}
	os.Exit(code)
}

// The whole program on its own database, which is gone afterwards.
func TestRunOnThrowawayDatabase(t *testing.T) {
	t.Parallel()
	d := startDemo(t, noEnv, "-limit", "1")
	laptop, phone := newBrowserAt(t, d.url, firefox), newBrowserAt(t, d.url, safari)
	laptop.mustLogin("alice")
	phone.mustLogin("alice")
	laptop.get("/api/me").wants(t, 401, codeSessionEvicted)
	port := d.databasePort(t)
	if code, stderr := d.stop(); code != 0 || strings.Contains(stderr, "ERROR") {
		t.Errorf("stopped with status %d: %s", code, stderr)
	}
	if conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second); err == nil {
		conn.Close()
		t.Error("the throwaway database still listens after the end")
	}
}

// databasePort is the port of the database, from the line that says where sessions live.
func (d demo) databasePort(t *testing.T) string {
	t.Helper()
	for _, line := range d.welcome {
		if where, ok := strings.CutPrefix(line, "Sessions: PostgreSQL, "); ok {
			_, where, _ = strings.Cut(where, ":")
			port, _, _ := strings.Cut(where, ",")
			return port
		}
	}
	t.Fatalf("the welcome does not name the database: %q", d.welcome)
	return ""
}

func TestRunOnDatabaseURL(t *testing.T) {
	t.Parallel()
	dsn := newSchema(t)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(t.Context()))
	env := func(name string) string {
		if name == "DATABASE_URL" {
			return dsn
		}
		return ""
	}
	// Twice: the second finds the tables, and the session, of the first.
	var cookie string
	for range 2 {
		d := startDemo(t, env)
		b := newBrowserAt(t, d.url, firefox)
		if cookie == "" {
			b.mustLogin("alice")
			cookie = "scspg_demo=" + b.cookie()
		}
		b.send("GET", "/api/me", "", "Cookie", cookie).wants(t, 200, "")
		code, stderr := d.stop()
		if code != 0 {
			t.Errorf("stopped with status %d: %s", code, stderr)
		}
		said := strings.Join(d.welcome, "\n") + stderr
		if !strings.Contains(said, "DATABASE_URL") {
			t.Errorf("it does not say where the database is from: %s", said)
		}
		if password := db.Config().Password; password != "" && strings.Contains(said, password) {
			t.Errorf("it printed the database's password: %s", said)
		}
	}
	var n int
	if err := db.QueryRow(t.Context(), "SELECT count(*) FROM scs_sessions").Scan(&n); err != nil || n != 1 {
		t.Errorf("the database holds %d sessions, %v, want 1", n, err)
	}
}

// A DATABASE_URL that does not work is an error, and not a reason to take another.
func TestRunOnWrongDatabaseURL(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://demo:sesame@127.0.0.1:1/demo",
		"postgres://demo:sesame@127.0.0.1:port/demo",
		"host=h password = sesame foo",
		"postgres://u:sesame:5432/x",
		"postgres://u:a@sesame@127.0.0.1:1/x",
		"postgres://u:ab@sesame/q@127.0.0.1:1/x",
	} {
		env := func(name string) string {
			if name == "DATABASE_URL" {
				return dsn
			}
			return ""
		}
		says := wantFailureIn(t, env, []string{"DATABASE_URL"}, "-addr", "127.0.0.1:0")
		if strings.Contains(says, "sesame") {
			t.Errorf("it printed the password: %s", says)
		}
	}
}

// Stopped while it starts, it cleans up and is content.
func TestRunStoppedWhileStarting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut strings.Builder
	if code := run(ctx, nil, []string{"-addr", "127.0.0.1:0"}, noEnv, &out, &errOut); code != 0 || errOut.Len() > 0 {
		t.Errorf("run = %d: %s", code, &errOut)
	}
}
