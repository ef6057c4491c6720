package pgstore_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// checkIndex checks that listings, counts and the truth agree, and that no live
// session is missing from the index.
func checkIndex(t testing.TB, pool *pgxpool.Pool, store *pgstore.Store, users ...string) {
	t.Helper()
	list := func(from string) []string {
		return pgtest.Query[[]string](t, pool, `SELECT coalesce(array_agg(id || ' ' || user_id), '{}') FROM `+from)
	}
	alive := list(`scs_sessions WHERE user_id IS NOT NULL AND end_reason IS NULL AND expiry > now()`)
	index := list(`scs_user_sessions`)
	for _, session := range alive {
		if !slices.Contains(index, session) {
			t.Errorf("the live session %s is missing from the index", session)
		}
	}
	for _, user := range users {
		want := live(t, pool, user)
		list, err := store.Sessions(t.Context(), user)
		if err != nil || len(list) != want {
			t.Errorf("%s: %d listed, %v, want %d", user, len(list), err, want)
		}
		if n, err := store.Count(t.Context(), user); err != nil || n != want {
			t.Errorf("%s: count %d, %v, want %d", user, n, err, want)
		}
	}
}

func TestListingFollowsTheSession(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3})
	b := a.browser(t)
	check := func(what string, alice, bob int) {
		t.Helper()
		checkIndex(t, a.pool, a.store, "alice", "bob")
		if n, m := live(t, a.pool, "alice"), live(t, a.pool, "bob"); n != alice || m != bob {
			t.Errorf("%s: alice has %d, bob %d, want %d and %d", what, n, m, alice, bob)
		}
	}
	check("nobody", 0, 0)
	b.must("/login", "user", "alice")
	check("signed in", 1, 0)
	created := func() time.Time {
		list, err := a.store.Sessions(t.Context(), "alice")
		if err != nil || len(list) != 1 {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		return list[0].CreatedAt
	}
	before := created()
	b.must("/renew")
	check("renewed", 1, 0)
	if !created().Equal(before) {
		t.Error("the renewal changed the session's age")
	}
	b.must("/put", "key", userKey, "value", "bob")
	check("switched on the same token", 0, 1)
	b.must("/login", "user", "alice")
	check("switched with a new one", 1, 0)
	b.must("/remove", "key", userKey)
	check("key removed", 0, 0)
	b.must("/put", "key", userKey, "value", "alice")
	check("key put", 1, 0)
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
	check("expired", 0, 0)
	b.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions WHERE user_id = 'alice'`)
	check("hot row deleted by hand", 0, 0)
	b = a.browser(t)
	b.must("/login", "user", "alice")
	check("signed in again", 1, 0)
	b.must("/logout")
	check("signed out", 0, 0)
}

// A session keeps its age when its user signs in elsewhere while it is being renewed.
func TestRenewalKeepsTheAgeBesideAnotherSignIn(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 3} {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		pgtest.Exec(t, a.pool, `UPDATE scs_user_sessions SET created_at = now() - interval '5 days'`)
		finish := b.hold("before", "renew")
		a.browser(t).must("/login", "user", "alice")
		finish()
		list, err := a.store.Sessions(t.Context(), "alice")
		if err != nil || len(list) != 2 {
			t.Fatalf("limit %d: %+v, %v", limit, list, err)
		}
		for _, s := range list {
			if old := time.Since(s.CreatedAt) > 24*time.Hour; old != (s.ID == pgstore.IDOf(b.token())) {
				t.Errorf("limit %d: %s was created at %v", limit, s.ID, s.CreatedAt)
			}
		}
	}
}

func TestListingBesideReplacementsShowsExactlyOne(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "shards have snapshots of their own, so a listing may miss a session that is being replaced")
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
	a.browser(t).must("/login", "user", "alice")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		var turns sync.WaitGroup
		for range 4 {
			turns.Go(func() {
				for range 250 {
					a.browser(t).must("/login", "user", "alice")
				}
			})
		}
		turns.Wait()
	})
	reads := 0
	for reading := true; reading; reads++ {
		select {
		case <-done:
			reading = false
		default:
		}
		list, err := a.store.Sessions(t.Context(), "alice")
		if err != nil || len(list) != 1 || list[0].CreatedAt.IsZero() {
			t.Fatalf("read %d: %v, %v", reads, list, err)
		}
		if n, err := a.store.Count(t.Context(), "alice"); err != nil || n != 1 {
			t.Fatalf("read %d: count %d, %v", reads, n, err)
		}
	}
	wg.Wait()
}

func TestSessionsShowsWhoAndWhere(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	older, newer := a.browser(t), a.browser(t)
	older.must("/login", "user", "alice")
	newer.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET last_seen_at = now() - interval '1 hour' WHERE id = $1`, pgstore.IDOf(older.token()))
	list, err := a.store.Sessions(t.Context(), "alice")
	if err != nil || len(list) != 2 {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	if list[0].ID != pgstore.IDOf(newer.token()) || list[1].ID != pgstore.IDOf(older.token()) {
		t.Error("the list does not begin with the most recent one")
	}
	for _, s := range list {
		if s.UserID != "alice" || !s.IP.IsLoopback() || s.UserAgent != "Go-http-client/1.1" || s.CreatedAt.IsZero() || !s.Expiry.After(s.LastSeenAt) {
			t.Errorf("%+v", s)
		}
	}
	if list, err := a.store.Sessions(t.Context(), "nobody"); err != nil || list == nil || len(list) != 0 {
		t.Errorf("nobody's list: %v, %v", list, err)
	}
}

// chi's RealIP, among others, leaves no port.
func TestSessionsShowsAnAddressThatCameWithoutAPort(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	inner := a.Config.Handler
	a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get("X-Real-IP")
		inner.ServeHTTP(w, r)
	})
	for addr, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "203.0.113.7:80": "203.0.113.7", "2001:db8::1": "2001:db8::1", "[2001:db8::1]": "2001:db8::1",
		"::ffff:203.0.113.7": "203.0.113.7", "fe80::1%eth0": "fe80::1", "example.com": "invalid IP",
	} {
		req := httptest.NewRequest(http.MethodGet, a.URL+"/login?user=alice", nil)
		req.RequestURI = ""
		req.Header.Set("X-Real-IP", addr)
		resp, err := a.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%d, %v", resp.StatusCode, err)
		}
		list, err := a.store.Sessions(t.Context(), "alice")
		if err != nil || len(list) == 0 || list[0].IP.String() != want {
			t.Errorf("%s: %+v, %v, want %s", addr, list, err, want)
		}
	}
}
