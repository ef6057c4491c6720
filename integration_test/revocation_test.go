package integration_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

func TestRevokeAllStopsTheSignInThatBeganBefore(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
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
	a := newApp(t, migrated(t), pgstore.Config{}, true)
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

// Whoever signs in once RevokeAll has returned must get in, however soon.
func TestSignInRightAfterRevokeAllSurvives(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	b := a.browser(t)
	for i := range 150 {
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if status, body := b.get("/login", "user", "alice"); status != http.StatusOK {
			t.Fatalf("round %d: %d %s", i, status, body)
		}
	}
}

func TestRevokeAllExemptsItsOwnRequest(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2}, tracked)
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
	})
}

func TestRevokeOthersKeepsTheCaller(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		b, other, bob := a.browser(t), a.browser(t), a.browser(t)
		b.must("/login", "user", "alice")
		other.must("/login", "user", "alice")
		bob.must("/login", "user", "bob")
		if got := b.must("/revoke-others"); got != "1" {
			t.Errorf("%s revoked, want 1", got)
		}
		if b.user() != "alice" || other.user() != "" || bob.user() != "bob" {
			t.Errorf("caller %q, other %q, bob %q", b.user(), other.user(), bob.user())
		}
		// The kept session may be renewed by a request that began before.
		finish := b.hold("after", "renew")
		if _, err := a.store.RevokeOthers(t.Context(), "alice", b.token()); err != nil {
			t.Error(err)
		}
		finish()
		if b.user() != "alice" {
			t.Error("the renewal of the kept session was refused")
		}
	})
}

func TestRevokeOthersRefusesATokenThatIsNotTheUsers(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	alice, bob, anonymous := a.browser(t), a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	anonymous.must("/put", "key", "k", "value", "v")
	all, err := a.store.All()
	if err != nil {
		t.Fatal(err)
	}
	tokens := []string{"", "unknown", bob.token(), anonymous.token()}
	for standIn := range all {
		tokens = append(tokens, standIn)
	}
	for _, token := range tokens {
		if n, err := a.store.RevokeOthers(t.Context(), "alice", token); err == nil || n != 0 {
			t.Errorf("token %q: %d revoked, %v", token, n, err)
		} else if token != "" && strings.Contains(err.Error(), token) && token != "unknown" {
			t.Error("the error holds the token")
		}
	}
	if alice.user() != "alice" {
		t.Error("something was revoked")
	}
}

func TestRevokeIsOfTheUsersOwnOnly(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
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

// The account is deleted by a request of its own, which signs itself out first; another
// session has timed out, and not been swept.
func TestForgetFromTheUsersOwnRequest(t *testing.T) {
	t.Parallel()
	for _, signOut := range []string{"before", "after", "never"} {
		t.Run("signed out "+signOut, func(t *testing.T) {
			bothWays(t, func(t *testing.T, tracked bool) {
				a := newApp(t, migrated(t), pgstore.Config{}, tracked)
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
				mustExec(t, a.pool, `UPDATE scs_sessions SET expiry = now() - interval '10 minutes'`)
				b.must("/login", "user", "alice")
				b.must("/delete-account")
				for _, what := range []string{
					`SELECT count(*) FROM scs_sessions WHERE user_id IS NOT NULL`, `SELECT count(*) FROM scs_sessions WHERE data <> ''`,
					`SELECT count(*) FROM scs_user_sessions`, `SELECT count(*) FROM scs_users`,
				} {
					if n := query[int](t, a.pool, what); n != 0 {
						t.Errorf("%s: %d", what, n)
					}
				}
			})
		})
	}
}

func TestForgetLeavesNothingOfTheUser(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	a.browser(t).must("/login", "user", "alice")
	b.must("/renew")
	if n, err := a.store.Forget(t.Context(), "alice"); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n := query[int](t, a.pool, `SELECT (SELECT count(*) FROM scs_user_sessions) + (SELECT count(*) FROM scs_users)
		+ (SELECT count(*) FROM scs_sessions WHERE user_id IS NOT NULL AND end_reason <> 'renewed')`); n != 0 {
		t.Errorf("%d rows still name the user", n)
	}
	if got := b.must("/me"); !strings.Contains(got, "state=ended reason=revoked") {
		t.Errorf("its session: %s", got)
	}
}
