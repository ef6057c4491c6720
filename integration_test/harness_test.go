package integration_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

// migrated is a pool on a new schema with the tables in it.
func migrated(t testing.TB, opts ...pgtest.Option) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t, opts...)
	migrate(t, pool)
	return pool
}

func migrate(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	pgtest.Migrate(t, pool, func(ctx context.Context, pool *pgxpool.Pool) error { return migrations.Up(ctx, pool) })
}

// skip skips a test for want of something, and fails it if CI is set.
func skip(t testing.TB, why any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
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

// schemaOf is the schema that a pool works in.
func schemaOf(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return pgtest.Query[string](t, pool, `SELECT current_schema()`)
}

// lockedBuffer is a log that several write to at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
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
	pgtest.Exec(t, pool, `WITH s AS (INSERT INTO scs_sessions (id, user_id, data, expiry, end_reason)
			SELECT md5(n::text)::uuid, CASE WHEN n % 4 > 0 THEN 'user' || n / 3 END, '\x0001', now() + $3::text::interval, nullif($4::text, '')
			FROM generate_series($1::int, $1::int + $2::int - 1) n RETURNING user_id, id)
		INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM s WHERE user_id IS NOT NULL`, from, n, expiry, reason)
}

// left is how many sessions and user rows there are.
func left(t testing.TB, pool *pgxpool.Pool) (sessions, userRows int) {
	t.Helper()
	return pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions`), pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_user_sessions`)
}
