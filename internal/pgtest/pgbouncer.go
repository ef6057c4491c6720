package pgtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// envPgBouncer names a program. If it is set, each pool of a test goes through one of its
// own, so that what a DSN cannot set there, such as the search_path, its connect_query can.
const envPgBouncer = "PGSTORE_TEST_PGBOUNCER"

// PgBouncerPort is in the name of a PgBouncer's socket.
const PgBouncerPort = 6432

// ThroughPgBouncer reports whether pools go through PgBouncer.
func ThroughPgBouncer() bool { return os.Getenv(envPgBouncer) != "" }

// NotThroughPgBouncer skips the test where they do.
func NotThroughPgBouncer(t testing.TB, why string) {
	t.Helper()
	if ThroughPgBouncer() {
		t.Skip("not through PgBouncer: " + why)
	}
}

// PgBouncer is one in transaction mode. No two transactions of a client in a row are on the
// same server connection.
type PgBouncer struct {
	Program string // "pgbouncer" if that is in PATH
	Servers int    // server connections, at least 2; those that it has from the start are 2
	// Query is what it sends first on each server connection, if it is not "".
	Query string
}

// Tracks reports whether a program can track prepared statements, as those from 1.21 on can.
func (b PgBouncer) Tracks(t testing.TB) bool {
	t.Helper()
	version, _ := versions.LoadOrStore(b.Program, sync.OnceValue(func() string {
		out, err := exec.Command(b.Program, "--version").CombinedOutput() //nolint:noctx // several tests wait for it
		return fmt.Sprint(string(out), err)
	}))
	text := version.(func() string)()
	found := regexp.MustCompile(`PgBouncer 1\.(\d+)`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("%s does not say its version: %s", b.Program, text)
	}
	minor, err := strconv.Atoi(found[1])
	return err == nil && minor >= 21
}

var versions sync.Map // by program

// ends PgBouncer however the test program ends: then the pipe to it closes.
const untilPipeCloses = `"$0" "$1" >"$1.log" 2>&1 & cat >/dev/null; kill -9 $!`

// Start runs it before the server of a config until the test ends, and returns the folder
// of its socket, which is the host to connect to. Any user and database will do.
func (b PgBouncer) Start(t testing.TB, server *pgx.ConnConfig) (host string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	config := fmt.Sprintf("[databases]\n* = host=%s port=%d dbname=%s user=%s", server.Host, server.Port, quote(server.Database), quote(server.User))
	if server.Password != "" { // where the server asks for one
		config += " password=" + quote(server.Password)
	}
	if b.Query != "" {
		config += " connect_query=" + quote(b.Query)
	}
	config += fmt.Sprintf("\n[pgbouncer]\nlisten_addr =\nlisten_port = %d\nunix_socket_dir = %s\nauth_type = any\n"+
		"pool_mode = transaction\nserver_round_robin = 1\nmax_client_conn = 200\ndefault_pool_size = %d\n", PgBouncerPort, dir, b.Servers)
	if b.Tracks(t) {
		config += "max_prepared_statements = 200\n" // the default since 1.24
	}
	file := filepath.Join(dir, "ini")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", untilPipeCloses, b.Program, file) //nolint:noctx // the test's end ends it
	if err := pglocal.Unprivileged(cmd, dir, file); err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pipe.Close()
		_ = cmd.Wait()
	})
	if err := twoAtOnce(t.Context(), dir); err != nil {
		log, _ := os.ReadFile(file + ".log")
		t.Fatalf("%v\n%s", err, log)
	}
	return dir
}

// twoAtOnce has PgBouncer open two server connections, once it answers.
func twoAtOnce(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, pglocal.StartTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=test dbname=test", host, PgBouncerPort))
	if err != nil {
		return err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	for range 2 {
		conn, err := pgx.ConnectConfig(ctx, config)
		for err != nil && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
			conn, err = pgx.ConnectConfig(ctx, config)
		}
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
			return err
		}
		defer conn.Exec(context.WithoutCancel(ctx), "ROLLBACK") //nolint:errcheck // it is only to let go of the server
	}
	return nil
}

// throughPgBouncer returns opts and, if the tests are to go through PgBouncer, what makes a
// pool do so, with the DSN that the README recommends.
func throughPgBouncer(t testing.TB, opts []Option) []Option {
	t.Helper()
	b := PgBouncer{Program: os.Getenv(envPgBouncer)}
	if b.Program == "" {
		return opts
	}
	first := ExecMode(pgx.QueryExecModeCacheDescribe)
	if b.Tracks(t) {
		first = ExecMode(pgx.QueryExecModeCacheStatement)
	}
	return slices.Concat([]Option{first}, opts, []Option{func(config *pgxpool.Config) {
		c := config.ConnConfig
		if mode := c.DefaultQueryExecMode; mode == pgx.QueryExecModeDescribeExec || mode == pgx.QueryExecModeCacheStatement && !b.Tracks(t) {
			t.Skipf("%v does not work through PgBouncer", mode)
		}
		b.Servers, b.Query = max(2, int(config.MaxConns)), settings(c.RuntimeParams)
		c.Host, c.Port = b.Start(t, c), PgBouncerPort
		c.TLSConfig, c.Fallbacks = nil, nil
	}})
}

// settings is a query that sets what PgBouncer would refuse at the start of a session. These
// parameters go.
func settings(params map[string]string) string {
	var calls []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params[name]
		switch name {
		case "application_name", "client_encoding", "DateStyle", "TimeZone":
			continue
		case "options":
		default:
			calls = append(calls, fmt.Sprintf("set_config('%s', '%s', false)", name, strings.ReplaceAll(value, "'", "''")))
		}
		delete(params, name)
	}
	if len(calls) == 0 {
		return ""
	}
	return "SELECT " + strings.Join(calls, ", ")
}
