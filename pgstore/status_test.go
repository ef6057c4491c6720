package pgstore_test

import (
	"bufio"
	"fmt"
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

// A handler that streams asks again, as the package comment says: what FindCtx tells it,
// StatusOf does, too.
func TestStatusOfInAStreamSaysWhatFindSays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(t *testing.T, a *app, b *browser)
		want string
	}{
		"nothing happened": {func(*testing.T, *app, *browser) {}, "true active "},
		"written":          {func(_ *testing.T, _ *app, b *browser) { b.do(put("k")) }, "true active "},
		"signed out":       {func(_ *testing.T, _ *app, b *browser) { b.do(destroy) }, "false ended signed_out"},
		"renewed":          {func(_ *testing.T, _ *app, b *browser) { b.do(renew) }, "false ended renewed"},
		"being renewed": {func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET end_reason = 'renewed'`)
		}, "false ended renewed"},
		"signed in again": {func(_ *testing.T, _ *app, b *browser) { b.do(signIn("alice")) }, "false ended renewed"},
		"bob signed in":   {func(_ *testing.T, _ *app, b *browser) { b.do(signIn("bob")) }, "false ended signed_out"},
		"revoked": {func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		}, "false ended revoked"},
		"forgotten": {func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		}, "false ended revoked"},
		"evicted": {func(t *testing.T, a *app, _ *browser) { a.browser(t).do(signIn("alice")) }, "false ended evicted"},
		"timed out": {func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		}, "false expired "},
		"swept": {func(t *testing.T, a *app, _ *browser) { pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`) }, "false none "},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
				a.mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
					for range 2 {
						_, found, err := a.store.FindCtx(r.Context(), a.sm.Token(r.Context()))
						if err != nil {
							t.Error(err)
						}
						st := a.store.StatusOf(r.Context())
						fmt.Fprintf(w, "%t %s %s\n", found, st.State, st.EndReason)
						if err := http.NewResponseController(w).Flush(); err != nil {
							t.Error(err)
						}
						<-a.proceed
					}
				})
				b := a.signedIn(t, "alice")
				resp, err := b.Get(a.URL + "/stream")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				lines := bufio.NewScanner(resp.Body)
				for i, want := range []string{"true active ", tt.want} {
					if !lines.Scan() || lines.Text() != want {
						t.Errorf("%q, want %q", lines.Text(), want)
					}
					if i == 0 {
						tt.end(t, a, b)
					}
					a.proceed <- struct{}{}
				}
			})
		})
	}
}
