package pgstore_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// Destroy, then a message for the next page, in two requests of one browser at once: each
// answer's cookie opens a new session of its own, which inherits nothing.
func TestDestroyThenPutBeginsASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(browser *browser) (x, y string){
		"one after the other": func(browser *browser) (string, string) {
			y := browser.start(wait, destroy, put("y"))
			return browser.do(destroy, put("x")), y.finish()
		},
		"both destroy, then both put": func(browser *browser) (string, string) {
			y, x := browser.start(wait, destroy, wait, put("y")), browser.start(wait, destroy, wait, put("x"))
			y.goOn()
			x.goOn()
			return x.finish(), y.finish()
		},
		"beside a write that comes first": func(browser *browser) (string, string) {
			x, y := browser.start(wait, destroy, put("x")), browser.start(wait, put("secret"), wait, destroy, put("y"))
			y.goOn()
			browser.do(put("secret"))
			return x.finish(), y.finish()
		},
		"beside a write that comes in between": func(browser *browser) (string, string) {
			w := browser.start(put("secret"), wait)
			y, x := browser.start(wait, destroy, wait, put("y")), browser.start(destroy, wait, put("x"))
			w.finish()
			y.goOn()
			return x.finish(), y.finish()
		},
		"beside a write that comes last": func(browser *browser) (string, string) {
			w, y := browser.start(put("secret"), wait), browser.start(wait, destroy, put("y"))
			x, y2 := browser.do(destroy, put("x")), y.finish()
			w.finish()
			return x, y2
		},
		"beside a renewal": func(browser *browser) (string, string) {
			w, y := browser.start(put("secret"), renew, wait), browser.start(wait, destroy, put("y"))
			x := browser.do(put("x")) // what is being renewed is not found: a new session
			y2 := y.finish()
			w.finish()
			return x, y2
		},
		"after a renewal": func(browser *browser) (string, string) {
			x, y := browser.start(wait, destroy, put("x")), browser.start(wait, destroy, put("y"))
			browser.do(put("secret"), renew)
			return x.finish(), y.finish()
		},
		"behind the row's lock": func(browser *browser) (string, string) {
			a := browser.app
			l := lock(browser.t, a.pool, `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, pgstore.IDOf(browser.token()))
			w, x, y := browser.begin(put("secret")), browser.begin(destroy, put("x")), browser.begin(destroy, put("y"))
			l.waitFor(3)
			l.end()
			w.token()
			return x.token(), y.token()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for user, newApps := range map[string][]newAppFunc{"": {newApp, newHTTP2App, newPlainApp}, "alice": {newApp, newPlainApp}} {
				for _, newApp := range newApps {
					a := newApp(t, migrated(t), pgstore.Config{})
					if !a.tracked && strings.HasSuffix(name, "a renewal") {
						continue // without Track a renewal is a sign-out and a new session
					}
					browser := a.browser(t)
					if browser.do(put("cart")); user != "" {
						browser = a.signedIn(t, user)
					}
					old := browser.token()
					x, y := run(browser)
					a.expect(t, "the old token", old, "nothing")
					a.expect(t, "x's answer", x, "nobody: x")
					a.expect(t, "y's answer", y, "nobody: y")
					a.expectLive(t, "alice", 0)
					if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE end_reason IS NULL AND id <> ALL($1)`,
						[]string{pgstore.IDOf(x), pgstore.IDOf(y)}); n != map[string]int{"": 0, "alice": 1}[user] { // the cart's
						t.Errorf("%q: %d other live sessions", user, n)
					}
				}
			}
		})
	}
}

// What one request does with its session and what may follow.
func TestDestroyAndRenewTokenInOneRequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps []action
		want  string // what the answer's token opens
		live  int
	}{
		"RenewToken, Destroy":                    {[]action{renew, destroy}, "nothing", 0},
		"RenewToken, Destroy, Put":               {[]action{renew, destroy, put("flash")}, "nobody: flash", 0},
		"RenewToken, Destroy, RenewToken":        {[]action{renew, destroy, renew}, "nobody:", 0},
		"RenewToken twice, Destroy":              {[]action{renew, renew, destroy}, "nothing", 0},
		"RenewToken, Destroy, SignIn":            {[]action{renew, destroy, signIn("alice")}, "alice:", 1},
		"Destroy, RenewToken":                    {[]action{destroy, renew}, "nobody:", 0},
		"Destroy, RenewToken, Put":               {[]action{destroy, renew, put("flash")}, "nobody: flash", 0},
		"Destroy, RenewToken, Put of the user":   {[]action{destroy, renew, set(userKey, "alice")}, "alice:", 1},
		"Destroy, SignIn":                        {[]action{destroy, signIn("alice")}, "alice:", 1},
		"Destroy twice":                          {[]action{destroy, destroy}, "nothing", 0},
		"SignIn, Destroy":                        {[]action{signIn("alice"), destroy}, "nothing", 0},
		"SignIn, RenewToken":                     {[]action{signIn("alice"), renew}, "alice: cart", 1},
		"SignIn twice":                           {[]action{signIn("alice"), signIn("alice")}, "alice: cart", 1},
		"RenewToken, SignIn":                     {[]action{renew, signIn("alice")}, "alice: cart", 1},
		"SignIn of another, RenewToken, Destroy": {[]action{signIn("bob"), renew, destroy}, "nothing", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
				browser := a.signedIn(t, "alice")
				browser.do(put("cart"))
				old := browser.token()
				a.expect(t, "the answer", browser.do(tt.steps...), tt.want)
				a.expect(t, "the old token", old, "nothing")
				a.expectLive(t, "alice", tt.live)
				a.expectLive(t, "bob", 0)
				if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE end_reason IS NULL`); n > 1 {
					t.Errorf("%d live sessions", n)
				}
			})
		})
	}
}

// Another request has loaded the session before, and renews it once that is signed out.
func TestRenewTokenThenDestroySignsOutForOthersToo(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		for _, steps := range [][]action{{renew, wait, destroy}, {renew, wait, renew, destroy}, {wait, destroy, renew}, {renew, wait, destroy, put("flash")}} {
			a := newApp(t, migrated(t), pgstore.Config{})
			browser := a.signedIn(t, "alice")
			for _, late := range []bool{false, true} {
				b := browser.start(put("b"), wait, renew)
				s := browser.start(steps...)
				var token string
				if !late {
					token = b.finish()
					s.finish()
				} else {
					s.finish()
					token = b.finish()
				}
				a.expect(t, "the other request's", token, "nothing")
				a.expectLive(t, "alice", 0)
				browser = a.signedIn(t, "alice")
			}
		}
	})
}
