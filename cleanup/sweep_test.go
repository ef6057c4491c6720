package cleanup_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestSweepDeletesWhatIsDueAndNothingElse(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 hours -1 minute", "")
		insertSessions(t, pool, 100, 12, "-30 days", "signed_out")
		insertSessions(t, pool, 200, 8, "-3 hours -1 minute", "revoked")
		insertSessions(t, pool, 300, 4, "-3 hours -1 minute", "evicted")
		insertSessions(t, pool, 400, 4, "-3 hours -1 minute", "renewed")
		insertSessions(t, pool, 1000, 4, "-3 hours -1 minute", "timed_out") // expired, to whoever asks
		insertSessions(t, pool, 500, 20, "-59 minutes", "")                 // within the grace
		insertSessions(t, pool, 600, 20, "1 minute", "")                    // alive
		insertSessions(t, pool, 700, 20, "1 minute", "signed_out")          // a tombstone of which a request may still know
		insertSessions(t, pool, 800, 20, "-1 second", "")                   // just expired
		insertSessions(t, pool, 900, 20, "-59 minutes", "signed_out")       // within the grace
		o := cleanup.Options{Batch: 7, Grace: time.Hour}

		var calls int64
		o.Progress = func(r cleanup.Result) {
			if calls++; r.Batches != calls || r.Rows() == 0 {
				t.Errorf("call %d: %+v", calls, r)
			}
		}
		r, err := cleanup.Sweep(t.Context(), pool, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Expired != 44 || r.SignedOut != 12 || r.Revoked != 8 || r.Evicted != 4 || r.Renewed != 4 || r.UserRows != 54 ||
			r.Batches != 11 || r.Left != 0 || r.OutOfBudget || r.Longest <= 0 || r.Duration < r.Longest || calls != 11 {
			t.Errorf("%+v after %d calls", r, calls)
		}
		if sessions, userRows := left(t, pool); sessions != 100 || userRows != 75 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
		if r, err := cleanup.Sweep(t.Context(), pool, o); err != nil || r.Rows() != 0 {
			t.Errorf("again: %v, %v", r, err)
		}
		// Without a grace, what has just expired goes when its hour is over.
		pgtest.Exec(t, pool, `UPDATE scs_sessions SET expiry = now() - interval '2 hours' WHERE end_reason IS NULL AND expiry < now()`)
		if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Grace: time.Nanosecond}); err != nil || r.Expired != 40 {
			t.Errorf("without a grace: %v, %v", r, err)
		}
	})
}

// A later release may know more reasons.
func TestSweepCountsUnknownReasonsAsExpired(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		pgtest.Exec(t, pool, `ALTER TABLE scs_sessions DROP CONSTRAINT scs_sessions_end_reason_check`)
		insertSessions(t, pool, 0, 8, "-3 days", "teleported")
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 3, MaxRows: 6})
		if err != nil || r.Expired != 6 || r.Left != 2 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// PostgreSQL's times begin before Go's, and end after JSON's.
func TestSweepTakesWhatExpiredLongAgo(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		pgtest.Exec(t, pool, `UPDATE scs_sessions SET expiry = (ARRAY['-infinity', '4000-06-01 BC', '0001-06-01', 'infinity']::timestamptz[])[user_id_number % 4 + 1]
			FROM (SELECT id AS this, row_number() OVER () AS user_id_number FROM scs_sessions) n WHERE id = this`)
		for _, mode := range modes {
			own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.ExecMode(mode))
			report, err := cleanup.Inspect(t.Context(), own, cleanup.Options{})
			if _, e := json.Marshal(report); err != nil || e != nil || len(report.Due) != 1 || report.Due[0].Rows != 30 ||
				report.Total.Rows() != 30 || report.Total.OldestLeft.UTC().Year() != 1970 {
				t.Errorf("%v: %+v, %v, %v", mode, report, err, e)
			}
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{MaxDuration: 1})
			if err != nil || r.Left != 30 || r.OldestLeft.UTC().Year() != 1970 {
				t.Errorf("what is left, in %v: %+v, %v", mode, r, err)
			}
		}
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 7})
		if err != nil || r.Rows() != 30 || r.Left != 0 || !r.OldestLeft.IsZero() {
			t.Errorf("%+v, %v", r, err)
		}
		if sessions, _ := left(t, pool); sessions != 10 {
			t.Errorf("%d sessions are left", sessions)
		}
	})
}

