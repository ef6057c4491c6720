package cleanup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

// abandon makes n sessions, as insertSessions does, with their users, and deletes the
// first of them by hand.
func abandon(t testing.TB, pool *pgxpool.Pool, n, gone int) {
	t.Helper()
	insertSessions(t, pool, 0, n, "1 hour", "")
	pgtest.Exec(t, pool, `INSERT INTO scs_users (user_id) SELECT DISTINCT user_id FROM scs_user_sessions`)
	pgtest.Exec(t, pool, `UPDATE scs_user_sessions SET created_at = now() - interval '1 hour'`)
	pgtest.Exec(t, pool, `DELETE FROM scs_sessions WHERE id IN (SELECT md5(n::text)::uuid FROM generate_series(0, $1::int - 1) n)`, gone)
}

func users(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return pgtest.Query[string](t, pool, `SELECT coalesce(string_agg(user_id, ' ' ORDER BY user_id), '') FROM scs_users`)
}

// intact checks that every session of a user is in the user's index.
func intact(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions s WHERE user_id IS NOT NULL AND NOT EXISTS
		(SELECT FROM scs_user_sessions u WHERE u.user_id = s.user_id AND u.id = s.id)`); n > 0 {
		t.Errorf("%d sessions lost their user row", n)
	}
}

func TestSweepTakesOrphansIfTold(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		abandon(t, pool, 40, 20) // 15 rows of the users 0 to 6, who have no others
		insertSessions(t, pool, 100, 4, "-3 days", "revoked")
		pgtest.Exec(t, pool, `UPDATE scs_users SET fence = now() - interval '23 hours' WHERE user_id = 'user0'`)
		pgtest.Exec(t, pool, `UPDATE scs_users SET fence = now() - interval '25 hours' WHERE user_id = 'user1'`)
		pgtest.Exec(t, pool, `INSERT INTO scs_users VALUES ('guest', '-infinity'), ('fenced', now()), ('user33', '-infinity')`)
		pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions VALUES ('young', gen_random_uuid(), now())`)

		if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{MaxDuration: 1}); err != nil || r.OrphanUserRows != 0 || r.OrphanUsers != 0 {
			t.Errorf("without being told: %+v, %v", r, err)
		}
		o := cleanup.Options{Batch: 4, Orphans: true}
		report, err := cleanup.Inspect(t.Context(), pool, o)
		if n := report.Total; err != nil || n.OrphanUserRows < 15 || n.OrphanUsers != 1 || n.Revoked != 4 {
			t.Errorf("a look: %+v, %v", n, err) // the others are still in the index
		}
		calls := 0
		o.Progress = func(cleanup.Result) { calls++ }
		r, err := cleanup.Sweep(t.Context(), pool, o)
		if err != nil || r.Rows() != 4 || r.OrphanUserRows != 15 || r.OrphanUsers != 8 || r.OutOfBudget || int64(calls) != r.Batches || r.Batches < 7 {
			t.Errorf("%+v, %v", r, err) // users 1 to 6, the guest, and user33, whose session it swept
		}
		if got := users(t, pool); got != "fenced user0 user10 user11 user12 user13 user7 user8 user9" {
			t.Errorf("left are the users %s", got)
		}
		if sessions, userRows := left(t, pool); sessions != 20 || userRows != 16 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
		intact(t, pool)
	})
}

func TestOrphansGoInEveryQueryMode(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for _, mode := range modes {
			pgtest.Exec(t, pool, `INSERT INTO scs_users SELECT 'it''s "' || n || '" {\,} @id $1 ü' FROM generate_series(1, 30) n`)
			pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions SELECT user_id, gen_random_uuid(), now() - interval '1 hour' FROM scs_users, generate_series(1, 3)`)
			own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.ExecMode(mode))
			o := cleanup.Options{Batch: 7, Orphans: true, Schema: schemaOf(t, pool)}
			if r, err := cleanup.Inspect(t.Context(), own, o); err != nil || r.Total.OrphanUserRows != 90 {
				t.Errorf("%v: %+v, %v", mode, r.Total, err)
			}
			if r, err := cleanup.Sweep(t.Context(), own, o); err != nil || r.OrphanUserRows != 90 || r.OrphanUsers != 30 {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
		}
	})
}

// signIn does what a sign-in of the store does in its transaction.
func signIn(t testing.TB, ctx context.Context, db interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}, user, seed string) {
	t.Helper()
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET fence = scs_users.fence`, user)
	b.Queue(`INSERT INTO scs_sessions (id, user_id, data, expiry) VALUES (md5($2::text)::uuid, $1, '', now() + interval '1 hour')`, user, seed)
	b.Queue(`INSERT INTO scs_user_sessions (user_id, id, created_at) VALUES ($1, md5($2::text)::uuid, now() - interval '1 day')
		ON CONFLICT (user_id, id) DO UPDATE SET created_at = excluded.created_at`, user, seed) // of a renewal, created_at is old
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		t.Error(err)
	}
}

