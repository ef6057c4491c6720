package pgstore_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// What scs never does: to commit under a token that was looked for in vain.
func TestCommitStoresATokenThatWasNotFound(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{})
	under(store, func(ctx context.Context) {
		if _, found, err := store.FindCtx(ctx, "token"); found || err != nil {
			t.Errorf("%t, %v", found, err)
		}
		if err := store.CommitCtx(ctx, "token", []byte("x"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if data, found, err := store.FindCtx(ctx, "token"); !found || err != nil || string(data) != "x" {
			t.Errorf("%q, %t, %v", data, found, err)
		}
		if err := store.CommitCtx(ctx, "token", []byte("y"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
	})
	if data, found, err := store.Find("token"); !found || err != nil || string(data) != "y" {
		t.Errorf("%q, %t, %v", data, found, err)
	}
}

// Whatever a request does with a token that was never stored, what it puts must be
// there afterwards.
func TestCommitLosesNothingOfATokenNeverStored(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string]func(a *app, r *http.Request) error{
		"renewed": func(a *app, r *http.Request) error { return a.sm.RenewToken(r.Context()) },
		"renewed twice": func(a *app, r *http.Request) error {
			_ = a.sm.RenewToken(r.Context())
			return a.sm.RenewToken(r.Context())
		},
		"destroyed": func(a *app, r *http.Request) error { return a.sm.Destroy(r.Context()) },
		"destroyed and renewed": func(a *app, r *http.Request) error {
			_ = a.sm.Destroy(r.Context())
			return a.sm.RenewToken(r.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
				a.mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
					if err := steps(a, r); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
						return
					}
					a.sm.Put(r.Context(), userKey, "alice")
					a.sm.Put(r.Context(), "cart", "tea")
				})
				b := a.browser(t)
				for range 2 { // the second time, there is a session
					b.must("/visit")
					if got := b.must("/me"); !strings.HasPrefix(got, "user=alice state=") || !strings.Contains(got, "cart") {
						t.Error(got)
					}
					if n, err := a.store.Count(t.Context(), "alice"); err != nil || n != 1 {
						t.Errorf("%d sessions, %v", n, err)
					}
				}
			})
		})
	}
}

func TestCommitInTheHandlerAndAgainMakesOneSession(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		a.mux.HandleFunc("/twice", func(_ http.ResponseWriter, r *http.Request) {
			for _, key := range []string{"a", "b"} {
				a.sm.Put(r.Context(), key, "v")
				a.sm.Put(r.Context(), userKey, "alice")
				if _, _, err := a.sm.Commit(r.Context()); err != nil {
					t.Error(err)
				}
			}
			a.sm.Put(r.Context(), "c", "v")
		})
		b := a.browser(t)
		b.must("/twice")
		b.must("/twice")
		if got := b.must("/me"); !strings.HasSuffix(got, "keys=a,b,c,userID") {
			t.Errorf("%s", got)
		}
		if n := live(t, a.pool, "alice"); n != 1 {
			t.Errorf("%d live sessions", n)
		}
	})
}

func TestUnencodableValueIsNamed(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.mux.HandleFunc("/unencodable", func(_ http.ResponseWriter, r *http.Request) { a.sm.Put(r.Context(), "callback", func() {}) })
	if status, body := a.browser(t).get("/unencodable"); status != http.StatusInternalServerError || !strings.Contains(body, `"callback"`) {
		t.Errorf("%d %s", status, body)
	}
}

// A process that stores sessions without saying whose they are would take them out of
// their users' lists.
func TestCommitRefusesACodecWithoutUserKeyBesideOneWith(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		other := newApp(t, a.pool, pgstore.Config{})
		other.sm.Codec = pgstore.Codec{}
		stranger := other.browser(t)
		stranger.setToken(b.token())
		if status, body := stranger.get("/put", "key", "k", "value", "v"); status != 500 || !strings.Contains(body, "UserKey") {
			t.Errorf("%d, %s", status, body)
		}
		if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil || b.user() != "" {
			t.Errorf("%d, %v", n, err)
		}
	})
}
