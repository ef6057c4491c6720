package pgstore

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Track returns a handler that lets the store know which calls belong to one
// request; the package comment lists what that adds. Mount it around LoadAndSave:
//
//	handler := store.Track(sm.LoadAndSave(mux))
//
// Inside LoadAndSave it would come too late to see the session being loaded: that is
// logged once, and counted by Stat.Untracked. It does not touch the response, and
// is safe for concurrent use. Mounting it twice is harmless.
func (s *Store) Track(next http.Handler) http.Handler {
	s.mounted.Store(true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer, _ := r.Context().Value(requestKey{}).(*request)
		if outer.of(s) != nil {
			next.ServeHTTP(w, r)
			return
		}
		req := &request{store: s, outer: outer, http: r, began: time.Now()}
		req.sessions = req.first[:0]
		ctx := context.WithValue(r.Context(), requestKey{}, req)
		defer s.finish(ctx, req)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

type noTouchKey struct{}

// NoTouch marks a request that must not extend its session, such as a poll: expiry
// and last-seen time stay, and data that it changes is stored without moving expiry
// forward. Under Track the request itself is marked, so the returned context need
// not reach LoadAndSave; elsewhere only commits with the returned context are.
func NoTouch(ctx context.Context) context.Context {
	req, _ := ctx.Value(requestKey{}).(*request)
	for ; req != nil; req = req.outer {
		req.noTouch.Store(true)
	}
	return context.WithValue(ctx, noTouchKey{}, true)
}

type requestKey struct{}

// request is what the store knows of one request. Calls for it may overlap: they
// take copies of entries, and put them back when the database has answered.
type request struct {
	store   *Store
	outer   *request      // the request to another store around the same handler
	http    *http.Request // nil without Track, see plainRequests
	began   time.Time     // with its monotonic reading; zero without Track
	noTouch atomic.Bool

	mu       sync.Mutex
	sessions []entry
	current  int // of sessions: the one StatusOf speaks of
	fences   []fence
	first    [1]entry // room for the usual one
}

// entry is what a request knows of one session.
type entry struct {
	id     pgtype.UUID
	turn   int // counts the puts
	state  State
	reason EndReason
	user   string
	stamp
	at time.Time // when stamp was taken, monotonic

	loaded bool          // found or stored by this request
	saved  bool          // committed by it since
	base   []byte        // what scs holds: as found, or as last committed
	exact  bool          // whether the row holds just that at stamp.version
	window time.Duration // between last-seen time and expiry, as found

	// Set by Delete, until a commit turns it into a renewal.
	pending   bool
	took      row       // the row that was ended, or met ended
	deletedAt time.Time // by the database's clock, once the row was locked
	created   time.Time // when its user had signed in; zero where unknown
	// revoked by this very request: signing in again is not a renewal.
	revokedHere bool
}

// fence is one that this request has set for a user, and is exempt from.
type fence struct {
	user string
	at   time.Time
}

// of returns the state of the request for store s.
func (r *request) of(s *Store) *request {
	for ; r != nil; r = r.outer {
		if r.store == s {
			return r
		}
	}
	return nil
}

// requestOf returns the tracked request of ctx, or nil.
func (s *Store) requestOf(ctx context.Context) *request {
	req, _ := ctx.Value(requestKey{}).(*request)
	return req.of(s)
}

// entry returns a copy of what is known of a session.
func (r *request) entry(id pgtype.UUID) (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(id); i >= 0 {
		return r.sessions[i], true
	}
	return entry{}, false
}

func (r *request) find(id pgtype.UUID) int {
	for i := range r.sessions {
		if r.sessions[i].id == id {
			return i
		}
	}
	return -1
}

// put stores e. A session that is new to the request becomes the current one if
// the current one is over: it is its successor.
func (r *request) put(e entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(e.id); i >= 0 {
		e.turn = r.sessions[i].turn + 1
		r.sessions[i] = e
		return
	}
	r.sessions = append(r.sessions, e)
	if r.sessions[r.current].state != Active && e.state != None {
		r.current = len(r.sessions) - 1
	}
}

// putUnless stores e unless it was changed since the copy was taken: what a touch has
// learned must not undo what the request, which may go on meanwhile, has done.
func (r *request) putUnless(e entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(e.id); i >= 0 && r.sessions[i].turn == e.turn {
		r.sessions[i] = e
	}
}

// status returns a copy of the current session.
func (r *request) status() (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) == 0 {
		return entry{}, false
	}
	return r.sessions[r.current], true
}

// predecessor returns the session that a new token for user renews: the last one of
// the same user that this request has deleted, or else an anonymous one.
func (r *request) predecessor(user string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var anonymous *entry
	for _, e := range slices.Backward(r.sessions) {
		switch {
		case e.pending && e.user == user:
			return &e
		case e.pending && e.user == "" && anonymous == nil:
			anonymous = &e
		}
	}
	return anonymous
}

// settle marks a predecessor as renewed.
func (r *request) settle(id pgtype.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(id); i >= 0 {
		r.sessions[i].pending = false
		r.sessions[i].reason = Renewed
	}
}

// deleted records what Delete met.
func (r *request) deleted(id pgtype.UUID, took row, ended bool, at, created time.Time) {
	e, known := r.entry(id)
	if !known {
		e = entry{id: id, user: took.user, stamp: took.stamp}
	}
	e.created = created
	found := e.version // what base is compared by
	e.stamp, e.at = took.stamp, time.Now()
	e.version = found
	if ended {
		e.state, e.reason = Ended, SignedOut
	} else {
		e.state, e.reason = took.state(), took.reason
	}
	// There is nothing to continue in a token that was never stored, and what this
	// request has revoked itself is over: it may sign in anew.
	e.pending = (took.present || e.loaded) && !e.revokedHere && !(took.reason == Revoked && r.hasFenced(took.user))
	e.took, e.deletedAt = took, at
	r.put(e)
}

// met records that a session turned out to be over, so that StatusOf tells.
func (r *request) met(id pgtype.UUID, found row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(id); i >= 0 && r.sessions[i].state == Active && found.state() != Active {
		r.sessions[i].stamp, r.sessions[i].at = found.stamp, time.Now()
		r.sessions[i].state, r.sessions[i].reason = found.state(), found.reason
	}
}

// revoked records that this request has ended sessions of user itself.
func (r *request) revoked(user string, gone func(pgtype.UUID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sessions {
		if e := &r.sessions[i]; e.user == user && e.state == Active && gone(e.id) {
			e.state, e.reason, e.revokedHere = Ended, Revoked, true
		}
	}
}

// forgot records that this request has removed what there was of user: what it signs in
// from now on is new.
func (r *request) forgot(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sessions {
		if r.sessions[i].user == user {
			r.sessions[i].pending = false
		}
	}
}

// finish touches what the request used but scs had no reason to commit: without an
// idle timeout, last-seen times would stand still.
func (s *Store) finish(ctx context.Context, req *request) {
	req.mu.Lock()
	sessions := append([]entry(nil), req.sessions...)
	req.mu.Unlock()
	for _, e := range sessions {
		if !e.loaded || e.saved || e.state != Active || req.noTouch.Load() || ctx.Value(noTouchKey{}) != nil {
			continue
		}
		if err := s.touchIfDue(ctx, req, e, 0); err != nil {
			s.cfg.Logger.WarnContext(ctx, "pgstore: a session's last-seen time was not updated", "session", e.id.String(), "error", err)
		}
	}
}
