package pgstore_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

func TestRevokeOthersKeepsTheCaller(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
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
	a := newApp(t, migrated(t), pgstore.Config{})
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