// begin is a transaction that is rolled back unless it is committed.
func begin(t testing.TB, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
}

// crossings are what may hold a row that looks like an orphan to others: of 20 that
// abandon left, those of user1 (of the sessions 3 and 5) and of user2.
var crossings = map[string]struct {
	run             func(t *testing.T, tx pgx.Tx)
	userRows, users int64 // that go beside it
	kept            string
}{
	"a sign-in under a token whose session is gone": {func(t *testing.T, tx pgx.Tx) { signIn(t, t.Context(), tx, "user1", "3") }, 14, 6, "user1"},
	"a sign-in":  {func(t *testing.T, tx pgx.Tx) { signIn(t, t.Context(), tx, "user2", "new") }, 15, 6, "user2"},
	"a new user": {func(t *testing.T, tx pgx.Tx) { signIn(t, t.Context(), tx, "nobody", "new") }, 15, 7, "nobody"},
	"a fence": {func(t *testing.T, tx pgx.Tx) {
		if _, err := tx.Exec(t.Context(), `UPDATE scs_users SET fence = now() WHERE user_id = 'user2'`); err != nil {
			t.Error(err)
		}
	}, 15, 6, "user2"},
}

func TestOrphansAreNotThoseOfASignInUnderWay(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for name, c := range crossings {
			pgtest.Exec(t, pool, `TRUNCATE scs_sessions, scs_user_sessions, scs_users`)
			abandon(t, pool, 20, 20)
			tx := begin(t, pool)
			c.run(t, tx)
			r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, LockTimeout: 10 * time.Millisecond})
			if err != nil || r.OrphanUserRows != c.userRows || r.OrphanUsers != c.users {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			if got := users(t, pool); got != c.kept {
				t.Errorf("%s: left are the users %q", name, got)
			}
			intact(t, pool)
		}
	})
}

// A sweep that has waited for a row looks at what has become of it.
func TestOrphansAreLookedAtAgainAfterAWait(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for name, c := range crossings {
			if c.kept == "nobody" {
				continue // no row to wait for
			}
			pgtest.Exec(t, pool, `TRUNCATE scs_sessions, scs_user_sessions, scs_users`)
			abandon(t, pool, 20, 20)
			tx := begin(t, pool)
			c.run(t, tx)
			swept := make(chan error)
			go func() {
				r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, LockTimeout: time.Hour, StatementTimeout: time.Hour})
				if err == nil && (r.OrphanUserRows != c.userRows || r.OrphanUsers != c.users) {
					err = fmt.Errorf("%+v", r)
				}
				swept <- err
			}()
			waitFor(t, pool, tx.Conn().PgConn().PID())
			if err := tx.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-swept; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := users(t, pool); got != c.kept {
				t.Errorf("%s: left are the users %q", name, got)
			}
			intact(t, pool)
		}
	})
}

