package pgstore_test

import (
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// A renews and what it has made ends; B, which had loaded before, renews. It is dropped.
func TestRenewalOfWhatHasEndedSinceIsDropped(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, a *app, browser *browser) (others int){
		"signed out": func(_ *testing.T, _ *app, browser *browser) int { browser.do(destroy); return 0 },
		"revoked": func(t *testing.T, a *app, browser *browser) int {
			if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(browser.token())); !ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
			return 0
		},
		"all revoked": func(t *testing.T, a *app, _ *browser) int {
			if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			return 0
		},
		"others revoked": func(t *testing.T, a *app, _ *browser) int {
			keep := a.browser(t)
			keep.must("/login", "user", "alice")
			keep.do(revokeOthers)
			return 1
		},
		"evicted": func(t *testing.T, a *app, _ *browser) int {
			for range 2 {
				a.browser(t).must("/login", "user", "alice")
			}
			return 2
		},
		"timed out": func(t *testing.T, a *app, _ *browser) int {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
			return 0
		},
		"timed out, and a sign-in met it": func(t *testing.T, a *app, _ *browser) int {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE end_reason IS NULL`)
			a.browser(t).must("/login", "user", "alice")
			return 1
		},
		"forgotten": func(t *testing.T, a *app, _ *browser) int {
			if n, err := a.store.Forget(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			return 0
		},
		"swept": func(t *testing.T, a *app, _ *browser) int {
			pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`)
			pgtest.Exec(t, a.pool, `DELETE FROM scs_user_sessions`)
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
				browser := a.signedIn(t, "alice")
				b := browser.start(put("late"), wait, renew)
				browser.do(renew)
				others := end(t, a, browser)
				a.expect(t, "the renewal's", b.finish(), "nothing")
				a.expectLive(t, "alice", others)
				checkIndex(t, a.pool, a.store, "alice")
			})
		})
	}
}

// Renewed by A, again by C, then by B, which had loaded the first: B goes on from C's.
func TestRenewalFollowsAChainToItsEnd(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
		browser := a.signedIn(t, "alice")
		b := browser.start(put("b"), wait, renew)
		browser.do(put("a"), renew)
		third := browser.do(put("c"), renew)
		last := b.finish()
		a.expect(t, "C's", third, "nothing")
		a.expect(t, "B's", last, "alice: a b c")
		a.expectAge(t, last, true)
		a.expectLive(t, "alice", 1)
		checkIndex(t, a.pool, a.store, "alice")
	})
}

func TestRenewalFollowsEightLinksAndNoMore(t *testing.T) {
	t.Parallel()
	for _, links := range []int{8, 9} {
		a := newApp(t, migrated(t), pgstore.Config{})
		browser := a.signedIn(t, "alice")
		b := browser.start(put("b"), wait, renew)
		var last string
		for range links {
			last = browser.do(renew)
		}
		token := b.finish()
		if links > 8 {
			a.expect(t, "the one that is too late", token, "nothing")
			a.expect(t, "the last renewal's", last, "alice:")
		} else {
			a.expect(t, "the late one", token, "alice: b")
			a.expect(t, "the last renewal's", last, "nothing")
		}
		a.expectLive(t, "alice", 1)
	}
}
