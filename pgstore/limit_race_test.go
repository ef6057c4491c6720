package pgstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestLimitHoldsHoweverManySignInsRace(t *testing.T) {
	t.Parallel()
	for _, policy := range []pgstore.LimitPolicy{pgstore.EvictOldest, pgstore.EvictLeastRecent, pgstore.Reject} {
		for _, limit := range []int{1, 3, 10} {
			t.Run(fmt.Sprintf("policy %d, limit %d", policy, limit), func(t *testing.T) {
				bothWays(t, func(t *testing.T, newApp newAppFunc) { raceSignIns(t, newApp, policy, limit) })
			})
		}
	}
}

func raceSignIns(t *testing.T, newApp newAppFunc, policy pgstore.LimitPolicy, limit int) {
	schema := pgtest.Schema(t)
	cfg := pgstore.Config{UserLimit: limit, LimitPolicy: policy, Timeout: time.Minute}
	pool := pgtest.PoolIn(t, schema, pgtest.MaxConns(6))
	migrate(t, pool)
	apps := []*app{newApp(t, pool, cfg), newApp(t, pgtest.OtherNode(t, schema, pgtest.MaxConns(6)), cfg)}

	watching, stop := context.WithCancel(t.Context())
	var watched sync.WaitGroup
	watched.Go(func() {
		for watching.Err() == nil {
			if n := live(t, pool, "alice"); n > limit {
				t.Errorf("%d live sessions at a limit of %d", n, limit)
			}
		}
	})
	var won, refused atomic.Int32
	var winners sync.Map
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			b := apps[i%2].browser(t)
			switch status, body := b.get("/login", "user", "alice"); {
			case status == http.StatusOK:
				won.Add(1)
				winners.Store(b, nil)
			case status == http.StatusConflict && body == pgstore.ErrUserLimit.Error():
				refused.Add(1)
			default:
				t.Errorf("%d %s", status, body)
			}
		})
	}
	wg.Wait()
	stop()
	watched.Wait()
	if n := live(t, pool, "alice"); n != limit {
		t.Errorf("%d live sessions in the end, want %d", n, limit)
	}
	if policy != pgstore.Reject {
		if won.Load() != 50 {
			t.Errorf("%d of 50 signed in", won.Load())
		}
		return
	}
	if int(won.Load()) != limit || int(refused.Load()) != 50-limit {
		t.Errorf("%d signed in, %d refused, at a limit of %d", won.Load(), refused.Load(), limit)
	}
	winners.Range(func(b, _ any) bool {
		if user := b.(*browser).user(); user != "alice" {
			t.Errorf("a winner lost its session: user %q", user)
		}
		return true
	})
}

func TestLimitAndIndexSurviveEverythingAtOnce(t *testing.T) {
	t.Parallel()
	const limit = 3
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema)
	migrate(t, pool)
	cfg := pgstore.Config{UserLimit: limit, Timeout: time.Minute}
	apps := []*app{newApp(t, pool, cfg), newApp(t, pgtest.PoolIn(t, schema), cfg)}
	users := []string{"alice", "bob"}
	var wg sync.WaitGroup
	for w := range 8 {
		rnd := rand.New(rand.NewPCG(1, uint64(w)))
		wg.Go(func() {
			b := apps[w%2].browser(t)
			for range 25 { // 200 rounds in all
				user := users[rnd.IntN(len(users))]
				switch rnd.IntN(9) {
				case 0, 1, 2, 3:
					if status, body := b.get("/login", "user", user); status != http.StatusOK && body != pgstore.ErrEnded.Error() {
						t.Errorf("%d %s", status, body)
					}
				case 4:
					b.must("/renew")
				case 5:
					b.must("/logout")
				case 6:
					if _, err := b.app.store.RevokeAll(t.Context(), user); err != nil {
						t.Error(err)
					}
				case 7:
					// Not signed in, or only just revoked: then it is refused.
					_, _ = b.get("/revoke-others")
				case 8:
					b.must("/put", "key", userKey, "value", user)
				}
				for _, u := range users {
					if n := live(t, pool, u); n > limit {
						t.Errorf("%s has %d live sessions", u, n)
					}
				}
			}
		})
	}
	wg.Wait()
	checkIndex(t, pool, apps[0].store, users...)
}

// Sign-ins that wait for their user's turn must not hold connections.
func TestSignInsBehindALockDoNotStarveOthers(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "who waits for a lock waits on a worker, under another name")
	schema := pgtest.Schema(t)
	admin := pgtest.PoolIn(t, schema)
	migrate(t, admin)
	a := newApp(t, pgtest.PoolIn(t, schema, pgtest.MaxConns(4)), pgstore.Config{UserLimit: 3, Timeout: time.Minute})
	bob := a.browser(t)
	bob.must("/login", "user", "bob")
	a.browser(t).must("/login", "user", "alice")

	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM scs_users WHERE user_id = 'alice' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { a.browser(t).must("/login", "user", "alice") })
	}
	pgtest.Eventually(t, "a sign-in waits for the lock", func() bool {
		return pgtest.Query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%scs_users%'`) > 0
	})
	for range 20 {
		if user := bob.user(); user != "bob" {
			t.Errorf("user %q", user)
		}
	}
	if n := a.pool.Stat().AcquiredConns(); n > 2 {
		t.Errorf("%d connections are held by one user's sign-ins", n)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := live(t, admin, "alice"); n != 3 {
		t.Errorf("%d live sessions, want 3", n)
	}
}

