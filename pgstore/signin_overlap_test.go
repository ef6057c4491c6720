package pgstore_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

var policies = []pgstore.LimitPolicy{pgstore.EvictOldest, pgstore.EvictLeastRecent, pgstore.Reject}

// Two clicks on "Sign in". Both answer 200, and one live session is left: that of the
// later commit.
func TestSignInsThatOverlapEndInOneSession(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		for _, policy := range policies {
			for _, limit := range []int{0, 1} {
				t.Run(fmt.Sprintf("policy %d, limit %d", policy, limit), func(t *testing.T) {
					t.Parallel()
					cfg := pgstore.Config{UserLimit: limit, LimitPolicy: policy}
					a := newApp(t, migrated(t), cfg)
					signInsThatOverlapEndInOneSession(t, a, newApp(t, a.pool, cfg))
				})
			}
		}
	})
}

func signInsThatOverlapEndInOneSession(t *testing.T, a, node *app) {
	orders := map[string]func(browser *browser, user string, before []action) (first, last string){
		"one after the other": func(browser *browser, user string, before []action) (string, string) {
			steps := slices.Concat([]action{wait}, before, []action{signIn(user)})
			y := browser.start(steps...)
			return browser.do(steps[1:]...), y.finish()
		},
		"both before either signs in": func(browser *browser, user string, before []action) (string, string) {
			steps := slices.Concat([]action{wait}, before, []action{wait, signIn(user)})
			y, x := browser.start(steps...), browser.start(steps...)
			y.goOn()
			x.goOn()
			return x.finish(), y.finish()
		},
		"both behind the user's lock, on two nodes": func(browser *browser, user string, before []action) (string, string) {
			pgtest.Exec(t, a.pool, `INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT DO NOTHING`, user)
			there := *browser
			there.app = node
			steps := slices.Concat([]action{wait}, before, []action{signIn(user)})
			y, x := there.start(steps...), browser.start(steps...)
			l := lock(t, a.pool, `SELECT FROM scs_users WHERE user_id = $1 FOR UPDATE`, user)
			x.proceed <- struct{}{}
			l.waitFor(1)
			y.proceed <- struct{}{}
			l.waitFor(2)
			l.end()
			return x.token(), y.token()
		},
		"three of them": func(browser *browser, user string, before []action) (string, string) {
			steps := slices.Concat([]action{wait}, before, []action{signIn(user)})
			z, y := browser.start(steps...), browser.start(steps...)
			first := browser.do(steps[1:]...)
			y.finish()
			return first, z.finish()
		},
	}
	n := 0
	for order, run := range orders {
		for _, start := range []string{"signed in", "anonymous", "another user's"} {
			for with, before := range map[string][]action{"": nil, "with Destroy": {destroy}} {
				n++
				user, name := fmt.Sprintf("user%d", n), order+", "+start+" "+with
				browser := a.browser(t)
				switch start {
				case "signed in":
					browser = a.signedIn(t, user)
				case "another user's":
					browser = a.signedIn(t, "bob of "+user)
				}
				browser.do(put("cart"))
				first, last := run(browser, user, before)
				want := user + ": cart"
				if before != nil || start == "another user's" {
					want = user + ":"
				}
				a.expect(t, name+": the last answer's", last, want)
				a.expect(t, name+": the first answer's", first, "nothing")
				a.expectAge(t, last, false)
				a.expectLive(t, user, 1)
				a.expectLive(t, "bob of "+user, 0)
				checkIndex(t, a.pool, a.store, user)
			}
		}
	}
}

// Without Track nothing says that two requests are of one browser. They sign in all the
// same, as two devices would.
func TestPlainSignInsThatOverlapSignIn(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: 2, 1: 1} {
		a := newPlainApp(t, migrated(t), pgstore.Config{UserLimit: limit})
		browser := a.signedIn(t, "alice")
		y := browser.start(wait, signIn("alice"))
		browser.do(signIn("alice"))
		a.expect(t, "the last answer's", y.finish(), "alice:")
		a.expectLive(t, "alice", want)
	}
}

// A sign-in does not depend on what has become of the session that the browser had.
func TestSignInDoesNotDependOnWhatBecameOfTheOldSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, a *app, browser *browser){
		"signed out": func(_ *testing.T, _ *app, browser *browser) { browser.do(destroy) },
		"revoked": func(t *testing.T, a *app, browser *browser) {
			if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(browser.token())); !ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		},
		"evicted": func(t *testing.T, a *app, _ *browser) {
			for range 2 {
				a.browser(t).do(signIn("alice"))
			}
		},
		"timed out": func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		},
		"swept": func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`)
			pgtest.Exec(t, a.pool, `DELETE FROM scs_user_sessions`)
		},
		"forgotten": func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
		"renewed": func(_ *testing.T, _ *app, browser *browser) { browser.do(renew) },
		"renewed and evicted": func(t *testing.T, a *app, browser *browser) {
			browser.do(renew)
			a.browser(t).do(signIn("alice"))
			a.browser(t).do(signIn("alice"))
		},
		"switched": func(_ *testing.T, _ *app, browser *browser) { browser.do(set(userKey, "bob")) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				for _, before := range [][]action{nil, {destroy}} {
					a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
					browser := a.signedIn(t, "alice")
					s := browser.start(slices.Concat([]action{wait}, before, []action{signIn("alice")})...)
					end(t, a, browser)
					a.expect(t, "the sign-in's", s.finish(), "alice:")
				}
			})
		})
	}
}

// Two clicks, whatever has become of the old session before, and whichever of them signs
// out first.
func TestSignInsOverWhatHasEndedEndInOneSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, a *app, browser *browser){
		"alive":      func(*testing.T, *app, *browser) {},
		"signed out": func(_ *testing.T, _ *app, browser *browser) { browser.do(destroy) },
		"renewed":    func(_ *testing.T, _ *app, browser *browser) { browser.do(renew) },
		"revoked": func(t *testing.T, a *app, browser *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET end_reason = 'revoked', data = '' WHERE id = $1`, pgstore.IDOf(browser.token()))
		},
		"timed out": func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []int{0, 1} {
				for _, start := range []string{"alice", ""} {
					t.Run(fmt.Sprintf("limit %d, of %q", limit, start), func(t *testing.T) {
						t.Parallel()
						a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit, LimitPolicy: pgstore.Reject})
						for _, before := range [][2][]action{{nil, nil}, {{destroy}, {destroy}}, {{destroy}, nil}, {nil, {destroy}}} {
							browser := a.browser(t)
							if start == "" {
								browser.do(put("cart"))
							} else {
								browser.do(signIn("alice"))
							}
							y := browser.start(slices.Concat([]action{wait}, before[1], []action{signIn("alice")})...)
							x := browser.start(slices.Concat([]action{wait}, before[0], []action{signIn("alice")})...)
							end(t, a, browser)
							first, last := x.finish(), y.finish()
							a.expect(t, "the first answer's", first, "nothing")
							if got := a.opens(t, last); got != "alice:" && got != "alice: cart" {
								t.Errorf("the last answer's opens %q", got)
							}
							a.expectLive(t, "alice", 1)
							browser.setToken(last)
							browser.do(destroy)
						}
					})
				}
			}
		})
	}
}

