package pgstore

import (
	"context"
	"sync"
)

// userQueues lets the transactions of one user in one after the other, before they
// take a connection: waiting for the user's row inside PostgreSQL, they would hold
// one each, and fifty sign-ins of one user would starve everybody else.
type userQueues struct {
	mu    sync.Mutex
	users map[string]*userQueue
}

type userQueue struct {
	turn   chan struct{} // holds one element while somebody's turn is on
	inside int           // those waiting and the one whose turn it is, under mu
}

// enter waits for the turn. leave must be called exactly once if err is nil.
func (q *userQueues) enter(ctx context.Context, user string) (leave func(), err error) {
	q.mu.Lock()
	if q.users == nil {
		q.users = make(map[string]*userQueue)
	}
	uq := q.users[user]
	if uq == nil {
		uq = &userQueue{turn: make(chan struct{}, 1)}
		q.users[user] = uq
	}
	uq.inside++
	q.mu.Unlock()

	select {
	case uq.turn <- struct{}{}:
		return func() { <-uq.turn; q.exit(user, uq) }, nil
	case <-ctx.Done():
		q.exit(user, uq)
		return nil, ctx.Err()
	}
}

func (q *userQueues) exit(user string, uq *userQueue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if uq.inside--; uq.inside == 0 {
		delete(q.users, user)
	}
}
