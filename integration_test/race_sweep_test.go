package integration_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestSweepsOverlapBesideTraffic(t *testing.T) {
	t.Parallel()
	const expired, clients = 45_000, 16 // more than a sweep lists at once
	pool := migrated(t, pgtest.MaxConns(clients))
	insertSessions(t, pool, 0, expired, "-3 days", "")
	store := newStore(t, pool, pgstore.Config{UserLimit: 3, TouchAfter: time.Nanosecond})

	var swept atomic.Int64
	done := make(chan struct{})
	var sweeps, traffic sync.WaitGroup
	// The batches are those of a sweep beside traffic, without its pauses.
	o := cleanup.Options{Batch: 80, Pause: time.Millisecond}
	for range 2 {
		own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.MaxConns(1))
		sweeps.Go(func() {
			r, err := cleanup.Sweep(t.Context(), own, o)
			if err != nil {
				t.Error(err)
			}
			swept.Add(r.Rows())
		})
	}
	for n := range clients {
		traffic.Go(func() {
			d := newDevice(t, store)
			user := fmt.Sprint("live", n)
			d.signIn(user)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				switch i % 10 {
				case 3:
					d.put("k", fmt.Sprint(i))
				case 6:
					d.must(d.sm.RenewToken)
				case 9:
					d.must(d.sm.Destroy)
					d.signIn(user)
				}
				if got := d.user(); got != user {
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
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_user_sessions WHERE user_id LIKE 'user%'`); n != 0 {
		t.Errorf("%d user rows are left", n)
	}
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE end_reason IS NULL AND expiry > now() AND user_id IS NOT NULL`); n != clients {
		t.Errorf("%d users are signed in", n)
	}
}
