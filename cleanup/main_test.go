package cleanup_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrateIn(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	pgtest.Migrate(t, pool, func(ctx context.Context, pool *pgxpool.Pool) error { return migrations.Up(ctx, pool) })
}

// migrated is a pool on a new schema with the tables in it.
func migrated(t testing.TB, opts ...pgtest.Option) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t, opts...)
	migrateIn(t, pool)
	return pool
}

// schemaOf is the schema that a pool works in.
func schemaOf(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return pgtest.Query[string](t, pool, `SELECT current_schema()`)
}

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
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

// bothPaths runs a test on the fast and on the portable path, which a sweep chooses
// by the catalog of Citus: a table of that name is taken for it.
func bothPaths(t *testing.T, f func(t *testing.T, pool *pgxpool.Pool)) {
	for _, path := range []string{"fast", "portable"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			if path == "portable" {
				pgtest.Exec(t, pool, `CREATE TABLE pg_dist_partition AS SELECT 'scs_sessions'::regclass AS logicalrelid`)
			}
			f(t, pool)
		})
	}
}
