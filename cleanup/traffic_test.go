package cleanup_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

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
		for pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE expiry < now()`) > 0 {
			if _, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 5, MaxRows: 100}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if sessions, _ := left(t, pool); sessions != len(saved) || sessions == 0 {
			t.Errorf("%d sessions are left, %d were extended", sessions, len(saved))
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions s WHERE user_id IS NOT NULL AND NOT EXISTS
			(SELECT FROM scs_user_sessions u WHERE u.user_id = s.user_id AND u.id = s.id)`); n > 0 {
			t.Errorf("%d of them lost their user row", n)
		}
	})
}

// Beside others who write it makes smaller batches, and rests.
func TestSweepGivesWayToTraffic(t *testing.T) {
	t.Parallel()
	srv := pgtest.OwnServer(t) // transactions count for the whole of a server
	pool := pgtest.PoolOn(t, srv.DSN, "")
	migrateIn(t, pool)
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
				pgtest.Exec(t, pool, `INSERT INTO scs_users (user_id) VALUES (gen_random_uuid()::text)`)
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