// The second click may be loaded while the first signs in, or another request renews: it
// does not find the session, and signs in all the same.
func TestSignInLoadedBesideASignInEndsInOneSession(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		for _, policy := range policies {
			for _, limit := range []int{0, 1} {
				for _, start := range []string{"alice", ""} {
					a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit, LimitPolicy: policy})
					browser := a.browser(t)
					if browser.do(put("cart")); start != "" {
						browser.do(signIn(start))
					}
					x := browser.start(renew, wait, signIn("alice"))
					y := browser.start(wait, signIn("alice"))
					z := browser.start(signIn("alice"), wait)
					first, last := x.finish(), y.finish()
					a.expect(t, "the first answer's", first, "nothing")
					a.expect(t, "the last answer's", last, "alice:")
					a.expect(t, "the one between", z.finish(), "nothing")
					a.expectLive(t, "alice", 1)
				}
			}
		}
	})
}

// Whoever has a token that has been renewed away, or is being, ends nothing of another
// user's by a sign-in.
func TestSignInWithARenewedTokenLeavesOtherUsersAlone(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		for _, user := range []string{"alice", "nobody"} {
			browser, thief := a.browser(t), a.browser(t)
			if browser.do(put("cart")); user == "alice" {
				browser.do(signIn(user))
			}
			thief.setToken(browser.token())
			token := browser.do(renew)
			a.expect(t, "the thief's", thief.do(signIn("mallory")), "mallory:")
			a.expect(t, "the renewed token", token, user+": cart")
			if user == "alice" {
				thief.setToken(token)
				s := browser.start(renew, wait)
				a.expect(t, "the thief's", thief.do(signIn("mallory")), "mallory:")
				a.expect(t, "the renewed token", s.finish(), "alice: cart")
			}
		}
	})
}

// Only a fence refuses it.
func TestFenceRefusesASignInOverAnySession(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 1} {
		for _, signedIn := range []string{"alice", "bob", ""} {
			for _, before := range [][]action{nil, {destroy}} {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit})
				browser := a.browser(t)
				if browser.do(put("cart")); signedIn != "" {
					browser.do(signIn(signedIn))
				}
				s := browser.start(slices.Concat([]action{wait}, before, []action{signIn("alice")})...)
				if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
					t.Fatal(err)
				}
				s.proceed <- struct{}{}
				if got := <-s.answered; got.status != http.StatusConflict || got.body != pgstore.ErrEnded.Error() {
					t.Errorf("over %q, limit %d: %+v", signedIn, limit, got)
				}
				a.expectLive(t, "alice", 0)
			}
		}
	}
}

// The user types the password, and the anonymous session times out meanwhile.
func TestSignInSurvivesTheTimeoutOfItsAnonymousSession(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		for name, tt := range map[string]struct {
			steps   []action
			timeOut string
		}{
			"before it is loaded":      {[]action{signIn("alice"), wait}, `UPDATE scs_sessions SET expiry = now() - interval '1 minute'`},
			"once it is loaded":        {[]action{wait, signIn("alice")}, `UPDATE scs_sessions SET expiry = now() - interval '1 minute'`},
			"and is swept":             {[]action{wait, signIn("alice")}, `DELETE FROM scs_sessions`},
			"with RenewToken and Put":  {[]action{wait, renew, set(userKey, "alice")}, `UPDATE scs_sessions SET expiry = now() - interval '1 minute'`},
			"within the sign-in":       {[]action{renew, wait, set(userKey, "alice")}, `UPDATE scs_sessions SET expiry = now() - interval '1 minute'`},
			"with Destroy before that": {[]action{wait, destroy, signIn("alice")}, `UPDATE scs_sessions SET expiry = now() - interval '1 minute'`},
		} {
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject, Timeout: time.Minute})
			browser := a.browser(t)
			browser.do(put("cart"))
			if name == "before it is loaded" {
				pgtest.Exec(t, a.pool, tt.timeOut)
			}
			s := browser.start(tt.steps...)
			if name != "before it is loaded" {
				pgtest.Exec(t, a.pool, tt.timeOut)
			}
			s.finish()
			if got := browser.user(); got != "alice" {
				t.Errorf("%s: %q is signed in", name, got)
			}
			a.expectLive(t, "alice", 1)
		}
	})
}
