package pgstore_test

import (
	"net/http"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// bob signs in in the browser in which alice was signed in.
func TestSignInOverAnotherUsersSessionKeepsNoneOfItsValues(t *testing.T) {
	t.Parallel()
	remember := func(s *script, r *http.Request) error { //nolint:unparam // an action
		s.app.sm.RememberMe(r.Context(), true)
		return nil
	}
	for name, tt := range map[string]struct {
		steps     func(t *testing.T, a *app, browser *browser) (token string)
		trackOnly bool
	}{
		"SignIn": {func(_ *testing.T, _ *app, browser *browser) string { return browser.do(signIn("bob")) }, false},
		"Put, then SignIn": {func(_ *testing.T, _ *app, browser *browser) string {
			return browser.do(put("of alice, too"), signIn("bob"))
		}, false},
		"beside a write of alice's": {func(_ *testing.T, _ *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			browser.do(put("late"))
			return s.finish()
		}, false},
		"alice's has ended meanwhile": {func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
			return s.finish()
		}, false},
		"alice's has been renewed meanwhile": {func(_ *testing.T, _ *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			browser.do(put("late"), renew)
			return s.finish()
		}, false},
		"alice's has been swept": {func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`)
			return s.finish()
		}, false},
		"after a renewal": {func(_ *testing.T, _ *app, browser *browser) string { return browser.do(renew, signIn("bob")) }, false},
		"the key was removed first": {func(_ *testing.T, _ *app, browser *browser) string {
			return browser.do(func(s *script, r *http.Request) error { s.app.sm.Remove(r.Context(), userKey); return nil }, signIn("bob"))
		}, true},
		"the key was removed, and the session has ended": {func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(func(s *script, r *http.Request) error { s.app.sm.Remove(r.Context(), userKey); return nil }, wait, signIn("bob"))
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
			return s.finish()
		}, true},
		"two sign-ins at once": {func(_ *testing.T, _ *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			browser.do(signIn("bob"))
			return s.finish()
		}, false},
		"carol signs in meanwhile": {func(_ *testing.T, _ *app, browser *browser) string {
			s := browser.start(wait, signIn("bob"))
			browser.do(signIn("carol"), put("of carol's"))
			return s.finish()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				if tt.trackOnly && !a.tracked {
					return
				}
				browser := a.browser(t)
				browser.do(put("cart"))
				browser.do(signIn("alice"))
				browser.do(set("role", "admin"), remember)
				old := browser.token()
				a.expect(t, "bob's", tt.steps(t, a, browser), "bob:")
				if name != "alice's has been renewed meanwhile" || a.tracked {
					a.expectLive(t, "alice", 0)
				}
				a.expect(t, "alice's old token", old, "nothing")
			})
		})
	}
}

func TestSignInKeepsAnAnonymousVisitorsCart(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		browser := a.browser(t)
		browser.do(put("cart"))
		a.expect(t, "alice's", browser.do(signIn("alice")), "alice: cart")
		// A sign-in of the same user keeps what is there, too.
		a.expect(t, "alice's", browser.do(signIn("alice")), "alice: cart")

		// One that was begun before the first, on the anonymous session.
		browser = a.browser(t)
		browser.do(put("cart"))
		s := browser.start(wait, signIn("dave"))
		browser.do(signIn("erin"), put("of erin's"))
		a.expect(t, "dave's", s.finish(), "dave: cart")

		browser = a.browser(t)
		a.expect(t, "without a session before", browser.do(put("cart"), signIn("bob")), "bob: cart")
	})
}

// alice's session has ended while she was signing in again, and the sign-in is refused. The
// anonymous session that is left holds nothing of hers, nor does bob's, which continues it.
func TestRefusedSignInLeavesNothingOfTheUserForTheNext(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
		browser := a.signedIn(t, "alice")
		browser.do(set("role", "admin"))
		s := browser.start(wait, signIn("alice"))
		if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(browser.token())); !ok || err != nil {
			t.Fatal(ok, err)
		}
		a.browser(t).do(signIn("alice"))
		s.proceed <- struct{}{}
		refused := <-s.answered
		if refused.status != http.StatusConflict || refused.body != pgstore.ErrUserLimit.Error() {
			t.Errorf("%+v", refused)
		}
		a.expect(t, "the refused sign-in's", refused.token, "nobody:")
		a.expect(t, "bob's", browser.do(signIn("bob")), "bob:")
	})
}
