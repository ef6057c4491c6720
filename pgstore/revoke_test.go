package pgstore_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestRevokeAllStopsTheSignInThatBeganBefore(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	finish := b.hold("after", "signin", "user", "alice")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if status, body := finish(); status != http.StatusConflict || body != pgstore.ErrEnded.Error() {
		t.Errorf("%d %s, want ErrEnded", status, body)
	}
	if n := live(t, a.pool, "alice"); n != 0 || b.user() != "" {
		t.Errorf("%d live sessions", n)
	}
}

// The same through scs alone, and on a token that stays.
func TestRevokeAllStopsAPutThatBeganBefore(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/put", "key", "cart", "value", "1")
	finish := b.hold("after", "put-user", "user", "alice")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if _, body := finish(); !strings.Contains(body, "state=ended reason=revoked") {
		t.Errorf("it was told %q", body)
	}
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d live sessions", n)
	}
}

// What a refused sign-in leaves in memory is not stored as a session of nobody's.
func TestRefusedSignInStoresNothingOfTheRevokedSession(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	b.must("/put", "key", "role", "value", "admin")
	finish := b.hold("after", "signin", "user", "alice")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if status, body := finish(); status != http.StatusConflict || body != pgstore.ErrEnded.Error() {
		t.Errorf("%d %s", status, body)
	}
	if got := b.must("/me"); !strings.HasSuffix(got, "keys=") {
		t.Error(got)
	}
}

// Whoever signs in once RevokeAll has returned gets in: if it was within the coarseness of one
// reading of the clock, with another try.
func TestSignInRightAfterRevokeAllSurvives(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	for i := range 150 {
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, fmt.Sprintf("round %d: a sign-in", i), func() bool {
			status, body := b.get("/login", "user", "alice")
			if status != http.StatusOK && body != pgstore.ErrEnded.Error() {
				t.Fatalf("round %d: %d %s", i, status, body)
			}
			return status == http.StatusOK
		})
	}
}

func TestRevokeAllExemptsItsOwnRequest(t *testing.T) {
	bothWays(t, revokeAllExemptsItsOwnRequest)
}

func revokeAllExemptsItsOwnRequest(t *testing.T, newApp newAppFunc) {
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
	a.mux.HandleFunc("/password", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("renew") == "before" {
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
		}
		n, err := a.store.RevokeAll(r.Context(), "alice")
		if err != nil {
			t.Error(err)
		}
		if err := a.store.SignIn(r.Context(), a.sm, "alice"); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, n)
	})
	for _, renew := range []string{"", "before"} {
		b, other := a.browser(t), a.browser(t)
		b.must("/login", "user", "alice")
		other.must("/login", "user", "alice")
		b.must("/password", "renew", renew)
		if b.user() != "alice" || other.user() != "" {
			t.Errorf("renew %q: the caller is %q, the other %q", renew, b.user(), other.user())
		}
	}
}

// A request may revoke its own session, and sign in again.
func TestSignInMayFollowARevocationOfItsOwnSession(t *testing.T) {
	bothWays(t, signInMayFollowARevocationOfItsOwnSession)
}

func signInMayFollowARevocationOfItsOwnSession(t *testing.T, newApp newAppFunc) {
	for _, by := range []string{"Revoke", "RevokeAll", "RevokeAll elsewhere"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
			a.mux.HandleFunc("/again", func(w http.ResponseWriter, r *http.Request) {
				var err error
				switch by {
				case "Revoke":
					_, err = a.store.Revoke(r.Context(), "alice", pgstore.IDOf(a.sm.Token(r.Context())))
				case "RevokeAll":
					_, err = a.store.RevokeAll(r.Context(), "alice")
				default:
					ctx, cancel := context.WithCancel(r.Context())
					_, err = a.store.RevokeAll(ctx, "alice")
					cancel()
				}
				if err == nil {
					err = a.store.SignIn(r.Context(), a.sm, "alice")
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
			})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			b.must("/again")
			if user := b.user(); user != "alice" {
				t.Errorf("user %q", user)
			}
		})
	}
}

func TestRevokeIsOfTheUsersOwnOnly(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	alice, bob := a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	id := pgstore.IDOf(bob.token())
	for _, no := range []string{id, "", "nonsense", strings.ToUpper(id), pgstore.IDOf("unknown")} {
		if ok, err := a.store.Revoke(t.Context(), "alice", no); ok || err != nil {
			t.Errorf("id %q: %t, %v", no, ok, err)
		}
	}
	if bob.user() != "bob" {
		t.Error("bob was signed out by alice")
	}
	if ok, err := a.store.Revoke(t.Context(), "bob", id); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if ok, err := a.store.Revoke(t.Context(), "bob", id); ok || err != nil {
		t.Errorf("twice: %t, %v", ok, err)
	}
}

// The id may have been renewed since the listing, once or more, or be about to be.
func TestRevokeFollowsARenewedID(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(browser *browser, revoke func()) (token string){
		"renewed once": func(browser *browser, revoke func()) string { token := browser.do(renew); revoke(); return token },
		"renewed twice": func(browser *browser, revoke func()) string {
			browser.do(renew)
			token := browser.do(renew)
			revoke()
			return token
		},
		"signed in again": func(browser *browser, revoke func()) string {
			token := browser.do(signIn("alice"))
			revoke()
			return token
		},
		"being renewed": func(browser *browser, revoke func()) string {
			s := browser.start(renew, wait)
			revoke()
			return s.finish()
		},
		"being renewed again": func(browser *browser, revoke func()) string {
			browser.do(renew)
			s := browser.start(renew, wait)
			revoke()
			return s.finish()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				browser := a.signedIn(t, "alice")
				list, err := a.store.Sessions(t.Context(), "alice")
				if err != nil || len(list) != 1 {
					t.Fatal(list, err)
				}
				token := run(browser, func() {
					if ok, err := a.store.Revoke(t.Context(), "alice", list[0].ID); !ok || err != nil {
						t.Errorf("Revoke: %t, %v", ok, err)
					}
				})
				a.expect(t, "the renewed token", token, "nothing")
				a.expectLive(t, "alice", 0)
			})
		})
	}
}

// It does not follow to another user's.
func TestRevokeDoesNotFollowToAnotherUser(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	browser := a.signedIn(t, "alice")
	id := pgstore.IDOf(browser.token())
	token := browser.do(signIn("bob"))
	for _, user := range []string{"alice", "bob", "carol"} {
		if ok, err := a.store.Revoke(t.Context(), user, id); ok || err != nil {
			t.Errorf("%s: %t, %v", user, ok, err)
		}
	}
	a.expect(t, "bob's", token, "bob:")
}

// Twice on "sign this device out", and in between its user has signed in there again.
func TestRevokeDoesNotFollowASessionThatHadEnded(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	id := pgstore.IDOf(b.token())
	finish := b.hold("after", "signin", "user", "alice")
	if ok, err := a.store.Revoke(t.Context(), "alice", id); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if status, body := finish(); status != http.StatusOK {
		t.Fatal(status, body)
	}
	if ok, err := a.store.Revoke(t.Context(), "alice", id); ok || err != nil {
		t.Error(ok, err)
	}
	if got := b.user(); got != "alice" {
		t.Errorf("signed in: %q", got)
	}
}
