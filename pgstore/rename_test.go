package pgstore_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// labels lists those of the user's sessions, the most recently seen first.
func labels(t *testing.T, store *pgstore.Store, user string) string {
	t.Helper()
	list, err := store.Sessions(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range list {
		all = append(all, s.Label)
	}
	return strings.Join(all, ", ")
}

// newAppOfLabels has a sign-in with a label.
func newAppOfLabels(t *testing.T, newApp newAppFunc, opts ...pgtest.Option) *app {
	a := newApp(t, migrated(t, opts...), pgstore.Config{})
	a.mux.HandleFunc("/login-from", func(w http.ResponseWriter, r *http.Request) {
		ctx := pgstore.WithLabel(r.Context(), r.FormValue("label"))
		if err := a.store.SignIn(ctx, a.sm, r.FormValue("user")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	return a
}

func TestLabelIsListedAndGoesWithItsUser(t *testing.T) {
	t.Parallel()
	a := newAppOfLabels(t, newApp)
	b := a.browser(t)
	check := func(what, user, want string) {
		t.Helper()
		if got := labels(t, a.store, user); got != want {
			t.Errorf("%s: %s has %q, want %q", what, user, got, want)
		}
	}
	b.must("/login-from", "user", "alice", "label", "laptop")
	check("signed in", "alice", "laptop")
	list, err := a.store.Sessions(t.Context(), "alice")
	if err != nil || len(list) != 1 || !list[0].IP.IsLoopback() || list[0].UserAgent == "" {
		t.Errorf("the label has replaced what Track saw: %+v, %v", list, err)
	}
	b.must("/renew")
	check("renewed", "alice", "laptop")
	b.must("/login", "user", "alice")
	check("signed in again", "alice", "laptop")
	b.must("/login-from", "user", "alice", "label", "")
	check("signed in again, with an empty label", "alice", "laptop")
	b.must("/login-from", "user", "alice", "label", "phone")
	check("signed in again, with another one", "alice", "phone")
	b.must("/put", "key", userKey, "value", "bob")
	check("bob on the same token", "bob", "")
	b.must("/put", "key", userKey, "value", "alice")
	check("alice again", "alice", "")
	b.must("/login-from", "user", "alice", "label", "phone")
	b.must("/login", "user", "bob")
	check("bob on a new token", "bob", "")
	a.browser(t).must("/login", "user", "alice")
	check("another browser", "alice", "")

	for s, err := range a.store.Each(t.Context()) {
		if err != nil || s.Label != "" {
			t.Errorf("%+v, %v", s, err)
		}
	}
	b.must("/login-from", "user", "carol", "label", "tablet")
	for s, err := range a.store.Each(t.Context()) {
		if err != nil || (s.Label == "tablet") != (s.UserID == "carol") {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

func TestLabelOfAnotherTokenOrWithoutTrack(t *testing.T) {
	t.Parallel()
	a := newAppOfLabels(t, newPlainApp)
	b := a.browser(t)
	ctx, err := a.sm.Load(pgstore.WithClient(t.Context(), pgstore.Client{UserAgent: "app", Label: "from WithClient"}), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.store.SignIn(ctx, a.sm, "alice"); err != nil {
		t.Fatal(err)
	}
	if got := labels(t, a.store, "alice"); got != "from WithClient" {
		t.Error(got)
	}
	b.must("/login-from", "user", "bob", "label", "laptop")
	if got := labels(t, a.store, "bob"); got != "laptop" {
		t.Error(got)
	}
	b.must("/put", "key", "k", "value", "v")
	if got := labels(t, a.store, "bob"); got != "laptop" {
		t.Errorf("after a change: %q", got)
	}
}

func TestLabelIsMadeOneThatTheColumnTakes(t *testing.T) {
	t.Parallel()
	a := newAppOfLabels(t, newApp)
	b := a.browser(t)
	for label, want := range map[string]string{
		"a\x00b":                              "ab",
		"caf\xe9":                             "caf\uFFFD",
		strings.Repeat("x", 254) + "\u00e9":   strings.Repeat("x", 254),
		strings.Repeat("x", 253) + "\u00e9yz": strings.Repeat("x", 253) + "\u00e9",
		`'; DROP TABLE scs_users --`:          `'; DROP TABLE scs_users --`,
	} {
		b.must("/login-from", "user", "alice", "label", label)
		if got := labels(t, a.store, "alice"); got != want {
			t.Errorf("signed in with %q: %q", label, got)
		}
		for _, label := range []string{"", label} {
			if ok, err := a.store.Rename(t.Context(), "alice", pgstore.IDOf(b.token()), label); !ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		}
		if got := labels(t, a.store, "alice"); got != want {
			t.Errorf("renamed to %q: %q", label, got)
		}
	}
}

func TestRenameIsOfTheUsersOwnLiveSessions(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			a := newAppOfLabels(t, newApp, pgtest.ExecMode(mode))
			b, bobs, other := a.browser(t), a.browser(t), a.browser(t)
			b.must("/login", "user", "alice")
			bobs.must("/login", "user", "bob")
			other.must("/put", "key", "k", "value", "v")
			id := pgstore.IDOf(b.token())
			rename := func(user, id string, want bool) {
				t.Helper()
				if ok, err := a.store.Rename(t.Context(), user, id, "renamed"); ok != want || err != nil {
					t.Errorf("%s, %s: %t, %v", user, id, ok, err)
				}
			}
			for _, id := range []string{pgstore.IDOf(bobs.token()), pgstore.IDOf(other.token()), pgstore.IDOf("unknown"), "", "x"} {
				rename("alice", id, false)
			}
			if _, err := a.store.Rename(t.Context(), "", id, "x"); err == nil {
				t.Error("an empty user id was accepted")
			}
			if got := labels(t, a.store, "alice") + labels(t, a.store, "bob"); got != "" {
				t.Errorf("renamed all the same: %q", got)
			}
			rename("alice", id, true)
			b.must("/renew")
			if got := labels(t, a.store, "alice"); got != "renamed" {
				t.Errorf("after a renewal: %q", got)
			}
			rename("alice", id, false)
			id = pgstore.IDOf(b.token())
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE id = $1`, id)
			rename("alice", id, false)
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() + interval '1 hour', end_reason = 'revoked' WHERE id = $1`, id)
			rename("alice", id, false)
		})
	}
}

// A renewal that comes while Rename holds the row waits, and carries the label over.
func TestRenameIsNotLostToARenewal(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema, pgtest.Param("application_name", schema))
	migrate(t, pool)
	a := newApp(t, pool, pgstore.Config{Timeout: time.Minute})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	var gate pgtest.Gate
	store := newStore(t, pgtest.PoolIn(t, schema, gate.Option()), pgstore.Config{Timeout: time.Minute})
	gate.Shut(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if ok, err := store.Rename(t.Context(), "alice", pgstore.IDOf(b.token()), "laptop"); !ok || err != nil {
			t.Errorf("%t, %v", ok, err)
		}
	})
	gate.Let() // the lock
	pgtest.Eventually(t, "the row is locked", func() bool { return gate.Held() == 1 && len(gate.Trips()) == 2 })
	wg.Go(func() { b.must("/renew") })
	pgtest.Eventually(t, "the renewal waits", func() bool {
		return pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) == 1
	})
	gate.Open()
	wg.Wait()
	if got := labels(t, a.store, "alice"); got != "laptop" {
		t.Errorf("%q", got)
	}
}

// Once the renewal has begun, the id is that of no live session.
func TestRenameOfASessionThatIsBeingRenewedIsRefused(t *testing.T) {
	t.Parallel()
	a := newAppOfLabels(t, newApp)
	b := a.browser(t)
	b.must("/login-from", "user", "alice", "label", "laptop")
	id := pgstore.IDOf(b.token())
	finish := b.hold("before", "renew")
	if ok, err := a.store.Rename(t.Context(), "alice", id, "phone"); ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	finish()
	if got := labels(t, a.store, "alice"); got != "laptop" {
		t.Errorf("%q", got)
	}
}
