package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/pgstore"
)

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

// bothPaths runs a test on the fast and on the portable path, which a sweep chooses
// by the catalog of Citus: a table of that name is taken for it.
func bothPaths(t *testing.T, f func(t *testing.T, pool *pgxpool.Pool)) {
	for _, path := range []string{"fast", "portable"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			if path == "portable" {
				mustExec(t, pool, `CREATE TABLE pg_dist_partition AS SELECT 'scs_sessions'::regclass AS logicalrelid`)
			}
			f(t, pool)
		})
	}
}

func TestSweepDeletesWhatIsDueAndNothingElse(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 hours -1 minute", "")
		insertSessions(t, pool, 100, 12, "-30 days", "signed_out")
		insertSessions(t, pool, 200, 8, "-3 hours -1 minute", "revoked")
		insertSessions(t, pool, 300, 4, "-3 hours -1 minute", "evicted")
		insertSessions(t, pool, 400, 4, "-3 hours -1 minute", "renewed")
		insertSessions(t, pool, 500, 20, "-59 minutes", "")           // within the grace
		insertSessions(t, pool, 600, 20, "1 minute", "")              // alive
		insertSessions(t, pool, 700, 20, "1 minute", "signed_out")    // a tombstone of which a request may still know
		insertSessions(t, pool, 800, 20, "-1 second", "")             // just expired
		insertSessions(t, pool, 900, 20, "-59 minutes", "signed_out") // within the grace
		o := cleanup.Options{Batch: 7, Grace: time.Hour}

		dry, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 7, Grace: time.Hour, DryRun: true})
		if err != nil || dry.Rows() != 68 || dry.Left != 68 {
			t.Errorf("dry run: %v, %d left, %v", dry, dry.Left, err)
		}
		if sessions, _ := left(t, pool); sessions != 168 {
			t.Fatalf("a dry run left %d sessions", sessions)
		}
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
		if r.Expired != 40 || r.SignedOut != 12 || r.Revoked != 8 || r.Evicted != 4 || r.Renewed != 4 || r.UserRows != 51 ||
			r.Batches != 10 || r.Left != 0 || r.OutOfBudget || r.Longest <= 0 || r.Duration < r.Longest || calls != 10 {
			t.Errorf("%+v after %d calls", r, calls)
		}
		if sessions, userRows := left(t, pool); sessions != 100 || userRows != 75 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
		if r, err := cleanup.Sweep(t.Context(), pool, o); err != nil || r.Rows() != 0 {
			t.Errorf("again: %v, %v", r, err)
		}
		// Without a grace, what has just expired goes when its hour is over.
		mustExec(t, pool, `UPDATE scs_sessions SET expiry = now() - interval '2 hours' WHERE end_reason IS NULL AND expiry < now()`)
		if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Grace: time.Nanosecond}); err != nil || r.Expired != 40 {
			t.Errorf("without a grace: %v, %v", r, err)
		}
	})
}

func TestSweepKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 100, "-3 days", "")
		insertSessions(t, pool, 100, 50, "-4 days", "")
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxRows: 70})
		if err != nil || r.Rows() != 70 || !r.OutOfBudget || r.Left != 80 || r.OldestLeft.Before(time.Now().Add(-3*24*time.Hour-2*time.Hour)) {
			t.Errorf("rows: %+v, %v", r, err) // the oldest ones went first
		}
		r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxDuration: time.Nanosecond})
		if err != nil || !r.OutOfBudget || r.Left != 80 {
			t.Errorf("time: %+v, %v", r, err)
		}
		r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxRows: 80})
		if err != nil || r.Rows() != 80 || r.Left != 0 {
			t.Errorf("just enough: %+v, %v", r, err)
		}
	})
}

