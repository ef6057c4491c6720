package integration_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/pgstore"
)

// under calls f in a request under Track.
func under(store *pgstore.Store, f func(context.Context)) {
	store.Track(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(r.Context()) })).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
}

// A poll that writes does not keep its session alive, and does not keep another request
// from it.
func TestTouchBesideAPollThatWrites(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	age(t, a.pool, "20 minutes")
	other := a.browser(t)
	other.setToken(b.token())
	finish := b.hold()
	other.must("/poll", "put", "1")
	finish()
	if left := query[float64](t, a.pool, `SELECT extract(epoch FROM expiry - now())::float8 / 60 FROM scs_sessions`); left < 29 {
		t.Errorf("%.1f of 30 minutes are left", left)
	}
	if me := b.must("/me"); !strings.Contains(me, "polled") {
		t.Error(me)
	}
}

// A goroutine of the request may go on while Track touches its sessions.
func TestRenewalWhileTrackTouches(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	observer := newPool(t, schema)
	migrate(t, observer)
	a := newApp(t, newPool(t, schema, named(schema)), pgstore.Config{}, true)
	a.sm.IdleTimeout = 0
	second := newManager(a.store) // to have two sessions in one request
	second.IdleTimeout = 0
	one, two := a.browser(t), a.browser(t)
	one.must("/login", "user", "bob")
	two.must("/login", "user", "alice")
	mustExec(t, observer, `UPDATE scs_sessions SET last_seen_at = now() - interval '1 hour' WHERE user_id = 'bob'`)
	tx, err := observer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM scs_sessions WHERE user_id = 'bob' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	loaded := make(chan context.Context, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		under(a.store, func(ctx context.Context) {
			if _, err := a.sm.Load(ctx, one.token()); err != nil {
				t.Error(err)
			}
			goesOn, err := second.Load(ctx, two.token())
			if err != nil {
				t.Error(err)
			}
			loaded <- goesOn
		})
	})
	goesOn := <-loaded
	eventually(t, "the touch waits", func() bool {
		return query[int](t, observer, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) == 1
	})
	if err := second.RenewToken(goesOn); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(two.token())); err != nil {
		t.Error(err)
	}
	if _, _, err := second.Commit(goesOn); err != nil {
		t.Error(err)
	}
	if n := live(t, observer, "alice"); n != 0 {
		t.Errorf("%d live sessions after the revocation", n)
	}
}

