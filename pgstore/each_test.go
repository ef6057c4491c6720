package pgstore_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestEachAndAllPageThrough(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	pgtest.Exec(t, pool, `INSERT INTO scs_sessions (id, data, expiry) SELECT md5(n::text)::uuid, 'x', now() + interval '1 hour' FROM generate_series(1, 2500) n`)
	pgtest.Exec(t, pool, `UPDATE scs_sessions SET end_reason = 'revoked' WHERE id IN (SELECT id FROM scs_sessions LIMIT 100)`)
	store := newStore(t, pool, pgstore.Config{})
	seen := make(map[string]bool)
	for s, err := range store.Each(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if pool.Stat().AcquiredConns() != 0 {
			t.Fatal("a connection is held while the loop body runs")
		}
		seen[s.ID] = true
	}
	all, err := store.All()
	if err != nil || len(all) != 2400 || len(seen) != 2400 {
		t.Errorf("%d in all, %d seen, %v", len(all), len(seen), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range store.Each(ctx) {
		if err == nil {
			t.Error("it went on after its context")
		}
	}
}

func TestStandInsOpenNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.browser(t).must("/login", "user", "alice")
	all, err := a.store.All()
	if err != nil || len(all) != 1 {
		t.Fatal(len(all), err)
	}
	for standIn := range all {
		if _, found, err := a.store.Find(standIn); found || err != nil {
			t.Errorf("a stand-in was found: %v", err)
		}
		if err := a.store.Delete(standIn); err != nil {
			t.Error(err)
		}
		// It never inserts.
		if err := a.store.Commit(standIn+"x", []byte("x"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
	}
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d sessions of alice live", n)
	}
}

func TestIterateChangesAndDestroysSessions(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	alice, bob := a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	seen := 0
	err := a.sm.Iterate(context.Background(), func(ctx context.Context) error {
		seen++
		if a.sm.GetString(ctx, userKey) == "alice" {
			return a.sm.Destroy(ctx)
		}
		a.sm.Put(ctx, "notice", "hello")
		_, _, err := a.sm.Commit(ctx)
		return err
	})
	if err != nil || seen != 2 {
		t.Fatalf("%d sessions seen, %v", seen, err)
	}
	if alice.user() != "" {
		t.Error("alice's session was not destroyed")
	}
	if got := bob.must("/me"); got != "user=bob state=active reason= keys=notice,userID" {
		t.Errorf("bob's session: %s", got)
	}
	checkIndex(t, a.pool, a.store, "alice", "bob")
}

// An operator's request changes the sessions of others: it is not who signs them in, it
// does not continue them, and does not bring back what has gone.
func TestIterateFromARequestSignsNobodyIn(t *testing.T) {
	t.Parallel()
	iterateFromARequestSignsNobodyIn(t, newApp)
}

func iterateFromARequestSignsNobodyIn(t *testing.T, newApp newAppFunc) {
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3})
	a.mux.HandleFunc("/notify", func(_ http.ResponseWriter, r *http.Request) {
		if err := a.sm.Iterate(r.Context(), func(ctx context.Context) error {
			gone := a.sm.GetString(ctx, "cart") != ""
			switch {
			case gone:
				pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions WHERE user_id IS NULL`)
			case a.sm.GetString(ctx, userKey) == "bob":
				return a.sm.Destroy(ctx)
			}
			a.sm.Put(ctx, "notice", "hello")
			_, _, err := a.sm.Commit(ctx)
			if gone && errors.Is(err, pgstore.ErrStale) {
				return nil
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if err := a.store.SignIn(r.Context(), a.sm, "bob"); err != nil {
			t.Error(err)
		}
	})
	alice, bob, anonymous, operator := a.browser(t), a.browser(t), a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	anonymous.must("/put", "key", "cart", "value", "1")
	pgtest.Exec(t, a.pool, `UPDATE scs_user_sessions SET user_agent = 'theirs', created_at = now() - interval '1 day'`)
	before := a.store.Stat()
	operator.must("/notify")
	if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || list[0].UserAgent != "theirs" {
		t.Errorf("alice: %+v, %v", list, err)
	}
	if list, err := a.store.Sessions(t.Context(), "bob"); err != nil || len(list) != 1 || time.Since(list[0].CreatedAt) > time.Hour {
		t.Errorf("bob: %+v, %v", list, err)
	}
	if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE user_id IS NULL`); n != 0 {
		t.Errorf("%d anonymous sessions are back", n)
	}
	if n := a.store.Stat().SignIns - before.SignIns; n != 1 {
		t.Errorf("%d sign-ins", n)
	}
	if got := alice.must("/me"); !strings.HasSuffix(got, "keys=notice,userID") {
		t.Error(got)
	}
}
