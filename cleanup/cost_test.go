package cleanup_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

// roundTrips counts those to the server.
type roundTrips struct{ atomic.Int64 }

func (r *roundTrips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	r.Add(1)
	return ctx
}

func (r *roundTrips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	r.Add(1)
	return ctx
}

func (*roundTrips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData)     {}
func (*roundTrips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*roundTrips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestSweepOfAnEmptyTableTakesSixRoundTrips(t *testing.T) {
	t.Parallel()
	trips := &roundTrips{}
	pool := migrated(t, func(c *pgxpool.Config) { c.ConnConfig.Tracer = trips })
	trips.Store(0)
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	if err != nil || r.Rows() != 0 || r.Batches != 0 || r.Left != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := trips.Load(); n != 6 { // four to look at the database, a listing, a count
		t.Errorf("%d round trips", n)
	}
}

// A batch costs the same at the end of a long sweep as at its beginning, also while
// an old snapshot keeps the deleted rows, and their index entries, in place.
func TestSweepDoesNotSlowDown(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 60_000, "-3 days", "")
	pgtest.Exec(t, pool, `VACUUM ANALYZE scs_sessions`)
	old, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := old.Exec(t.Context(), `SELECT count(*) FROM scs_sessions`); err != nil {
		t.Fatal(err)
	}

	one := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.MaxConns(1))
	blocks := func() (n int) { // on the connection of the sweep, so its own are in
		pgtest.Exec(t, one, `SELECT pg_stat_force_next_flush()`)
		return pgtest.Query[int](t, one, `SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
			FROM pg_statio_user_tables WHERE relid = 'scs_sessions'::regclass`)
	}
	var costs []int
	last := blocks()
	r, err := cleanup.Sweep(t.Context(), one, cleanup.Options{Batch: 100, Pause: time.Nanosecond, Progress: func(cleanup.Result) {
		now := blocks()
		costs = append(costs, now-last)
		last = now
	}})
	if err != nil || r.Rows() != 60_000 || len(costs) != 600 {
		t.Fatalf("%+v, %v", r, err)
	}
	sum := func(costs []int) (n int) {
		for _, c := range costs {
			n += c
		}
		return n
	}
	// The listings are in the first batch of every hundred.
	early, late := sum(costs[1:51]), sum(costs[501:551])
	if late > early*3/2 || early == 0 {
		t.Errorf("batches 2 to 51 read %d blocks, 501 to 550 read %d", early, late)
	}
	if all := sum(costs); all > 40*early {
		t.Errorf("the sweep read %d blocks, a twelfth of it %d: listing costs too much", all, early)
	}
}

// Statistics are of the past: here, of a time when nothing had expired, or when there
// was nothing at all. A batch must read its rows and no more all the same.
func TestSweepDoesNotRelyOnStatistics(t *testing.T) {
	t.Parallel()
	const n = 30_000
	for name, analyzed := range map[string]bool{"outdated": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
				for _, table := range []string{"scs_sessions", "scs_user_sessions"} {
					pgtest.Exec(t, pool, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
				}
				if analyzed {
					insertSessions(t, pool, n, n, "1 hour", "")
					pgtest.Exec(t, pool, `ANALYZE scs_sessions`)
					pgtest.Exec(t, pool, `ANALYZE scs_user_sessions`)
				}
				insertSessions(t, pool, 0, n, "-3 days", "")

				sweeping := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.MaxConns(1))
				if r, err := cleanup.Sweep(t.Context(), sweeping, cleanup.Options{Batch: 300}); err != nil || r.Rows() != n {
					t.Fatalf("%v, %v", r, err)
				}
				sweeping.Close() // a server process reports what it has read when it ends
				var entries, rows int
				read := func() {
					if err := pool.QueryRow(t.Context(), `SELECT
						(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = current_schema() AND relname LIKE 'scs\_%sessions'),
						(SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname LIKE 'scs\_%sessions')`).
						Scan(&entries, &rows); err != nil {
						t.Fatal(err)
					}
				}
				pgtest.Eventually(t, "the server reports", func() bool { read(); return entries >= n })
				t.Logf("%d index entries and %d rows in sequence were read", entries, rows)
				// Each session is listed, deleted, and its user row looked up, with those beside it.
				if entries > 6*n || rows > 6*n {
					t.Errorf("%d index entries and %d rows in sequence were read to delete %d", entries, rows, n)
				}
			})
		})
	}
}