// What scs never does: to commit under a token that was looked for in vain.
func TestCommitOfATokenThatWasNotFound(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{})
	under(store, func(ctx context.Context) {
		if _, found, err := store.FindCtx(ctx, "token"); found || err != nil {
			t.Errorf("%t, %v", found, err)
		}
		if err := store.CommitCtx(ctx, "token", []byte("x"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if data, found, err := store.FindCtx(ctx, "token"); !found || err != nil || string(data) != "x" {
			t.Errorf("%q, %t, %v", data, found, err)
		}
		if err := store.CommitCtx(ctx, "token", []byte("y"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
	})
	if data, found, err := store.Find("token"); !found || err != nil || string(data) != "y" {
		t.Errorf("%q, %t, %v", data, found, err)
	}
}

// To delete the token that was renewed once more changes nothing.
func TestRenewalWhoseOldTokenIsDeletedTwice(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		a.mux.HandleFunc("/twice", func(_ http.ResponseWriter, r *http.Request) {
			old := a.sm.Token(r.Context())
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
			if err := a.store.DeleteCtx(r.Context(), old); err != nil {
				t.Error(err)
			}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		b.must("/twice")
		if b.user() != "alice" {
			t.Error("alice was signed out")
		}
	})
}

type unregistered string

func (u unregistered) String() string { return string(u) }

// An id that cannot be stored is an error before the session has been touched.
func TestSignInWithAnIDThatGobDoesNotKnow(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		a.mux.HandleFunc("/odd", func(_ http.ResponseWriter, r *http.Request) {
			if err := a.store.SignIn(r.Context(), a.sm, unregistered("bob")); err == nil || !strings.Contains(err.Error(), "gob.Register") {
				t.Error(err)
			}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		b.must("/odd")
		if b.user() != "alice" {
			t.Error("alice was signed out")
		}
	})
}

// A session that has timed out as it begins does not take anybody's place.
func TestSignInThatIsOverEvictsNobody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
		late := newManager(a.store)
		late.Lifetime = -time.Hour
		a.mux.HandleFunc("/late", func(_ http.ResponseWriter, r *http.Request) {
			ctx, err := late.Load(r.Context(), "")
			if err != nil {
				t.Error(err)
			}
			if err := a.store.SignIn(ctx, late, "alice"); !errors.Is(err, pgstore.ErrEnded) {
				t.Error(err)
			}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		a.browser(t).must("/late")
		if b.user() != "alice" {
			t.Error("alice was evicted")
		}
	})
}

// The app's code runs before anything is locked: it may use the same connection.
func TestClientIPMayUseThePool(t *testing.T) {
	t.Parallel()
	pool := migrated(t, maxConns(1))
	a := newApp(t, pool, pgstore.Config{UserLimit: 1, ClientIP: func(r *http.Request) netip.Addr {
		var text string
		if err := pool.QueryRow(r.Context(), `SELECT '192.0.2.1'`).Scan(&text); err != nil {
			t.Error(err)
		}
		return netip.MustParseAddr("192.0.2.1")
	}}, true)
	a.browser(t).must("/login", "user", "alice")
	if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || list[0].IP.String() != "192.0.2.1" {
		t.Errorf("%+v, %v", list, err)
	}
}

// StatusOf is about the session that the request came with.
func TestStatusIsNotOfASecondSession(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	one, two := a.browser(t), a.browser(t)
	one.must("/login", "user", "alice")
	two.must("/login", "user", "bob")
	second := newManager(a.store)
	a.mux.HandleFunc("/second", func(_ http.ResponseWriter, r *http.Request) {
		ctx, err := second.Load(r.Context(), two.token())
		if err != nil || second.GetString(ctx, userKey) != "bob" {
			t.Error(err)
		}
		if st := a.store.StatusOf(r.Context()); st.State != pgstore.Ended || st.EndReason != pgstore.Revoked || st.UserID != "alice" {
			t.Errorf("%+v", st)
		}
	})
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	one.must("/second")
}

// A process that stores sessions without saying whose they are would take them out of
// their users' lists.
func TestCodecWithoutUserKeyBesideOneWith(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		b := a.browser(t)
		b.must("/login", "user", "alice")
		other := newApp(t, a.pool, pgstore.Config{}, tracked)
		other.sm.Codec = pgstore.Codec{}
		stranger := other.browser(t)
		stranger.setToken(b.token())
		if status, body := stranger.get("/put", "key", "k", "value", "v"); status != 500 || !strings.Contains(body, "UserKey") {
			t.Errorf("%d, %s", status, body)
		}
		if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil || b.user() != "" {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// Errors name the limit that was met, and whose they are.
func TestErrorsSayWhoseTheyAre(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	store := newStore(t, pool, pgstore.Config{UserLimitFunc: func(ctx context.Context, user string) (int, error) {
		if user == "slow" {
			ctx, cancel := context.WithTimeout(ctx, time.Nanosecond)
			defer cancel()
			<-ctx.Done()
			return 0, ctx.Err()
		}
		var n int
		return n, pool.QueryRow(ctx, `SELECT sessions FROM plans_of_the_app WHERE "user" = $1`, user).Scan(&n)
	}})
	passed, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, overview := store.Overview(passed)
	_, all := store.AllCtx(passed)
	var each error
	for _, err := range store.Each(passed) {
		each = err
	}
	data := func(user string) []byte {
		b, err := pgstore.Codec{UserKey: userKey}.Encode(time.Now().Add(time.Hour), map[string]any{userKey: user})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	slow := store.Commit("token", data("slow"), time.Now().Add(time.Hour))
	for name, err := range map[string]error{"Overview": overview, "AllCtx": all, "Each": each, "UserLimitFunc": slow} {
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "Config.Timeout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := store.Commit("token", data("alice"), time.Now().Add(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "Config.UserLimitFunc: ") || !strings.Contains(err.Error(), "plans_of_the_app") ||
		strings.Contains(err.Error(), "migrations.Up") {
		t.Error(err)
	}
}

// What a user had in sessions that have timed out is forgotten, too.
func TestForgetEmptiesWhatHasTimedOut(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3}, tracked)
		lapsed := a.browser(t)
		lapsed.must("/login", "user", "alice")
		lapsed.must("/put", "key", "address", "value", "12 High Street")
		mustExec(t, a.pool, `UPDATE scs_sessions SET expiry = now() - interval '10 minutes'`)
		a.browser(t).must("/login", "user", "alice")
		if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if n := query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE data <> ''`); n != 0 {
			t.Errorf("%d sessions hold data", n)
		}
	})
}

// A restart breaks every connection of a pool, and there are more than attempts.
func TestAllConnectionsOfABusyPoolAreDropped(t *testing.T) {
	t.Parallel()
	name := newSchema(t)
	pool := migrated(t, named(name), maxConns(8))
	store := newStore(t, pool, pgstore.Config{})
	if err := store.Commit("token", []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 { // each on a connection of its own; pgx asks those that have idled for a second itself
		wg.Go(func() {
			if _, err := pool.Exec(t.Context(), `SELECT pg_sleep(0.2)`); err != nil && !errors.Is(err, pgx.ErrNoRows) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	killConnections(t, name)
	eventually(t, "they are gone", func() bool {
		return query[int](t, adminPool(t), `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, name) == 0
	})
	if _, found, err := store.Find("token"); !found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
}
