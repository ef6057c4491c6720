package pgstore_test

import (
	"net/http"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// To delete the token that was renewed once more changes nothing.
func TestRenewalSurvivesASecondDeleteOfTheOldToken(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
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

func TestMergeSessionEndsTheSessionAndKeepsItsData(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		a.mux.HandleFunc("/merge", func(w http.ResponseWriter, r *http.Request) {
			if err := a.sm.MergeSession(r.Context(), r.FormValue("token")); err != nil {
				t.Error(err)
			}
		})
		lost, b := a.browser(t), a.browser(t)
		lost.must("/login", "user", "alice")
		lost.must("/put", "key", "cart", "value", "1")
		b.must("/put", "key", "state", "value", "x")
		b.must("/merge", "token", b.token())
		b.must("/merge", "token", lost.token())
		want := "user=alice state=" + map[bool]string{true: "active", false: "none"}[a.tracked] + " reason= keys=cart,state,userID"
		if got := b.must("/me"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if lost.user() != "" {
			t.Error("the merged session still lives")
		}
		checkIndex(t, a.pool, a.store, "alice")
	})
}

// A tracked request does not recreate a session whose tombstone is gone.
func TestSweptSessionStaysGone(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"put", "renew", ""} {
		t.Run("then "+after, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			finish := b.hold("after", after)
			pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`)
			pgtest.Exec(t, a.pool, `DELETE FROM scs_user_sessions`)
			if status, body := finish(); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions`); n != 0 {
				t.Errorf("%d rows are back", n)
			}
		})
	}
}