func TestSweepStopsWithItsContext(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 100, "-3 days", "")
		ctx, cancel := context.WithCancel(t.Context())
		r, err := cleanup.Sweep(ctx, pool, cleanup.Options{Batch: 10, Pause: time.Hour, Progress: func(cleanup.Result) { cancel() }})
		if !errors.Is(err, context.Canceled) || r.Rows() != 10 || r.Batches != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if sessions, _ := left(t, pool); sessions != 90 {
			t.Errorf("%d sessions are left", sessions)
		}
	})
}

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

// What cannot be deleted at all must not be tried for ever.
func TestSweepEndsWhereNothingGoes(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 20_001, "-3 days", "") // more than are listed at a time
		mustExec(t, pool, `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
		mustExec(t, pool, `CREATE TRIGGER keep BEFORE DELETE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION keep()`)
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 5000, Pause: time.Nanosecond})
		if err != nil || r.Rows() != 0 || r.Left != 20_001 {
			t.Errorf("%+v, %v", r, err)
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
			own := newPool(t, schema, execMode(mode))
			_, err := cleanup.Sweep(t.Context(), own, cleanup.Options{LockTimeout: 10 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), "Options.LockTimeout (10ms)") {
				t.Errorf("%s, %v: %v", table, mode, err)
			}
			if r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{DryRun: true}); err != nil || r.Rows() != 10 {
				t.Errorf("%s, %v: a dry run: %v, %v", table, mode, r, err)
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// PostgreSQL's times begin before Go's, and end after JSON's.
func TestSweepOfWhatExpiredLongAgo(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		mustExec(t, pool, `UPDATE scs_sessions SET expiry = (ARRAY['-infinity', '4000-06-01 BC', '0001-06-01', 'infinity']::timestamptz[])[user_id_number % 4 + 1]
			FROM (SELECT id AS this, row_number() OVER () AS user_id_number FROM scs_sessions) n WHERE id = this`)
		for _, mode := range modes {
			own := newPool(t, schemaOf(t, pool), execMode(mode))
			dry, err := cleanup.Sweep(t.Context(), own, cleanup.Options{DryRun: true})
			if err != nil || dry.Rows() != 30 || dry.OldestLeft.UTC().Year() != 1970 {
				t.Errorf("dry run in %v: %+v, %v", mode, dry, err)
			}
			report, err := cleanup.Inspect(t.Context(), own, cleanup.Options{})
			if _, e := json.Marshal(report); err != nil || e != nil || len(report.Due) != 1 || report.Due[0].Rows != 30 {
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

func TestInspectEstimatesBloat(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	for _, table := range []string{"scs_sessions", "scs_user_sessions"} {
		mustExec(t, pool, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	share := func(r cleanup.Relation) float64 {
		if r.Bloat == nil {
			return -1
		}
		return float64(*r.Bloat) / float64(max(1, r.Bytes))
	}
	check := func(when string, ok func(cleanup.Relation) bool) {
		t.Helper()
		report, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{})
		if err != nil || len(report.Relations) != 5 {
			t.Fatalf("%+v, %v", report, err)
		}
		for _, r := range report.Relations {
			if !ok(r) {
				t.Errorf("%s: %+v, of which %.2f are bloat", when, r, share(r))
			}
		}
	}
	check("without statistics", func(r cleanup.Relation) bool { return r.Bloat == nil })
	const n, few = 40_000, `'20000000-0000-0000-0000-000000000000'`
	write := func(f func(own *pgxpool.Pool)) {
		own := newPool(t, schemaOf(t, pool), maxConns(1))
		f(own)
		own.Close() // a server process reports what it has changed when it ends
	}
	// vacuum waits for the report first: the one of a vacuum would be added to otherwise.
	vacuum := func(options string) {
		live := query[int](t, pool, `SELECT count(*) FROM scs_sessions`)
		counted := func() bool {
			return query[int](t, pool, `SELECT n_live_tup FROM pg_stat_all_tables WHERE relid = 'scs_sessions'::regclass`) == live
		}
		eventually(t, "the rows are counted", counted)
		for _, table := range []string{"scs_sessions", "scs_user_sessions"} {
			mustExec(t, pool, `VACUUM (`+options+`) `+table)
		}
		eventually(t, "the rows are counted again", counted)
	}
	write(func(own *pgxpool.Pool) {
		insertSessions(t, own, 0, n/2, "1 hour", "")
		insertSessions(t, own, n/2, n/2, "3 days", "")
	})
	vacuum("FULL, ANALYZE")
	check("built anew", func(r cleanup.Relation) bool { return share(r) >= 0 && share(r) < 0.2 })
	write(func(own *pgxpool.Pool) {
		mustExec(t, own, `DELETE FROM scs_user_sessions WHERE id > `+few)
		mustExec(t, own, `DELETE FROM scs_sessions WHERE id > `+few)
	})
	vacuum("ANALYZE")
	check("seven in eight are gone", func(r cleanup.Relation) bool { return share(r) > 0.6 })
}

// Rows are extended all the time while sweeps look at them. Whatever an update got
// hold of in time must still be there.
func TestSweepNeverDeletesWhatIsExtendedMeanwhile(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 2000, "-3 days", "")
		saved := make(map[string]bool)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				rows, err := pool.Query(t.Context(), `UPDATE scs_sessions SET expiry = now() + interval '1 hour'
					WHERE id = md5($1::text)::uuid RETURNING id::text`, fmt.Sprint(rand.IntN(2000)))
				if err != nil {
					t.Error(err)
					return
				}
				ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if err != nil {
					t.Error(err)
					return
				}
				for _, id := range ids {
					saved[id] = true
				}
			}
		})
		for query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE expiry < now()`) > 0 {
			if _, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 5, MaxRows: 100}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if sessions, _ := left(t, pool); sessions != len(saved) || sessions == 0 {
			t.Errorf("%d sessions are left, %d were extended", sessions, len(saved))
		}
		if n := query[int](t, pool, `SELECT count(*) FROM scs_sessions s WHERE user_id IS NOT NULL AND NOT EXISTS
			(SELECT FROM scs_user_sessions u WHERE u.user_id = s.user_id AND u.id = s.id)`); n > 0 {
			t.Errorf("%d of them lost their user row", n)
		}
	})
}

