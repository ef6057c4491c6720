package pgtest

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// awkward reports whether PGSTORE_TEST_AWKWARD is set: schemas then have names that must be
// quoted, transactions are serializable by default, and the time zone is half an hour off.
func awkward() bool { return os.Getenv("PGSTORE_TEST_AWKWARD") != "" }

// Schema makes a schema that is dropped with the test.
func Schema(t testing.TB) string {
	t.Helper()
	admin := get(t).admin
	name := "t_" + rand.Text()
	if !awkward() {
		name = strings.ToLower(name)
	}
	quoted := pgx.Identifier{name}.Sanitize()
	Exec(t, admin, "CREATE SCHEMA "+quoted)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if _, err := admin.Exec(ctx, "DROP SCHEMA "+quoted+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	return name
}

// Option changes the configuration of a pool.
type Option func(*pgxpool.Config)

// MaxConns bounds the pool. Default: 10.
func MaxConns(n int32) Option { return func(c *pgxpool.Config) { c.MaxConns = n } }

// Param sets a parameter of the pool's sessions, such as DateStyle.
func Param(name, value string) Option {
	return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[name] = value }
}

// ExecMode sets how pgx runs the pool's queries.
func ExecMode(mode pgx.QueryExecMode) Option {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }
}

// Pool opens a pool whose search_path is a new schema. It is closed with the test.
func Pool(t testing.TB, opts ...Option) *pgxpool.Pool {
	t.Helper()
	return PoolIn(t, Schema(t), opts...)
}

// PoolIn opens a pool whose search_path is the schema, or the server's default if that
// is "". If PGSTORE_TEST_PGBOUNCER is set, a pool in a schema goes through a PgBouncer.
func PoolIn(t testing.TB, schema string, opts ...Option) *pgxpool.Pool {
	t.Helper()
	if schema != "" {
		opts = throughPgBouncer(t, opts)
	}
	return PoolOn(t, DSN(t), schema, opts...)
}

// PoolOn is PoolIn for another server, or another way to the same one.
func PoolOn(t testing.TB, dsn, schema string, opts ...Option) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 10
	if schema != "" {
		config.ConnConfig.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	}
	if awkward() {
		config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
		config.ConnConfig.RuntimeParams["TimeZone"] = "America/St_Johns"
	}
	for _, opt := range opts {
		opt(config)
	}
	watch(t, config)
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Citus reports whether the tests run on Citus.
func Citus() bool { return os.Getenv("PGSTORE_TEST_CITUS") != "" }

// OtherNode is PoolIn, and on Citus through one of its workers.
func OtherNode(t testing.TB, schema string, opts ...Option) *pgxpool.Pool {
	t.Helper()
	if Citus() {
		row := get(t).admin.QueryRow(t.Context(), `SELECT nodename, nodeport FROM pg_dist_node WHERE groupid > 0 ORDER BY 2 LIMIT 1`)
		var host string
		var port uint16
		if err := row.Scan(&host, &port); err != nil {
			t.Fatal(err)
		}
		opts = append(opts, func(c *pgxpool.Config) { c.ConnConfig.Host, c.ConnConfig.Port = host, port })
	}
	return PoolIn(t, schema, opts...)
}

// Distribute spreads the migrated tables over a Citus if PGSTORE_TEST_CITUS is set; else
// it does nothing.
func Distribute(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	if !Citus() {
		return
	}
	for _, sql := range []string{
		`SELECT create_distributed_table('scs_sessions', 'id')`,
		`SELECT create_distributed_table('scs_user_sessions', 'user_id')`,
		`SELECT create_distributed_table('scs_users', 'user_id', colocate_with => 'scs_user_sessions')`,
	} {
		Exec(t, pool, sql)
	}
}

// NotOnCitus skips the test where the tests run on Citus, for what Citus lacks or refuses.
func NotOnCitus(t testing.TB, why string) {
	t.Helper()
	if Citus() {
		t.Skip("not on Citus: " + why)
	}
}

// Exec runs SQL that must work.
func Exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(context.WithoutCancel(t.Context()), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// Query returns the one value of a query that must work.
func Query[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	if err := pool.QueryRow(context.WithoutCancel(t.Context()), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Eventually waits for a condition, a minute at most.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
