package pgstore

import (
	"context"
	"sync"
)

// userQueues admits the sign-ins and revocations of one user one at a time, before they
// take a connection. If they queued for the user's row lock in PostgreSQL instead, each
// would hold a connection, and fifty sign-ins of one user would drain the pool.
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
