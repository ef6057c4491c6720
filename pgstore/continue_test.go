package pgstore_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// Two requests of one browser renew its session. However they overlap, one live session
// is left, that of the later commit, with the age, the place and the changes of both.
func TestRenewalsThatOverlapEndInOneSession(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(t *testing.T, a *app, browser *browser) (first, last string){
		"one after the other": func(_ *testing.T, _ *app, browser *browser) (string, string) {
			b := browser.start(put("b"), wait, renew)
			return browser.do(put("a"), renew), b.finish()
		},
		"the first works on, and commits last": func(_ *testing.T, _ *app, browser *browser) (string, string) {
			b := browser.start(put("b"), wait, renew)
			a := browser.start(put("a"), renew, wait)
			return b.finish(), a.finish()
		},
		"both renew, then both commit": func(_ *testing.T, _ *app, browser *browser) (string, string) {
			b := browser.start(put("b"), wait, renew, wait)
			a := browser.start(put("a"), wait, renew, wait)
			b.goOn()
			a.goOn()
			return b.finish(), a.finish()
		},
		"both wait for the row": func(_ *testing.T, app *app, browser *browser) (string, string) {
			token := browser.token()
			b, a := browser.start(put("b"), wait, renew), browser.start(put("a"), wait, renew)
			l := lock(b.t, app.pool, `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, pgstore.IDOf(token))
			b.proceed <- struct{}{}
			a.proceed <- struct{}{}
			l.waitFor(2)
			l.end()
			first, last := b.token(), a.token()
			if app.opens(b.t, last) == "nothing" {
				first, last = last, first
			}
			return first, last
		},
		"both wait for the user": func(_ *testing.T, app *app, browser *browser) (string, string) {
			b, a := browser.start(put("b"), renew, wait), browser.start(put("c"), wait)
			a.finish() // to a session that is being renewed: it is dropped
			l := lock(b.t, app.pool, `SELECT FROM scs_users WHERE user_id = 'alice' FOR UPDATE`)
			b.proceed <- struct{}{}
			l.waitFor(1)
			l.end()
			first := b.token()
			b = browser.start(put("a"), wait, renew)
			return first, b.finish()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: pgstore.Reject})
				other, browser := a.signedIn(t, "alice"), a.signedIn(t, "alice")
				old := browser.token()
				first, last := run(t, a, browser)
				a.expect(t, "the old token", old, "nothing")
				a.expect(t, "the first answer's", first, "nothing")
				a.expect(t, "the last answer's", last, "alice: a b")
				a.expect(t, "the other device's", other.token(), "alice:")
				a.expectAge(t, last, true)
				a.expectLive(t, "alice", 2)
				checkIndex(t, a.pool, a.store, "alice")
			})
		})
	}
}

// What a third request has written under the first one's new token stays, too.
func TestRenewalKeepsWhatWasWrittenUnderTheOtherOnesToken(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	browser := a.signedIn(t, "alice")
	browser.do(put("cart"))
	b := browser.start(put("b"), wait, renew)
	browser.do(renew, put("a"))
	browser.do(put("third"))
	browser.must("/remove", "key", "cart")
	a.expect(t, "the answer", b.finish(), "alice: a b third")
	a.expectLive(t, "alice", 1)
}

// Anonymous sessions, too.
func TestRenewalsOfAnAnonymousSessionEndInOne(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		browser := a.browser(t)
		browser.do(put("cart"))
		b := browser.start(put("b"), wait, renew)
		first := browser.do(put("a"), renew)
		a.expect(t, "the last answer's", b.finish(), "nobody: a b cart")
		a.expect(t, "the first answer's", first, "nothing")
		if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE end_reason IS NULL`); n != 1 {
			t.Errorf("%d live sessions", n)
		}
	})
}