// The places of rows that are listed may hold others by the time they are deleted.
func TestSweepChecksWhatStandsInAPlaceNow(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 100, "-3 days", "")
	places := func() (list []string) {
		return pgtest.Query[[]string](t, pool, `SELECT array_agg(ctid::text ORDER BY ctid) FROM scs_sessions`)
	}
	before := places()
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 10, Progress: func(r cleanup.Result) {
		if r.Batches > 1 {
			return
		}
		pgtest.Exec(t, pool, `DELETE FROM scs_sessions`)
		pgtest.Eventually(t, "their places are free", func() bool { // no old snapshot keeps them
			pgtest.Exec(t, pool, `VACUUM (TRUNCATE false, INDEX_CLEANUP on) scs_sessions`)
			return pgtest.Query[int](t, pool, `SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'scs_sessions'::regclass`) == 0
		})
		insertSessions(t, pool, 1000, 100, "1 hour", "")
	}})
	if err != nil || r.Rows() != 10 {
		t.Errorf("%+v, %v", r, err)
	}
	after := places()
	if len(after) != 100 {
		t.Errorf("%d sessions are left", len(after))
	}
	if !slices.Equal(before, after) {
		t.Errorf("the places were not used again: %d, %d", len(before), len(after))
	}
}

// What cannot be deleted at all must not be tried for ever.
func TestSweepEndsWhereNothingGoes(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 20_001, "-3 days", "") // more than are listed at a time
		pgtest.Exec(t, pool, `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
		pgtest.Exec(t, pool, `CREATE TRIGGER keep BEFORE DELETE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION keep()`)
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 5000, Pause: time.Nanosecond})
		if err != nil || r.Rows() != 0 || r.Left != 20_001 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestSweepErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 5000, "-3 days", "")

	if _, err := cleanup.Sweep(t.Context(), pgtest.PoolIn(t, pgtest.Schema(t)), cleanup.Options{}); !errors.Is(err, cleanup.ErrNotMigrated) {
		t.Errorf("not migrated: %v", err)
	}
	for _, mode := range modes {
		nowhere := pgtest.PoolIn(t, "no_such_schema", pgtest.ExecMode(mode))
		if _, err := cleanup.Sweep(t.Context(), nowhere, cleanup.Options{}); err == nil || errors.Is(err, cleanup.ErrNotMigrated) ||
			!strings.Contains(err.Error(), "no schema of the search_path exists") {
			t.Errorf("no schema, %v: %v", mode, err)
		}
		if _, err := cleanup.Sweep(t.Context(), nowhere, cleanup.Options{Schema: schemaOf(t, pool), MaxDuration: 1}); err != nil {
			t.Errorf("a named schema, %v: %v", mode, err)
		}
	}
	standby := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.Param("default_transaction_read_only", "on"))
	if _, err := cleanup.Sweep(t.Context(), standby, cleanup.Options{}); !errors.Is(err, cleanup.ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
	if r, err := cleanup.Inspect(t.Context(), standby, cleanup.Options{}); err != nil || r.Total.Rows() != 5000 {
		t.Errorf("a look there: %v, %v", r, err)
	}
	if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 5000, Pause: time.Nanosecond, StatementTimeout: time.Millisecond}); err == nil || r.Rows() != 0 {
		t.Errorf("statement timeout: %v, %v", r, err)
	} else if sessions, _ := left(t, pool); sessions != 5000 {
		t.Errorf("%d sessions are left", sessions)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `LOCK TABLE scs_sessions`); err != nil {
		t.Fatal(err)
	}
	_, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{LockTimeout: 10 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "Options.LockTimeout (10ms)") {
		t.Errorf("a locked table: %v", err)
	}
}
