package pgstore_test

import (
	"fmt"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// MergeSession brings back a session whose token was lost on the way through another
// site. It goes on with its age and its place, under whatever token follows.
func TestMergeSessionContinuesTheSession(t *testing.T) {
	t.Parallel()
	then := map[string][]action{"then RenewToken": {renew}, "then none": nil, "after RenewToken": nil}
	for name, run := range map[string]func(a *app, lost, browser *browser, steps []action) (token, want string){
		"alone": func(_ *app, lost, browser *browser, steps []action) (string, string) {
			return browser.do(steps...), "alice: cart state"
		},
		"beside a write": func(_ *app, lost, browser *browser, steps []action) (string, string) {
			w, s := lost.start(put("late"), wait), browser.start(append(steps, wait)...)
			w.finish() // it meets a session that is being renewed
			return s.finish(), "alice: cart state"
		},
		"renewed meanwhile by another that had loaded it": func(_ *app, lost, browser *browser, steps []action) (string, string) {
			w, s := lost.start(put("late"), wait, renew), browser.start(append(steps, wait)...)
			w.finish()
			return s.finish(), "alice: cart late state"
		},
		"where the browser's own has timed out": func(a *app, lost, browser *browser, steps []action) (string, string) {
			pgtest.Exec(browser.t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE id = $1`, pgstore.IDOf(browser.token()))
			return browser.do(steps...), "alice: cart"
		},
	} {
		for when, after := range then {
			t.Run(name+", "+when, func(t *testing.T) {
				bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
					a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: pgstore.Reject})
					other, lost, browser := a.signedIn(t, "alice"), a.signedIn(t, "alice"), a.browser(t)
					lost.do(put("cart"))
					browser.do(put("state"))
					steps := append([]action{mergeIn(lost.token())}, after...)
					if when == "after RenewToken" {
						steps = append([]action{renew}, steps...)
					}
					was := lost.token()
					token, want := run(a, lost, browser, steps)
					a.expect(t, "the answer", token, want)
					a.expectAge(t, token, true)
					a.expect(t, "the lost token", was, "nothing")
					a.expect(t, "the other device's", other.token(), "alice:")
					a.expectLive(t, "alice", 2)
					checkIndex(t, a.pool, a.store, "alice")
				})
			})
		}
	}
}

// If it ends before the commit, its user is not signed in after all.
func TestMergeSessionOfWhatEndsMeanwhileIsDropped(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(t *testing.T, a *app, lost *browser){
		"revoked": func(t *testing.T, a *app, lost *browser) {
			if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(lost.token())); !ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		},
		"all revoked": func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
		"forgotten": func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
	} {
		for after, steps := range map[string][]action{"none": {wait}, "RenewToken": {renew, wait}, "RenewToken later": {wait, renew}} {
			t.Run(fmt.Sprintf("%s, then %s", how, after), func(t *testing.T) {
				bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
					a := newApp(t, migrated(t), pgstore.Config{})
					lost, browser := a.signedIn(t, "alice"), a.browser(t)
					lost.do(put("cart"))
					browser.do(put("state"))
					s := browser.start(append([]action{mergeIn(lost.token())}, steps...)...)
					end(t, a, lost)
					if got := a.opens(t, s.finish()); got != "nothing" && got != "nobody: state" {
						t.Errorf("the answer opens %q", got)
					}
					a.expectLive(t, "alice", 0)
				})
			})
		}
	}
}

// It is read, and has ended by the time that it is deleted.
func TestMergeSessionOfWhatEndsWithinIsDropped(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{"signed_out": "nothing", "revoked": "nothing", "evicted": "nothing"} {
		for after, steps := range map[string][]action{"none": nil, "RenewToken": {renew}} {
			t.Run(reason+", then "+after, func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{})
				lost, browser := a.signedIn(t, "alice"), a.browser(t)
				lost.do(put("cart"))
				browser.do(put("state"))
				l := lock(t, a.pool, `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, pgstore.IDOf(lost.token()))
				s := browser.begin(append([]action{mergeIn(lost.token())}, steps...)...)
				l.waitFor(1)
				l.exec(`UPDATE scs_sessions SET end_reason = $1, data = '' WHERE user_id = 'alice'`, reason)
				l.end()
				if got := a.opens(t, s.token()); got != want && got != "nobody: state" {
					t.Errorf("the answer opens %q", got)
				}
				a.expectLive(t, "alice", 0)
			})
		}
	}
}

// Two deletions in one request: the browser's own session is one of a user's, too.
func TestTwoDeletionsInOneRequestEndInOneSession(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		own           string // whose the browser's own session is
		before, after []action
		want          string
		old           bool
	}{
		"of one user":                      {"alice", nil, []action{renew}, "alice: cart own", true},
		"of one user, the other way round": {"alice", []action{renew}, nil, "alice: cart own", true},
		"of one user, and one renewed":     {"alice", []action{renew}, []action{renew}, "alice: cart own", true},
		"of another user":                  {"bob", nil, []action{renew}, "alice: cart own", true}, // as scs has merged it
		"of another user, before":          {"bob", []action{renew}, nil, "alice: cart own", true},
		"of one user, then signed in":      {"alice", nil, []action{signIn("alice")}, "alice: cart own", false},
		"of another user, then signed in":  {"bob", nil, []action{signIn("alice")}, "alice:", false},
		"of one user, then signed out":     {"alice", nil, []action{renew, destroy}, "nothing", false},
		"of one user, signed out before":   {"alice", []action{destroy}, nil, "alice: cart", true},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2, LimitPolicy: pgstore.Reject})
				lost, browser := a.signedIn(t, "alice"), a.signedIn(t, tt.own)
				lost.do(put("cart"))
				browser.do(put("own"))
				was := browser.token()
				token := browser.do(append(append(tt.before, mergeIn(lost.token())), tt.after...)...)
				a.expect(t, "the answer", token, tt.want)
				a.expect(t, "the browser's old token", was, "nothing")
				a.expect(t, "the lost token", lost.token(), "nothing")
				a.expectLive(t, "bob", 0)
				if tt.want == "nothing" {
					a.expectLive(t, "alice", 0)
					return
				}
				a.expectLive(t, "alice", 1)
				a.expectAge(t, token, tt.old)
				checkIndex(t, a.pool, a.store, "alice", "bob")
			})
		})
	}
}

// The one that was merged in ends with the sign-out, also where the merging request has
// not committed yet.
func TestSignOutBesideMergeSessionSignsOut(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		lost, browser := a.signedIn(t, "alice"), a.browser(t)
		browser.do(put("state"))
		c := lost.start(wait, destroy)
		s := browser.start(mergeIn(lost.token()), renew, wait)
		c.finish()
		if got := a.opens(t, s.finish()); got != "nothing" {
			t.Errorf("the answer opens %q", got)
		}
		a.expectLive(t, "alice", 0)
	})
}

// Without Track MergeSession is a sign-out and a sign-in.
func TestPlainMergeSessionSignsIn(t *testing.T) {
	t.Parallel()
	a := newPlainApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
	lost, browser := a.signedIn(t, "alice"), a.browser(t)
	browser.do(put("state"))
	for _, steps := range [][]action{nil, {renew}} {
		browser.do(append([]action{mergeIn(lost.token())}, steps...)...)
		a.expect(t, "the answer", browser.token(), "alice: state")
		a.expectLive(t, "alice", 1)
		lost, browser = browser, a.browser(t)
	}
}
