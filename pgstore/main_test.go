package pgstore_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

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