// waitFor waits until somebody waits for this process.
func waitFor(t testing.TB, pool *pgxpool.Pool, pid uint32) {
	t.Helper()
	pgtest.Eventually(t, "it is waited for", func() bool {
		return pgtest.Query[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND $1::int = ANY(pg_blocking_pids(pid)))`, pid)
	})
}

// A sign-in that waits for rows which are being deleted inserts them anew.
func TestSignInOutlivesTheDeletionOfItsOrphans(t *testing.T) {
	t.Parallel()
	for table, seed := range map[string]string{"scs_user_sessions": "3", "scs_users": "new"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
				abandon(t, pool, 20, 20)
				pgtest.Exec(t, pool, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
					'BEGIN PERFORM pg_advisory_xact_lock(TG_RELID::bigint); RETURN NULL; END'`)
				pgtest.Exec(t, pool, `CREATE TRIGGER wait AFTER DELETE ON `+table+` FOR EACH ROW EXECUTE FUNCTION wait()`)
				tx := begin(t, pool)
				if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1::text::regclass::oid::bigint)`, table); err != nil {
					t.Fatal(err)
				}
				swept := make(chan error)
				go func() {
					_, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, LockTimeout: time.Hour, StatementTimeout: time.Hour})
					swept <- err
				}()
				pid := tx.Conn().PgConn().PID()
				waitFor(t, pool, pid)
				sweeper := pgtest.Query[uint32](t, pool, `SELECT pid FROM pg_locks WHERE NOT granted AND $1::int = ANY(pg_blocking_pids(pid))`, pid)
				var signedIn sync.WaitGroup
				signedIn.Go(func() { signIn(t, t.Context(), pool, "user1", seed) })
				waitFor(t, pool, sweeper)
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				signedIn.Wait()
				if err := <-swept; err != nil {
					t.Error(err)
				}
				if got := users(t, pool); got != "user1" {
					t.Errorf("left are the users %q", got)
				}
				if sessions, userRows := left(t, pool); sessions != 1 || userRows != 1 {
					t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
				}
				intact(t, pool)
			})
		})
	}
}

// Where a commit becomes visible server by server, a row may be there before its session.
func TestOrphansAreLookedAtTwiceWhereTheyAreDistributed(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		abandon(t, pool, 20, 20)
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, MaxDuration: time.Minute})
		if err != nil || r.OrphanUserRows != 15 || strings.HasSuffix(t.Name(), "portable") && r.Duration < cleanup.SecondLook {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestOrphansThatOthersHoldAreLeftToTheNextSweep(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for held, batch := range map[int]int{3: 1000, 200: 50} {
			pgtest.Exec(t, pool, `TRUNCATE scs_sessions, scs_user_sessions, scs_users`)
			abandon(t, pool, 400, 400)
			tx := begin(t, pool)
			for _, table := range []string{"scs_user_sessions", "scs_users"} {
				if _, err := tx.Exec(t.Context(), `SELECT FROM `+table+` ORDER BY user_id LIMIT $1 FOR UPDATE`, held); err != nil {
					t.Fatal(err)
				}
			}
			o := cleanup.Options{Orphans: true, Batch: batch, LockTimeout: 100 * time.Millisecond}
			r, err := cleanup.Sweep(t.Context(), pool, o)
			// Where many are held, those of their batches are left with them.
			if err != nil || r.OrphanUserRows > 300-int64(held) || r.OrphanUserRows < 300-int64(held+batch) && held > 3 || r.OrphanUserRows < 297 && held == 3 {
				t.Errorf("%d are held: %+v, %v", held, r, err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err = cleanup.Sweep(t.Context(), pool, o); err != nil || users(t, pool) != "" {
				t.Errorf("later: %v, %v", users(t, pool), err)
			}
			if _, userRows := left(t, pool); userRows != 0 {
				t.Errorf("%d user rows are left", userRows)
			}
		}
	})
}

func TestOrphansKeepToTheBudget(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		abandon(t, pool, 120, 120) // 90 rows, 40 users
		insertSessions(t, pool, 1000, 20, "-3 days", "")
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, Batch: 8, MaxRows: 50})
		if err != nil || r.Rows() != 20 || r.OrphanUserRows != 30 || !r.OutOfBudget || r.Left != 0 {
			t.Errorf("rows: %+v, %v", r, err)
		}
		stop := make(chan struct{})
		o := cleanup.Options{Orphans: true, Batch: 8, Stop: stop, Pause: time.Nanosecond, Progress: func(cleanup.Result) { close(stop) }}
		if r, err = cleanup.Sweep(t.Context(), pool, o); err != nil || r.OrphanUserRows != 8 || !r.OutOfBudget {
			t.Errorf("stopped: %+v, %v", r, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		o = cleanup.Options{Orphans: true, Batch: 8, Pause: time.Hour} // pages pause, too
		if r, err = cleanup.Sweep(ctx, pool, o); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %+v, %v", r, err)
		}
		start := time.Now()
		o = cleanup.Options{Orphans: true, Batch: 8, Pause: time.Hour, MaxDuration: 50 * time.Millisecond}
		if r, err = cleanup.Sweep(t.Context(), pool, o); err != nil || !r.OutOfBudget || time.Since(start) > time.Minute {
			t.Errorf("time: %+v, %v", r, err)
		}
		if r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true}); err != nil || r.OutOfBudget || users(t, pool) != "" {
			t.Errorf("the rest: %+v, %v", r, err)
		}
	})
}

// A pass that is cut short has deleted what it had found.
func TestOrphansGoPageByPage(t *testing.T) {
	t.Parallel()
	trips, most := &roundTrips{}, int64(0)
	pool := migrated(t, func(c *pgxpool.Config) { c.ConnConfig.Tracer = trips })
	abandon(t, pool, 400, 400)
	trips.Store(0)
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, Batch: 10, Progress: func(cleanup.Result) {
		most = max(most, trips.Swap(0))
	}})
	if err != nil || r.Batches != 30+14 || most > 12 {
		t.Errorf("%+v, %v: up to %d round trips from batch to batch", r, err, most)
	}
}

func TestOrphansErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	abandon(t, pool, 20, 20)
	o := cleanup.Options{Orphans: true, LockTimeout: 10 * time.Millisecond}
	standby := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.Param("default_transaction_read_only", "on"))
	if _, err := cleanup.Sweep(t.Context(), standby, o); !errors.Is(err, cleanup.ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
	if r, err := cleanup.Inspect(t.Context(), standby, o); err != nil || r.Total.OrphanUserRows != 15 {
		t.Errorf("a look there: %v, %v", r, err)
	}
	tx := begin(t, pool)
	if _, err := tx.Exec(t.Context(), `LOCK TABLE scs_users IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	if _, err := cleanup.Sweep(t.Context(), pool, o); err == nil || !strings.Contains(err.Error(), "Options.LockTimeout (10ms)") {
		t.Errorf("a locked table: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, pool, `DROP TABLE scs_users`)
	for range 2 {
		if _, err := cleanup.Sweep(t.Context(), pool, o); !errors.Is(err, cleanup.ErrNotMigrated) {
			t.Errorf("no table: %v", err)
		}
	}
	if _, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{}); err != nil {
		t.Errorf("it is not needed without: %v", err)
	}
}

// Users sign in and out, sessions are deleted by hand, tokens return, and orphans are
// swept, all at once.
func TestOrphansAreSweptBesideTraffic(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					id := rand.IntN(40)
					user := fmt.Sprint("user", id%5)
					if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
						_, err := tx.Exec(t.Context(), `INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET fence = scs_users.fence`, user)
						if err == nil {
							_, err = tx.Exec(t.Context(), `DELETE FROM scs_sessions WHERE id = md5($1::text)::uuid`, fmt.Sprint(id))
						}
						if err == nil && rand.IntN(2) == 0 {
							signIn(t, t.Context(), tx, user, fmt.Sprint(id))
						}
						return err
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		var rows, gone int64
		for start := time.Now(); time.Since(start) < time.Second || rows == 0 && time.Since(start) < time.Minute; {
			r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true, Batch: 10, Pause: time.Nanosecond})
			if err != nil {
				t.Error(err)
			}
			rows, gone = rows+r.OrphanUserRows, gone+r.OrphanUsers
		}
		close(done)
		wg.Wait()
		t.Logf("%d user rows and %d users went", rows, gone)
		intact(t, pool)
		if rows == 0 {
			t.Error("nothing was swept")
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_user_sessions u WHERE NOT EXISTS (SELECT FROM scs_users WHERE user_id = u.user_id)
			AND EXISTS (SELECT FROM scs_sessions WHERE id = u.id)`); n > 0 {
			t.Errorf("%d sessions are of users who are gone", n)
		}
	})
}
