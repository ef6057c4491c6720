package cleanup_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestSweepPassesOverLockedRows(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), `SELECT id FROM scs_sessions ORDER BY id LIMIT 3 FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 4, LockTimeout: 10 * time.Millisecond})
		// The portable path passes over the batches that they are in.
		if err != nil || r.Left < 3 || r.Left > 12 || r.Rows()+r.Left != 40 || r.OldestLeft.IsZero() {
			t.Errorf("%+v, %v", r, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{}); err != nil || r.Rows() < 3 || r.Left != 0 {
			t.Errorf("later: %+v, %v", r, err)
		}
		if sessions, userRows := left(t, pool); sessions != 0 || userRows != 0 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
	})
}

// However many are locked, those behind them go in the same sweep.
func TestSweepGoesOnBehindLockedRows(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		const there, locked, batch = 22_000, 20_500, 100 // more than are listed at a time
		insertSessions(t, pool, 0, there/2, "-3 days", "")
		insertSessions(t, pool, there/2, there/2, "-3 days", "signed_out")
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), `SELECT FROM scs_sessions ORDER BY sweep_at, ctid LIMIT $1 FOR UPDATE`, locked); err != nil {
			t.Fatal(err)
		}
		o := cleanup.Options{Batch: batch, LockTimeout: 10 * time.Millisecond, Pause: time.Nanosecond}
		r, err := cleanup.Sweep(t.Context(), pool, o)
		// The portable path passes over the batch that is half locked.
		if err != nil || r.Rows() > there-locked || r.Rows() < there-locked-batch || r.Rows()+r.Left != there || !r.Counted {
			t.Errorf("%+v, %v", r, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{}); err != nil || r.Left != 0 {
			t.Errorf("later: %+v, %v", r, err)
		}
	})
}

// A sign-in deletes rows of its user's index, and one of them stops a batch.
func TestSweepComesBackToWhatOthersHeld(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		tx := begin(t, pool)
		if _, err := tx.Exec(t.Context(), `SELECT FROM scs_user_sessions WHERE user_id = 'user1' FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		o := cleanup.Options{Batch: 10, Pause: time.Nanosecond, LockTimeout: 10 * time.Millisecond}
		r, err := cleanup.Sweep(t.Context(), pool, o)
		if err != nil || r.Rows() != 30 || r.Left != 10 || !r.Counted || r.OutOfBudget {
			t.Errorf("while they are held: %+v, %v", r, err)
		}
		insertSessions(t, pool, 100, 40, "-2 days", "")
		o.Progress = func(cleanup.Result) { _ = tx.Rollback(t.Context()) } // by then, it has passed them over
		if r, err = cleanup.Sweep(t.Context(), pool, o); err != nil || r.Rows() != 50 || r.Left != 0 {
			t.Errorf("once they are free: %+v, %v", r, err)
		}
		if sessions, userRows := left(t, pool); sessions != 0 || userRows != 0 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
	})
}

// A table may be locked for reading only, as CREATE INDEX does it.
func TestSweepWaitsForATableNoLongerThanItShould(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	schema := schemaOf(t, pool)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	for _, table := range []string{"scs_sessions", "scs_user_sessions"} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), `LOCK TABLE `+table+` IN SHARE MODE`); err != nil {
			t.Fatal(err)
		}
		for _, mode := range modes {
			own := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode))
			_, err := cleanup.Sweep(t.Context(), own, cleanup.Options{LockTimeout: 10 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), "Options.LockTimeout (10ms)") {
				t.Errorf("%s, %v: %v", table, mode, err)
			}
			if r, err := cleanup.Inspect(t.Context(), own, cleanup.Options{}); err != nil || r.Total.Rows() != 10 {
				t.Errorf("%s, %v: a look: %v, %v", table, mode, r, err)
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A sweep that has waited for a row looks at it again.
func TestSweepSparesWhatWasExtendedWhileItWaited(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 10, "-3 days", "")
		schema := schemaOf(t, pool)
		sweeping := pgtest.PoolIn(t, schema, pgtest.Param("application_name", schema))
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), `UPDATE scs_sessions SET expiry = now() + interval '1 hour' WHERE id = md5('1')::uuid`); err != nil {
			t.Fatal(err)
		}
		swept := make(chan error, 1)
		go func() {
			// The fast path waits for a hundredth of it before it goes on without the row.
			r, err := cleanup.Sweep(t.Context(), sweeping, cleanup.Options{LockTimeout: 50 * time.Minute, StatementTimeout: time.Hour})
			if err == nil && r.Rows() != 9 {
				err = fmt.Errorf("%d rows went", r.Rows())
			}
			swept <- err
		}()
		pgtest.Eventually(t, "it waits", func() bool {
			return pgtest.Query[int](t, pgtest.PoolIn(t, ""), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) > 0
		})
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-swept; err != nil {
			t.Error(err)
		}
		sessions, userRows := left(t, pool)
		if sessions != 1 || userRows != 1 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
	})
}

// A sign-in deletes rows of its user's index too, in an order of its own.
func TestSweepTriesAgainAfterADeadlock(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		other, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := other.Exec(t.Context(), `SELECT set_config('deadlock_timeout', '1h', true)`); err != nil { // never gives way
			t.Fatal(err)
		}
		if _, err := other.Exec(t.Context(), `SELECT FROM scs_user_sessions WHERE user_id = 'user1' FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		sweeping := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.Param("deadlock_timeout", "2s")) // by then, we wait for it
		var r cleanup.Result
		ended := make(chan error)
		go func() {
			var err error
			r, err = cleanup.Sweep(t.Context(), sweeping, cleanup.Options{Batch: 10, LockTimeout: time.Hour, StatementTimeout: time.Hour})
			ended <- err
		}()
		pgtest.Eventually(t, "the sweep waits for us", func() bool {
			return pgtest.Query[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_blocking_pids(pid) = ARRAY[$1::int])`,
				other.Conn().PgConn().PID())
		})
		if _, err := other.Exec(t.Context(), `UPDATE scs_sessions SET last_seen_at = now() WHERE user_id = 'user1'`); err != nil {
			t.Error(err)
		}
		if err := other.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil || r.Rows() != 40 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