// A renewal keeps its place: it is never refused, and then the limit holds all the same.
func TestRenewalKeepsItsPlaceBesideASignIn(t *testing.T) {
	t.Parallel()
	for _, policy := range []pgstore.LimitPolicy{pgstore.EvictOldest, pgstore.EvictLeastRecent, pgstore.Reject} {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: policy})
		browser, other := a.signedIn(t, "alice"), a.browser(t)
		s := browser.start(renew, wait)
		token := other.do(signIn("alice"))
		a.expect(t, "the renewal's", s.finish(), "alice:")
		a.expect(t, "the other device's", token, "nothing")
		a.expectLive(t, "alice", 1)
	}
}

func TestRenewTokenTwiceInOneRequestContinues(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
		browser := a.signedIn(t, "alice")
		browser.do(put("cart"))
		old, between := browser.token(), ""
		noted := func(s *script, r *http.Request) error { between = a.sm.Token(r.Context()); return nil }
		last := browser.do(put("a"), renew, noted, put("b"), renew)
		a.expect(t, "the answer", last, "alice: a b cart")
		a.expect(t, "the old token", old, "nothing")
		a.expect(t, "the token between", between, "nothing")
		a.expectAge(t, last, true)
		a.expectLive(t, "alice", 1)

		// A commit between them stores the token between.
		commit := func(s *script, r *http.Request) error { _, _, err := a.sm.Commit(r.Context()); return err }
		last = browser.do(renew, commit, put("c"), renew, noted)
		a.expect(t, "the answer", last, "alice: a b c cart")
		a.expectAge(t, last, true)
		a.expectLive(t, "alice", 1)
		checkIndex(t, a.pool, a.store, "alice")
	})
}

// Another tab signs out while a request that has renewed works on. It is signed out.
func TestSignOutBesideARenewalSignsOut(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(browser *browser) (renewed string){
		"it was loaded before": func(browser *browser) string {
			c := browser.start(wait, destroy)
			a := browser.start(renew, wait)
			c.finish()
			return a.finish()
		},
		"it is loaded while the renewal works on": func(browser *browser) string {
			a := browser.start(renew, wait)
			browser.do(destroy)
			return a.finish()
		},
		"it comes after the renewal": func(browser *browser) string {
			c := browser.start(wait, destroy)
			token := browser.do(renew)
			c.finish()
			return token
		},
		"it comes after two renewals": func(browser *browser) string {
			c := browser.start(wait, destroy)
			browser.do(renew)
			token := browser.do(renew)
			c.finish()
			return token
		},
		"it comes after two renewals that overlapped": func(browser *browser) string {
			c, b := browser.start(wait, destroy), browser.start(wait, renew)
			browser.do(renew)
			token := b.finish()
			c.finish()
			return token
		},
		"it comes between two renewals that overlap": func(browser *browser) string {
			c, b := browser.start(wait, destroy), browser.start(wait, renew)
			browser.do(renew)
			c.finish()
			return b.finish()
		},
		"it renews before it signs out": func(browser *browser) string {
			c := browser.start(wait, renew, destroy)
			a := browser.start(renew, wait)
			c.finish()
			return a.finish()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				other, browser := a.signedIn(t, "alice"), a.signedIn(t, "alice")
				old := browser.token()
				a.expect(t, "the renewed token", run(browser), "nothing")
				a.expect(t, "the old token", old, "nothing")
				a.expect(t, "the other device's", other.token(), "alice:")
				a.expectLive(t, "alice", 1)
			})
		})
	}
}

// A sign-out of the session that was is none of the one that has been signed in since; nor
// does it matter what follows in the same request.
func TestSignOutLeavesALaterSignInAlone(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		for _, user := range []string{"alice", "bob"} {
			for _, before := range [][]action{nil, {destroy}, {renew}} {
				for _, after := range [][]action{nil, {put("flash")}, {renew}} {
					a := newApp(t, migrated(t), pgstore.Config{})
					browser := a.signedIn(t, "alice")
					early := browser.start(slices.Concat([]action{wait, destroy, wait}, after)...)
					late := browser.start(slices.Concat([]action{wait, destroy}, after)...)
					early.goOn()
					token := browser.do(append(before, signIn(user))...)
					late.finish()
					early.finish()
					a.expect(t, "the sign-in's", token, user+":")
				}
			}
		}
	})
}
