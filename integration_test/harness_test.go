package integration_test

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/example/devpg"
	"github.com/scspg/scspg/migrations"
)

// admin is the pool that makes and drops schemas.
var admin struct {
	sync.Mutex
	pool *pgxpool.Pool
}

func adminPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	admin.Lock()
	defer admin.Unlock()
	if admin.pool == nil {
		pool, err := pgxpool.New(context.WithoutCancel(t.Context()), server.DSN)
		if err != nil {
			t.Fatal(err)
		}
		admin.pool = pool
	}
	return admin.pool
}

func closeSharedPools() {
	if admin.pool != nil {
		admin.pool.Close()
	}
}

// newSchema makes a schema that is dropped with the test.
func newSchema(t testing.TB) string {
	t.Helper()
	name := "t_" + strings.ToLower(rand.Text())
	if _, err := adminPool(t).Exec(t.Context(), "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropSchema(t, name) })
	return name
}

func dropSchema(t testing.TB, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if _, err := adminPool(t).Exec(ctx, "DROP SCHEMA "+pgx.Identifier{name}.Sanitize()+" CASCADE"); err != nil {
		t.Error(err)
	}
}

// poolOption changes the configuration of newPool.
type poolOption func(*pgxpool.Config)

func maxConns(n int32) poolOption { return func(c *pgxpool.Config) { c.MaxConns = n } }

func param(name, value string) poolOption {
	return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[name] = value }
}

func execMode(mode pgx.QueryExecMode) poolOption {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }
}

// newPool opens a pool whose search_path is the schema.
func newPool(t testing.TB, schema string, opts ...poolOption) *pgxpool.Pool {
	t.Helper()
	return newPoolOn(t, server.DSN, schema, opts...)
}

func newPoolOn(t testing.TB, dsn, schema string, opts ...poolOption) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 10
	if schema != "" {
		config.ConnConfig.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	}
	for _, opt := range opts {
		opt(config)
	}
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// migrate creates the tables, distributed where the server is a Citus to be tested.
func migrate(t testing.TB, pool *pgxpool.Pool, opts ...migrations.Option) {
	t.Helper()
	if err := migrations.Up(t.Context(), pool, opts...); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("PGSTORE_TEST_CITUS") == "" {
		return
	}
	for _, sql := range []string{
		`SELECT create_distributed_table('scs_sessions', 'id')`,
		`SELECT create_distributed_table('scs_user_sessions', 'user_id')`,
		`SELECT create_distributed_table('scs_users', 'user_id', colocate_with => 'scs_user_sessions')`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// migrated is a pool on a new schema with the tables in it.
func migrated(t testing.TB, opts ...poolOption) *pgxpool.Pool {
	t.Helper()
	pool := newPool(t, newSchema(t), opts...)
	migrate(t, pool)
	return pool
}

// ownServer starts a server that the test may kill.
func ownServer(t testing.TB) *devpg.Server {
	t.Helper()
	s, err := devpg.Start(t.Context(), devpg.Local(devpg.Set("fsync", "off")))
	if err != nil {
		t.Skipf("killing a server needs one of our own: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eventually waits for a condition, a minute at most.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// mustExec runs SQL that must work.
func mustExec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(context.WithoutCancel(t.Context()), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// query returns the one value of a query that must work.
func query[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// freePort is one that nobody listens on just now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// schemaOf is the schema that a pool of newPool works in.
func schemaOf(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return query[string](t, pool, `SELECT current_schema()`)
}

// programs are the binaries that tests have built.
var programs struct {
	sync.Mutex
	dir string
}

// sweeperBinary builds the sweeper, once.
func sweeperBinary(t testing.TB) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "scspg-test-")
		if err != nil {
			t.Fatal(err)
		}
		programs.dir = dir
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./cmd/sweeper")
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return filepath.Join(programs.dir, "sweeper")
}

func removePrograms() {
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
}

// insertSessions makes n sessions of n/3 users that expired so long ago, from..to
// being numbers that ids are made of.
func insertSessions(t testing.TB, pool *pgxpool.Pool, from, n int, expiry, reason string) {
	t.Helper()
	mustExec(t, pool, `WITH s AS (INSERT INTO scs_sessions (id, user_id, data, expiry, end_reason)
			SELECT md5(n::text)::uuid, CASE WHEN n % 4 > 0 THEN 'user' || n / 3 END, '\x0001', now() + $3::text::interval, nullif($4::text, '')
			FROM generate_series($1::int, $1::int + $2::int - 1) n RETURNING user_id, id)
		INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM s WHERE user_id IS NOT NULL`, from, n, expiry, reason)
}

// left is how many sessions and user rows there are.
func left(t testing.TB, pool *pgxpool.Pool) (sessions, userRows int) {
	t.Helper()
	return query[int](t, pool, `SELECT count(*) FROM scs_sessions`), query[int](t, pool, `SELECT count(*) FROM scs_user_sessions`)
}
