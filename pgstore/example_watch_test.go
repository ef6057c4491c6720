package pgstore_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/pgstore"
)

// streams has the open streams of each user, as channels that wake their handlers.
type streams struct {
	mu sync.Mutex
	of map[string]map[chan struct{}]bool
}

// run is for one goroutine a process.
func (s *streams) run(ctx context.Context, store *pgstore.Store) {
	for event, err := range store.Watch(ctx) {
		if err != nil {
			log.Print(err) // from now on there are the heartbeats alone
			return
		}
		s.wake(event)
	}
}

// wake wakes by user, not by session: the one of a stream may have been renewed since, and
// ended under its new id. Handlers look for themselves, so nothing is lost if they are slow.
func (s *streams) wake(event pgstore.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for user, open := range s.of {
		if !event.Gap && user != event.UserID {
			continue
		}
		for wake := range open {
			select {
			case wake <- struct{}{}:
			default: // it is about to look anyway
			}
		}
	}
}

func (s *streams) open(user string) (wake chan struct{}, closed func()) {
	wake = make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[string]map[chan struct{}]bool)
	}
	if s.of[user] == nil {
		s.of[user] = make(map[chan struct{}]bool)
	}
	s.of[user][wake] = true
	return wake, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.of[user], wake); len(s.of[user]) == 0 {
			delete(s.of, user)
		}
	}
}

// serve streams server-sent events until the session that the request came with has ended.
func (s *streams) serve(store *pgstore.Store, sm *scs.SessionManager, heartbeat time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		user := sm.GetString(ctx, "userID")
		if user == "" {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		wake, closed := s.open(user)
		defer closed()
		ticker := time.NewTicker(heartbeat) // a session that times out or is renewed wakes nobody
		defer ticker.Stop()
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			// It may have ended before the stream was open, so this comes first.
			if _, _, err := store.FindCtx(ctx, sm.Token(ctx)); err != nil {
				return // EventSource connects again
			}
			if st := store.StatusOf(ctx); st.State != pgstore.Active {
				// If it was renewed, EventSource connects again with the new cookie.
				fmt.Fprintf(w, "event: ended\ndata: %s %s\n\n", st.State, st.EndReason)
				return
			}
			fmt.Fprint(w, ": alive\n\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-wake:
			case <-ticker.C:
			}
		}
	}
}

// A stream of server-sent events that ends as soon as its user signs out, on this node or on
// another. A WebSocket's handler does the same.
func ExampleStore_Watch() {
	var store *pgstore.Store // with Config.Notify
	var sm *scs.SessionManager
	var streams streams

	ctx, stop := context.WithCancel(context.Background()) // until the server shuts down
	defer stop()
	go streams.run(ctx, store)

	http.HandleFunc("GET /events", streams.serve(store, sm, 30*time.Second))
}
