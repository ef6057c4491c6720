package main

import (
	"maps"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// The users as the demo has them. Tests sign in by the hundred, also with the race
// detector, and so use cheaper hashes of the same passwords.
var (
	shippedUsers       = maps.Clone(users)
	shippedNobodysHash = nobodysHash
)

func init() {
	cheap := func(password string) []byte {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			panic(err)
		}
		return hash
	}
	for _, p := range demoPasswords {
		u := users[p.username]
		u.passwordHash = cheap(p.password)
		users[p.username] = u
	}
	nobodysHash = cheap("no password has this hash")
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	for _, p := range demoPasswords {
		if u, ok := authenticate(p.username, p.password); !ok || u.Username != p.username {
			t.Errorf("authenticate(%s, %s) = %+v, %t, want that user", p.username, p.password, u, ok)
		}
	}
	for _, p := range []struct{ username, password string }{
		{"alice", "builder"}, {"alice", ""}, {"alice", "wonderland "}, {"Alice", "wonderland"},
		{"", ""}, {"nobody", "wonderland"}, {"nobody", "no password has this hash"},
	} {
		if u, ok := authenticate(p.username, p.password); ok {
			t.Errorf("authenticate(%q, %q) = %+v, want nobody", p.username, p.password, u)
		}
	}
}

func TestShippedHashes(t *testing.T) {
	t.Parallel()
	if len(shippedUsers) != len(demoPasswords) {
		t.Errorf("%d users, %d of them announced", len(shippedUsers), len(demoPasswords))
	}
	// An unknown user must cost what a known one costs.
	want, err := bcrypt.Cost(shippedNobodysHash)
	if err != nil || want < bcrypt.DefaultCost {
		t.Fatalf("the cost of nobody's hash is %d, %v", want, err)
	}
	for _, p := range demoPasswords {
		hash := shippedUsers[p.username].passwordHash
		if err := bcrypt.CompareHashAndPassword(hash, []byte(p.password)); err != nil {
			t.Errorf("%s: %v", p.username, err)
		}
		if got, err := bcrypt.Cost(hash); err != nil || got != want {
			t.Errorf("%s: cost %d, %v, want %d", p.username, got, err, want)
		}
	}
}
