package pgstore

import (
	"context"
	"iter"

	"github.com/scspg/scspg/pgstore/internal/db"
)

// Event is a session that has ended, or a gap.
type Event struct {
	ID     string    // see IDOf
	UserID string    // "" if nobody was signed in
	Reason EndReason // SignedOut, Revoked or Evicted; later releases may add others
	// Gap: sessions may have ended until now without an event. Look again at those that
	// matter. The other fields are empty.
	Gap bool
}

// maxUnread is how many payloads wait for a receiver that is slow. Each has up to 350
// sessions, about 6 kB.
const maxUnread = 512

// Watch returns an iterator over the sessions that end, on every node, as they end: those that
// are signed out, revoked or evicted through a Store with Config.Notify. Each is one Event,
// once the transaction that ended it has committed. There is none for a session that times
// out, as nothing runs at that moment, nor for one that is renewed, as it goes on under
// another id. So a handler that outlives its request should also look at its session every so
// often, with FindCtx and StatusOf.
//
// The first Event is a Gap: from here on ends are heard. Another one follows whenever the
// connection had to be made anew, which Watch does by itself, or if the loop body was so slow
// that some 500 ends were waiting for it, which are then left out. A connection that has
// silently died is noticed within twice Config.Timeout.
//
// The loop ends without an error once ctx ends. An error, the last thing that it yields, means
// that Watch could not begin, and that another attempt cannot mend it. Failures that may pass
// are logged to Config.Logger.
//
// While the loop runs it has a goroutine and a connection, which end with it. The connection
// is taken out of the pool: it is none of its MaxConns, and the pool's Close does not close
// it, so end ctx first. It must lead to the server itself (on Citus, to the coordinator that
// the nodes use), as LISTEN hears nothing through a pooler in transaction mode: that is an
// error. If the Store's pool leads through one, make a second Store for Watch alone, with the
// same Config.Schema, on a pool that does not. Watch is safe for concurrent use, but one
// a process suffices: have it wake whoever needs to know.
func (s *Store) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		unread := make(chan *db.Ended, maxUnread)
		var failed error
		go func() {
			defer close(unread)
			failed = s.db.Listen(ctx, s.listener(ctx, unread))
		}()
		defer func() {
			stop()
			for range unread { // until it is closed
			}
		}()
		for ended := range unread {
			for _, event := range events(ended) {
				if ctx.Err() != nil || !yield(event, nil) {
					return
				}
			}
		}
		if failed != nil {
			yield(Event{}, opError("watch sessions", failed))
		}
	}
}

// listener puts what it hears into unread, and nil for a gap. It never waits: else the server
// would have to keep what it cannot send, and once its queue is full, refuse to end sessions.
func (s *Store) listener(ctx context.Context, unread chan *db.Ended) db.Listener {
	put := func(ended *db.Ended) {
		select {
		case unread <- ended:
			return
		default:
		}
		s.cfg.Logger.WarnContext(ctx, "pgstore: the receiver of Watch is too slow; it misses sessions that end, and will be told so")
		for len(unread) > 0 {
			select {
			case <-unread:
			default: // the receiver was faster
			}
		}
		unread <- nil
	}
	return db.Listener{
		Gap:   func() { put(nil) },
		Ended: func(ended db.Ended) { put(&ended) },
		Broke: func(err error) {
			s.cfg.Logger.WarnContext(ctx, "pgstore: Watch has no connection; it tries again", "error", err)
		},
	}
}

// events returns what Watch yields.
func events(ended *db.Ended) []Event {
	if ended == nil {
		return []Event{{Gap: true}}
	}
	list := make([]Event, len(ended.IDs))
	for i, id := range ended.IDs {
		list[i] = Event{ID: id.String(), UserID: ended.User, Reason: EndReason(ended.Reason)}
	}
	return list
}

// announce announces the sessions that b ends, in the transaction that ends them. Which have
// really ended must be known before: so it sends b, and returns the batch to go on with.
// Without Config.Notify that is b. user, whose they were, is read once b is sent.
func (s *Store) announce(ctx context.Context, t *db.Tx, b *db.Batch, end db.Ending, user *string) (*db.Batch, error) {
	if !s.cfg.Notify {
		return b, nil
	}
	if err := t.Send(ctx, b); err != nil {
		return nil, err
	}
	b = t.Batch()
	b.Notify(db.Ended{IDs: *end.Ended, User: *user, Reason: end.Reason})
	return b, nil
}