// The places of rows that are listed may hold others by the time they are deleted.
func TestSweepChecksWhatStandsInAPlaceNow(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 100, "-3 days", "")
	places := func() (list []string) {
		return query[[]string](t, pool, `SELECT array_agg(ctid::text ORDER BY ctid) FROM scs_sessions`)
	}
	before := places()
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 10, Progress: func(r cleanup.Result) {
		if r.Batches > 1 {
			return
		}
		mustExec(t, pool, `DELETE FROM scs_sessions`)
		eventually(t, "their places are free", func() bool { // no old snapshot keeps them
			mustExec(t, pool, `VACUUM (TRUNCATE false, INDEX_CLEANUP on) scs_sessions`)
			return query[int](t, pool, `SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'scs_sessions'::regclass`) == 0
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

func TestTwoSweepsBesideTraffic(t *testing.T) {
	t.Parallel()
	const expired, clients = 200_000, 16
	pool := migrated(t, maxConns(clients))
	insertSessions(t, pool, 0, expired, "-3 days", "")
	a := newApp(t, pool, pgstore.Config{UserLimit: 3, TouchAfter: time.Nanosecond}, true)

	var swept atomic.Int64
	done := make(chan struct{})
	var sweeps, traffic sync.WaitGroup
	for range 2 {
		own := newPool(t, schemaOf(t, pool), maxConns(1))
		sweeps.Go(func() {
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{})
			if err != nil {
				t.Error(err)
			}
			swept.Add(r.Rows())
		})
	}
	for n := range clients {
		traffic.Go(func() {
			b := a.browser(t)
			user := fmt.Sprint("live", n)
			b.must("/login", "user", user)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				switch i % 10 {
				case 3:
					b.must("/put", "key", "k", "value", fmt.Sprint(i))
				case 6:
					b.must("/renew")
				case 9:
					b.must("/logout")
					b.must("/login", "user", user)
				}
				if got := b.user(); got != user {
					t.Errorf("%s is signed in as %q", user, got)
					return
				}
			}
		})
	}
	sweeps.Wait()
	close(done)
	traffic.Wait()
	if swept.Load() != expired {
		t.Errorf("%d sessions were swept", swept.Load())
	}
	if n := query[int](t, pool, `SELECT count(*) FROM scs_user_sessions WHERE user_id LIKE 'user%'`); n != 0 {
		t.Errorf("%d user rows are left", n)
	}
	if n := query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE end_reason IS NULL AND expiry > now() AND user_id IS NOT NULL`); n != clients {
		t.Errorf("%d users are signed in", n)
	}
}

// Beside others who write it makes smaller batches, and rests.
func TestSweepGivesWayToTraffic(t *testing.T) {
	t.Parallel()
	srv := ownServer(t) // transactions count for the whole of a server
	pool := newPoolOn(t, srv.DSN, "")
	migrate(t, pool)
	const n = 30_000
	insertSessions(t, pool, 0, n, "-3 days", "")
	quiet, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	if err != nil || quiet.Rows() != n {
		t.Fatalf("%+v, %v", quiet, err)
	}
	insertSessions(t, pool, n, n, "-3 days", "")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				mustExec(t, pool, `INSERT INTO scs_users (user_id) VALUES (gen_random_uuid()::text)`)
			}
		}
	})
	beside, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	close(done)
	wg.Wait()
	if err != nil || beside.Rows() != n {
		t.Errorf("beside others: %+v, %v", beside, err)
	}
	if quiet.Batches >= beside.Batches {
		t.Errorf("%d batches beside others, %d without", beside.Batches, quiet.Batches)
	}
	insertSessions(t, pool, 2*n, n, "-3 days", "")
	if always, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Pause: time.Nanosecond}); err != nil || always.Batches != n/cleanup.DefaultBatch {
		t.Errorf("at full speed: %+v, %v", always, err)
	}
}

// A batch costs the same at the end of a long sweep as at its beginning, also while
// an old snapshot keeps the deleted rows, and their index entries, in place.
func TestSweepDoesNotSlowDown(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	var hasFlush bool
	if hasFlush = query[int](t, pool, `SELECT current_setting('server_version_num')::int`) >= 150000; !hasFlush {
		t.Skip("PostgreSQL before 15 does not flush its statistics on demand")
	}
	insertSessions(t, pool, 0, 60_000, "-3 days", "")
	mustExec(t, pool, `VACUUM ANALYZE scs_sessions`)
	old, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := old.Exec(t.Context(), `SELECT count(*) FROM scs_sessions`); err != nil {
		t.Fatal(err)
	}

	one := newPool(t, schemaOf(t, pool), maxConns(1))
	blocks := func() (n int) { // on the connection of the sweep, so its own are in
		mustExec(t, one, `SELECT pg_stat_force_next_flush()`)
		return query[int](t, one, `SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
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
					mustExec(t, pool, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
				}
				if analyzed {
					insertSessions(t, pool, n, n, "1 hour", "")
					mustExec(t, pool, `ANALYZE scs_sessions`)
					mustExec(t, pool, `ANALYZE scs_user_sessions`)
				}
				insertSessions(t, pool, 0, n, "-3 days", "")

				sweeping := newPool(t, schemaOf(t, pool), maxConns(1))
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
				eventually(t, "the server reports", func() bool { read(); return entries >= n })
				t.Logf("%d index entries and %d rows in sequence were read", entries, rows)
				// Each session is listed, deleted, and its user row looked up, with those beside it.
				if entries > 6*n || rows > 6*n {
					t.Errorf("%d index entries and %d rows in sequence were read to delete %d", entries, rows, n)
				}
			})
		})
	}
}

