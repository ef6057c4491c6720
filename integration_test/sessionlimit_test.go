package integration_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

func TestLimitHoldsHoweverManySignInsRace(t *testing.T) {
	t.Parallel()
	for _, policy := range []pgstore.LimitPolicy{pgstore.EvictOldest, pgstore.EvictLeastRecent, pgstore.Reject} {
		for _, limit := range []int{1, 3, 10} {
			t.Run(fmt.Sprintf("policy %d, limit %d", policy, limit), func(t *testing.T) {
				bothWays(t, func(t *testing.T, tracked bool) { raceSignIns(t, policy, limit, tracked) })
			})
		}
	}
}

func raceSignIns(t *testing.T, policy pgstore.LimitPolicy, limit int, tracked bool) {
	schema := newSchema(t)
	cfg := pgstore.Config{UserLimit: limit, LimitPolicy: policy, Timeout: time.Minute}
	pool := newPool(t, schema, maxConns(6))
	migrate(t, pool)
	apps := []*app{newApp(t, pool, cfg, tracked), newApp(t, newPool(t, schema, maxConns(6)), cfg, tracked)}

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
	schema := newSchema(t)
	pool := newPool(t, schema)
	migrate(t, pool)
	cfg := pgstore.Config{UserLimit: limit, Timeout: time.Minute}
	apps := []*app{newApp(t, pool, cfg, true), newApp(t, newPool(t, schema), cfg, true)}
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

func TestLimitPicksTheRightVictim(t *testing.T) {
	t.Parallel()
	for policy, want := range map[pgstore.LimitPolicy]string{pgstore.EvictOldest: "first", pgstore.EvictLeastRecent: "second"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: policy}, true)
			browsers := map[string]*browser{"first": a.browser(t), "second": a.browser(t)}
			browsers["first"].must("/login", "user", "alice")
			browsers["second"].must("/login", "user", "alice")
			mustExec(t, a.pool, `UPDATE scs_sessions SET last_seen_at = now() - interval '1 minute' WHERE id = $1`, pgstore.IDOf(browsers["second"].token()))
			a.browser(t).must("/login", "user", "alice")
			for name, b := range browsers {
				if gone := b.user() == ""; gone != (name == want) {
					t.Errorf("%s: gone %t", name, gone)
				}
			}
		})
	}
}

func TestLoweredLimitEvictsAsManyAsNeeded(t *testing.T) {
	t.Parallel()
	var limit atomic.Int32
	limit.Store(5)
	a := newApp(t, migrated(t), pgstore.Config{UserLimitFunc: func(context.Context, string) (int, error) { return int(limit.Load()), nil }}, true)
	for range 5 {
		a.browser(t).must("/login", "user", "alice")
	}
	limit.Store(2)
	last := a.browser(t)
	last.must("/login", "user", "alice")
	if n := live(t, a.pool, "alice"); n != 2 || last.user() != "alice" {
		t.Errorf("%d live sessions, the last is %q's", n, last.user())
	}
}

// The limit function may use the store: nothing is held while it runs.
func TestLimitFuncIsCalledBeforeAnyLockOrConnection(t *testing.T) {
	t.Parallel()
	var store *pgstore.Store
	cfg := pgstore.Config{UserLimitFunc: func(ctx context.Context, user string) (int, error) {
		n, err := store.Count(ctx, user)
		return n + 1, err
	}}
	a := newApp(t, migrated(t, maxConns(1)), cfg, true)
	store = a.store
	for range 3 {
		a.browser(t).must("/login", "user", "alice")
	}
	if n := live(t, a.pool, "alice"); n != 3 {
		t.Errorf("%d live sessions, want 3", n)
	}
}

func TestSlowRequestAtLimitOne(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
		first, second := a.browser(t), a.browser(t)
		first.must("/login", "user", "alice")
		finish := first.hold("after", "put")
		mustExec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		second.must("/login", "user", "alice")
		finish()
		if n := live(t, a.pool, "alice"); n != 1 || first.user() != "" || second.user() != "alice" {
			t.Errorf("%d live sessions; first is %q's, second %q's", n, first.user(), second.user())
		}
	})
}

