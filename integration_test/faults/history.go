// Package faults breaks what is under the store, and compares what an app's users then see
// with what they had been told: make faults.
package faults

import (
	"sync"
	"time"
)

// kind is what a request asks for.
type kind string

const (
	signIn  kind = "sign-in"
	put     kind = "put"
	get     kind = "get"
	renew   kind = "renewal"
	revoke  kind = "revocation of the others"
	signOut kind = "sign-out"
	probe   kind = "probe" // a get with a token that is over
)

// outcome is what a request was told.
type outcome int

const (
	failed outcome = iota // an error, or no answer: it may have been done, now or later
	acked
	denied // the session is not signed in; for a sign-in: refused, nobody is signed in
)

// event is a request and its answer.
type event struct {
	kind       kind
	outcome    outcome
	session    int // counts sign-ins, answered or not: a renewal stays in its session
	user       string
	start, end time.Time

	sent  string // the token that the request bore
	token string // of an acknowledged sign-in or renewal: the one it was given
	key   string // of a put
	value string // of a put
	// Of an acknowledged get: what the session holds.
	seenUser string
	seen     map[string]string
	reason   string // if denied: why, as the store says
}

// history is what all clients have asked and been told. It is safe for concurrent use.
type history struct {
	mu       sync.Mutex
	events   []event
	sessions int
}

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// newSession numbers a sign-in.
func (h *history) newSession() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions++
	return h.sessions
}

// all returns the events so far.
func (h *history) all() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]event(nil), h.events...)
}

// failures counts the requests that failed.
func (h *history) failures() (n int) {
	for _, e := range h.all() {
		if e.outcome == failed {
			n++
		}
	}
	return n
}

// row is a session as the table has it in the end.
type row struct {
	id     string
	user   string
	alive  bool
	reason string // why it has ended
}
