package db

import (
	"context"
	"sync"
)

// Turns lets the sign-ins and revocations of one user in one at a time, before they take
// a connection. If they queued for the user's row lock in PostgreSQL instead, each would
// hold a connection, and fifty sign-ins of one user would drain the pool. The zero value
// is ready for use.
type Turns struct {
	mu    sync.Mutex
	users map[string]*userTurns
}

type userTurns struct {
	turn   chan struct{} // holds one element while somebody's turn is on
	inside int           // those waiting and the one whose turn it is, under mu
}

// Enter waits for the user's turn. leave must be called exactly once if err is nil.
func (t *Turns) Enter(ctx context.Context, user string) (leave func(), err error) {
	t.mu.Lock()
	if t.users == nil {
		t.users = make(map[string]*userTurns)
	}
	u := t.users[user]
	if u == nil {
		u = &userTurns{turn: make(chan struct{}, 1)}
		t.users[user] = u
	}
	u.inside++
	t.mu.Unlock()

	select {
	case u.turn <- struct{}{}:
		return func() { <-u.turn; t.exit(user, u) }, nil
	case <-ctx.Done():
		t.exit(user, u)
		return nil, ctx.Err()
	}
}

func (t *Turns) exit(user string, u *userTurns) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.inside--; u.inside == 0 {
		delete(t.users, user)
	}
}
