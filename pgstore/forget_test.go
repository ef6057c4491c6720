package pgstore_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// The account is deleted by a request of its own, which signs itself out first; another
// session has timed out, and not been swept.
func TestForgetFromTheUsersOwnRequest(t *testing.T) {
	t.Parallel()
	for _, signOut := range []string{"before", "after", "never"} {
		t.Run("signed out "+signOut, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				a.mux.HandleFunc("/delete-account", func(_ http.ResponseWriter, r *http.Request) {
					step := func(when string) {
						if signOut != when {
							return
						}
						if err := a.sm.Destroy(r.Context()); err != nil {
							t.Error(err)
						}
					}
					step("before")
					if _, err := a.store.Forget(r.Context(), "alice"); err != nil {
						t.Error(err)
					}
					step("after")
				})
				b, lapsed := a.browser(t), a.browser(t)
				lapsed.must("/login", "user", "alice")
				pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() - interval '10 minutes'`)
				b.must("/login", "user", "alice")
				b.must("/delete-account")
				for _, what := range []string{
					`SELECT count(*) FROM scs_sessions WHERE user_id IS NOT NULL`, `SELECT count(*) FROM scs_sessions WHERE data <> ''`,
					`SELECT count(*) FROM scs_user_sessions`, `SELECT count(*) FROM scs_users`,
				} {
					if n := pgtest.Query[int](t, a.pool, what); n != 0 {
						t.Errorf("%s: %d", what, n)
					}
				}
			})
		})
	}
}

// What a user had in sessions that have timed out is forgotten, too.
func TestForgetEmptiesWhatHasTimedOut(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3})
		lapsed := a.browser(t)
		lapsed.must("/login", "user", "alice")
		lapsed.must("/put", "key", "address", "value", "12 High Street")
		pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() - interval '10 minutes'`)
		a.browser(t).must("/login", "user", "alice")
		if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE data <> ''`); n != 0 {
			t.Errorf("%d sessions hold data", n)
		}
	})
}

func TestForgetLeavesNothingOfTheUser(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	a.browser(t).must("/login", "user", "alice")
	b.must("/renew")
	if n, err := a.store.Forget(t.Context(), "alice"); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n := pgtest.Query[int](t, a.pool, `SELECT (SELECT count(*) FROM scs_user_sessions) + (SELECT count(*) FROM scs_users)
		+ (SELECT count(*) FROM scs_sessions WHERE user_id IS NOT NULL AND end_reason <> 'renewed')`); n != 0 {
		t.Errorf("%d rows still name the user", n)
	}
	if got := b.must("/me"); !strings.Contains(got, "state=ended reason=revoked") {
		t.Errorf("its session: %s", got)
	}
}

// While a session is being renewed, another sign-in reads the user's index, and the
// account is deleted. The renewal must not leave a session of it.
func TestForgetStopsAPendingRenewal(t *testing.T) {
	t.Parallel()
	forget := func(t *testing.T, a *app) {
		if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
	}
	own := func(a *app) action {
		return func(_ *script, r *http.Request) error {
			_, err := a.store.Forget(r.Context(), "alice")
			return err
		}
	}
	for name, run := range map[string]func(t *testing.T, a *app, browser *browser) (token string){
		"renewed before": func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(renew, wait)
			a.browser(t).do(signIn("alice"))
			forget(t, a)
			return s.finish()
		},
		"renewed before, no other sign-in": func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(renew, wait)
			forget(t, a)
			return s.finish()
		},
		"renewed after": func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(wait, renew)
			a.browser(t).do(signIn("alice"))
			forget(t, a)
			return s.finish()
		},
		"renewed before, by two": func(t *testing.T, a *app, browser *browser) string {
			late, s := browser.start(wait, renew), browser.start(renew, wait)
			late.finish()
			a.browser(t).do(signIn("alice"))
			forget(t, a)
			return s.finish()
		},
		"by the request itself": func(t *testing.T, a *app, browser *browser) string {
			s := browser.start(renew, wait, own(a))
			a.browser(t).do(signIn("alice"))
			return s.finish()
		},
		"by the request itself, before it renews": func(t *testing.T, a *app, browser *browser) string {
			return browser.do(own(a), renew)
		},
	} {
		for _, limit := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s, limit %d", name, limit), func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit})
				browser := a.signedIn(t, "alice")
				browser.do(put("address"))
				a.expect(t, "the renewal's", run(t, a, browser), "nothing")
				a.expectLive(t, "alice", 0)
				if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE length(data) > 17`); n != 0 {
					t.Errorf("%d rows hold more than a link", n)
				}
			})
		}
	}
}