// A write that began in time may wait for its row until the session has timed out, and
// then finds it alive all the same. What was decided meanwhile must hold.
func TestWriteThatWaitsAcrossATimeoutBringsNothingBack(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "who waits for a lock waits on a worker, under another name")
	for name, decide := range map[string]func(*testing.T, *app) (want int){
		"sign-in": func(t *testing.T, a *app) int {
			a.browser(t).must("/login", "user", "alice")
			return 1
		},
		"revoke all": func(t *testing.T, a *app) int {
			if n, err := a.store.RevokeAll(t.Context(), "alice"); n > 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				schema := pgtest.Schema(t)
				observer := pgtest.PoolIn(t, schema)
				migrate(t, observer)
				pool := pgtest.PoolIn(t, schema, pgtest.Param("application_name", schema))
				a := newApp(t, pool, pgstore.Config{UserLimit: 1, Timeout: time.Minute})
				waiting := func() int {
					return pgtest.Query[int](t, observer, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema)
				}
				first := a.browser(t)
				first.must("/login", "user", "alice")
				pgtest.Exec(t, observer, `UPDATE scs_sessions SET expiry = now() + interval '2 seconds'`)
				tx, err := observer.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
				if _, err := tx.Exec(t.Context(), `SELECT FROM scs_sessions FOR UPDATE`); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() { first.must("/put", "key", "late", "value", "yes") })
				pgtest.Eventually(t, "the write waits", func() bool { return waiting() == 1 })
				pgtest.Eventually(t, "the session times out", func() bool {
					return pgtest.Query[bool](t, observer, `SELECT expiry <= now() FROM scs_sessions`)
				})
				var want int
				wg.Go(func() { want = decide(t, a) })
				pgtest.Eventually(t, "so does the other", func() bool { return waiting() == 2 })
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if n := live(t, observer, "alice"); n != want || first.user() != "" {
					t.Errorf("%d live sessions, want %d; the first is %q's", n, want, first.user())
				}
				checkIndex(t, observer, a.store, "alice")
			})
		})
	}
}

// What has timed out by the time that the sign-in is let in does not count, though it was
// alive when the sign-in's transaction began.
func TestSignInThatWaitsAcrossATimeoutFindsRoom(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "who waits for a lock waits on a worker, under another name")
	for name, policy := range map[string]pgstore.LimitPolicy{
		"evict oldest": pgstore.EvictOldest, "evict least recent": pgstore.EvictLeastRecent, "reject": pgstore.Reject,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				schema := pgtest.Schema(t)
				observer := pgtest.PoolIn(t, schema)
				migrate(t, observer)
				a := newApp(t, pgtest.PoolIn(t, schema, named(schema)), pgstore.Config{UserLimit: 2, LimitPolicy: policy, Timeout: time.Minute})
				stays, times, next := a.browser(t), a.browser(t), a.browser(t)
				stays.must("/login", "user", "alice") // the first to go, by both policies
				times.must("/login", "user", "alice")
				tx, err := observer.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
				if _, err := tx.Exec(t.Context(), `SELECT FROM scs_users WHERE user_id = 'alice' FOR UPDATE`); err != nil {
					t.Fatal(err)
				}
				id := pgstore.IDOf(times.token())
				pgtest.Exec(t, observer, `UPDATE scs_sessions SET expiry = now() + interval '2 seconds' WHERE id = $1`, id)
				done := make(chan struct{})
				go func() { defer close(done); next.must("/login", "user", "alice") }()
				pgtest.Eventually(t, "the sign-in waits", func() bool {
					return pgtest.Query[int](t, observer, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) == 1
				})
				if !pgtest.Query[bool](t, observer, `SELECT expiry > now() FROM scs_sessions WHERE id = $1`, id) {
					t.Log("the sign-in came too late to find it alive")
				}
				pgtest.Eventually(t, "the session times out", func() bool {
					return pgtest.Query[bool](t, observer, `SELECT expiry <= now() FROM scs_sessions WHERE id = $1`, id)
				})
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-done
				if next.user() != "alice" || stays.user() != "alice" || live(t, observer, "alice") != 2 {
					t.Errorf("the next one is %q's, the one that stays %q's, %d live", next.user(), stays.user(), live(t, observer, "alice"))
				}
				if st := a.store.Stat(); st.Evictions != 0 || st.Refusals != 0 {
					t.Errorf("%d evictions, %d refusals", st.Evictions, st.Refusals)
				}
				checkIndex(t, observer, a.store, "alice")
			})
		})
	}
}