// A write that began in time may wait for its row until the session has timed out, and
// then finds it alive all the same. What was decided meanwhile must hold.
func TestWriteThatWaitsAcrossATimeout(t *testing.T) {
	t.Parallel()
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
			bothWays(t, func(t *testing.T, tracked bool) {
				schema := newSchema(t)
				observer := newPool(t, schema)
				migrate(t, observer)
				pool := newPool(t, schema, param("application_name", schema))
				a := newApp(t, pool, pgstore.Config{UserLimit: 1, Timeout: time.Minute}, tracked)
				waiting := func() int {
					return query[int](t, observer, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema)
				}
				first := a.browser(t)
				first.must("/login", "user", "alice")
				mustExec(t, observer, `UPDATE scs_sessions SET expiry = now() + interval '2 seconds'`)
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
				eventually(t, "the write waits", func() bool { return waiting() == 1 })
				eventually(t, "the session times out", func() bool {
					return query[bool](t, observer, `SELECT expiry <= now() FROM scs_sessions`)
				})
				var want int
				wg.Go(func() { want = decide(t, a) })
				eventually(t, "so does the other", func() bool { return waiting() == 2 })
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

func TestRefusedSignInAnswersForItself(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject}, tracked)
		first, second := a.browser(t), a.browser(t)
		first.must("/login", "user", "alice")
		second.must("/put", "key", "cart", "value", "1")
		if status, body := second.get("/login", "user", "alice"); status != http.StatusConflict || body != pgstore.ErrUserLimit.Error() {
			t.Errorf("refused with %d %s", status, body)
		}
		if second.user() != "" || first.user() != "alice" {
			t.Errorf("first is %q's, second %q's", first.user(), second.user())
		}
		// A renewal is not a sign-in.
		first.must("/renew")
		if first.user() != "alice" {
			t.Error("the renewal lost the session")
		}
	})
}

// A session that signs nobody in, because its data is damaged, keeps nobody out.
func TestDamagedSessionsDoNotCountAgainstASignIn(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{"cut short": `'\x0001ff'`, "no frame": `'x'`, "empty": `''`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: pgstore.Reject}, true)
			bad, good := a.browser(t), a.browser(t)
			bad.must("/login", "user", "alice")
			mustExec(t, a.pool, `UPDATE scs_sessions SET data = `+damage)
			good.must("/login", "user", "alice")
			bad.must("/login", "user", "alice")
			if status, body := a.browser(t).get("/login", "user", "alice"); status != http.StatusConflict || body != pgstore.ErrUserLimit.Error() {
				t.Errorf("%d %s", status, body)
			}
			if n := live(t, a.pool, "alice"); n != 2 || good.user() != "alice" || bad.user() != "alice" {
				t.Errorf("%d live sessions", n)
			}
		})
	}
}

func TestLimitNeedsACodecThatKnowsTheUser(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{UserLimit: 1})
	for name, codec := range map[string]pgstore.Codec{"no key": {}, "key": {UserKey: userKey}} {
		data, err := codec.Encode(time.Now().Add(time.Hour), map[string]any{userKey: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Commit("token "+name, data, time.Now().Add(time.Hour)); (err == nil) != (name == "key") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := store.Commit("gob", []byte("whatever"), time.Now().Add(time.Hour)); err == nil {
		t.Error("data of another codec went uncounted")
	}
}

// Sign-ins that wait for their user's turn must not hold connections.
func TestSignInsBehindALockDoNotStarveOthers(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	admin := newPool(t, schema)
	migrate(t, admin)
	a := newApp(t, newPool(t, schema, maxConns(4)), pgstore.Config{UserLimit: 3, Timeout: time.Minute}, true)
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
	eventually(t, "a sign-in waits for the lock", func() bool {
		return query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%scs_users%'`) > 0
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

func TestLimitFuncErrorFailsTheSignIn(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	store := newStore(t, migrated(t), pgstore.Config{UserLimitFunc: func(context.Context, string) (int, error) { return 0, boom }})
	data, err := pgstore.Codec{UserKey: userKey}.Encode(time.Now().Add(time.Hour), map[string]any{userKey: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Commit("token", data, time.Now().Add(time.Hour)); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
}