func TestSweepInEveryQueryMode(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for i, mode := range modes {
			insertSessions(t, pool, i*100, 40, "-3 days", "revoked")
			own := newPool(t, schemaOf(t, pool), execMode(mode))
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Batch: 15})
			if err != nil || r.Revoked != 40 || r.UserRows != 30 {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
			if _, err := cleanup.Inspect(t.Context(), own, cleanup.Options{}); err != nil {
				t.Errorf("%v: %v", mode, err)
			}
		}
	})
}

func TestSweepOfAnEmptyTable(t *testing.T) {
	t.Parallel()
	rec := &recorder{}
	pool := migrated(t, traced(rec))
	rec.take()
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	if err != nil || r.Rows() != 0 || r.Batches != 0 || r.Left != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := rec.take(); n != 6 { // four to look at the database, a listing, a count
		t.Errorf("%d round trips", n)
	}
}

func TestSweepErrors(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 5000, "-3 days", "")

	if _, err := cleanup.Sweep(t.Context(), newPool(t, newSchema(t)), cleanup.Options{}); !errors.Is(err, cleanup.ErrNotMigrated) {
		t.Errorf("not migrated: %v", err)
	}
	standby := newPool(t, schemaOf(t, pool), param("default_transaction_read_only", "on"))
	if _, err := cleanup.Sweep(t.Context(), standby, cleanup.Options{}); !errors.Is(err, cleanup.ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
	if r, err := cleanup.Sweep(t.Context(), standby, cleanup.Options{DryRun: true}); err != nil || r.Rows() != 5000 {
		t.Errorf("a dry run there: %v, %v", r, err)
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
		if _, err := other.Exec(t.Context(), `SELECT FROM scs_user_sessions WHERE user_id = 'user1' FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		var r cleanup.Result
		ended := make(chan error)
		go func() {
			var err error
			r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 10})
			ended <- err
		}()
		eventually(t, "the sweep waits for us", func() bool {
			return query[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_blocking_pids(pid) = ARRAY[$1::int])`,
				other.Conn().PgConn().PID())
		})
		// The one that waited first looks for a deadlock first, and gives way.
		if _, err := other.Exec(t.Context(), `UPDATE scs_sessions SET last_seen_at = now() WHERE user_id = 'user1'`); err != nil {
			t.Error(err)
		}
		if err := other.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil || r.Rows()+r.Left != 40 || r.Left > 10 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestSweepSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	pool := newPoolOn(t, srv.DSN, "")
	migrate(t, pool)
	insertSessions(t, pool, 0, 20_000, "-3 days", "")
	killed := false
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 100, Pause: time.Nanosecond, Progress: func(r cleanup.Result) {
		if r.Batches == 20 && !killed {
			killed = true
			if err := srv.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil || r.Rows() < 2000 {
		t.Errorf("while the server died: %+v, %v", r, err)
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	again, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	// The commits were asynchronous: the crash may have brought some batches back.
	if err != nil || r.Rows()+again.Rows() < 20_000 {
		t.Errorf("%d and %d rows, %v", r.Rows(), again.Rows(), err)
	}
	if sessions, userRows := left(t, pool); sessions != 0 || userRows != 0 {
		t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
	}
}

func TestEverySweepsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		ended <- cleanup.Every(ctx, pool, time.Millisecond, cleanup.Options{Logger: slog.New(slog.DiscardHandler)})
	}()
	for i := range 3 {
		insertSessions(t, pool, i*100, 10, "-3 days", "")
		eventually(t, "they are swept", func() bool { sessions, _ := left(t, pool); return sessions == 0 })
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := cleanup.Every(t.Context(), pool, 0, cleanup.Options{}); err == nil {
		t.Error("an interval of 0 was taken")
	}
}

// A sweep that has waited for a row looks at it again.
func TestSweepSparesWhatWasExtendedWhileItWaited(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 10, "-3 days", "")
		schema := schemaOf(t, pool)
		sweeping := newPool(t, schema, param("application_name", schema))
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
		eventually(t, "it waits", func() bool {
			return query[int](t, adminPool(t), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) > 0
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
