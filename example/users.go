package main

import "golang.org/x/crypto/bcrypt"

// user is somebody who may sign in. A real application keeps them in a table.
type user struct {
	Username string `json:"username"`
	Name     string `json:"name"`
	// Operator says that this user may see the figures of the whole store.
	Operator bool `json:"operator"`

	passwordHash []byte
}

// demoPasswords is what the demo tells you at its start. Nothing is checked
// against it: the hashes below were made from it with bcrypt.
var demoPasswords = []struct{ username, password string }{
	{"alice", "wonderland"},
	{"bob", "builder"},
	{"admin", "letmein"},
}

var users = map[string]user{
	"alice": {
		Username: "alice", Name: "Alice",
		passwordHash: []byte("$2a$10$kSyr5U2KjhdacLHLsBbjPuua895kEP43fWaMgAuY2h5pxkIQT78ay"),
	},
	"bob": {
		Username: "bob", Name: "Bob",
		passwordHash: []byte("$2a$10$2VK5B1nITDV2kNJ5FRz4IO/gFZ3r4M8/6by2Dlyj6EWozTZwNF8Qq"),
	},
	"admin": {
		Username: "admin", Name: "The operator", Operator: true,
		passwordHash: []byte("$2a$10$xXQ7x3GZe0x6SakDw9HtXeFFkVPM9Mralv.yj6rHnLbQ1lBe/tHNO"),
	},
}

// nobodysHash stands in for the hash of a user who does not exist: their sign-in
// takes as long as one with a wrong password, so that the time tells nobody which
// names are taken.
var nobodysHash = []byte("$2a$10$JKI7USRb7v5zTt9XNC9ogOSTxqpjtkKGQEIovrmLpwa3fO5Xox19u")

// authenticate returns the user with this name and password, if there is one.
func authenticate(username, password string) (user, bool) {
	u, exists := users[username]
	hash := nobodysHash
	if exists {
		hash = u.passwordHash
	}
	// bcrypt compares in constant time.
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	return u, exists && err == nil
}
