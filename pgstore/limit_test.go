package pgstore_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestLimitPicksTheRightVictim(t *testing.T) {
	t.Parallel()
	for policy, want := range map[pgstore.LimitPolicy]string{pgstore.EvictOldest: "first", pgstore.EvictLeastRecent: "second"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: policy})
			browsers := map[string]*browser{"first": a.browser(t), "second": a.browser(t)}
			browsers["first"].must("/login", "user", "alice")
			browsers["second"].must("/login", "user", "alice")
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET last_seen_at = now() - interval '1 minute' WHERE id = $1`, pgstore.IDOf(browsers["second"].token()))
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
	a := newApp(t, migrated(t), pgstore.Config{UserLimitFunc: func(context.Context, string) (int, error) { return int(limit.Load()), nil }})
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
	a := newApp(t, migrated(t, pgtest.MaxConns(1)), cfg)
	store = a.store
	for range 3 {
		a.browser(t).must("/login", "user", "alice")
	}
	if n := live(t, a.pool, "alice"); n != 3 {
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

func TestLimitHoldsBesideASlowRequest(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		first, second := a.browser(t), a.browser(t)
		first.must("/login", "user", "alice")
		finish := first.hold("after", "put")
		pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		second.must("/login", "user", "alice")
		finish()
		if n := live(t, a.pool, "alice"); n != 1 || first.user() != "" || second.user() != "alice" {
			t.Errorf("%d live sessions; first is %q's, second %q's", n, first.user(), second.user())
		}
	})
}

func TestRefusedSignInAnswersForItself(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
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

// A session whose data is damaged signs nobody in, but counts until it times out, as any
// other does; an operator can end it.
func TestLimitCountsDamagedSessionsUntilTheyAreRevoked(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
	bad, good := a.browser(t), a.browser(t)
	bad.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET data = '\x0001ff'`)
	if status, body := good.get("/login", "user", "alice"); status != http.StatusConflict || body != pgstore.ErrUserLimit.Error() {
		t.Errorf("%d %s", status, body)
	}
	list, err := a.store.Sessions(t.Context(), "alice")
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if ok, err := a.store.Revoke(t.Context(), "alice", list[0].ID); !ok || err != nil {
		t.Errorf("Revoke: %t, %v", ok, err)
	}
	good.must("/login", "user", "alice")
	if good.user() != "alice" {
		t.Error("the sign-in was lost")
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
