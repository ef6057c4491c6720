package pgstore_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestStatusOfTellsWhyTheSessionEnded(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
	first, second := a.browser(t), a.browser(t)
	if got := first.must("/me"); got != "user= state=none reason= keys=" {
		t.Errorf("without a cookie: %s", got)
	}
	first.must("/login", "user", "alice")
	second.must("/login", "user", "alice")
	a.browser(t).must("/login", "user", "alice")
	if got := first.must("/me"); !strings.Contains(got, "state=ended reason=evicted") {
		t.Errorf("evicted: %s", got)
	}
	token := second.token()
	second.must("/logout")
	second.setToken(token)
	if got := second.must("/me"); !strings.Contains(got, "state=ended reason=signed_out") {
		t.Errorf("signed out: %s", got)
	}
	third := a.browser(t)
	third.must("/login", "user", "bob")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE user_id = 'bob'`)
	if got := third.must("/me"); !strings.Contains(got, "state=expired reason= ") {
		t.Errorf("timed out: %s", got)
	}
}

// StatusOf is about the session that the request came with.
func TestStatusOfIsNotOfASecondSession(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
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
