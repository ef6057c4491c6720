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

// Track returns a handler that tells the store which calls belong to one request; the
// package comment lists what that adds. Mount it around LoadAndSave:
//
//	handler := store.Track(sm.LoadAndSave(mux))
//
// Mounted inside LoadAndSave it would not see the session being loaded. That mistake
// is logged once, and counted by Stat.Untracked. Mounting Track twice is harmless. It
// does not change the response. When next has returned, Track may touch a session
// that the request used but did not commit.
//
// Changes are told relative to the first load of a session in the request. A handler
// that goes on and loads a session again and again, with sm.Load for each message of a
// WebSocket for instance, serves each message through Track, or else with a context
// that does not come from Track.
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

// NoTouch marks a request that must not extend its session, such as a poll. Its
// expiry and last-seen time stay as they are; data that it changes is stored, without
// moving expiry forward.
//
// Under Track it marks the request itself, so a handler may ignore the returned
// context. Without Track only commits with the returned context are marked: a handler
// inside LoadAndSave comes too late for that.
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
	http    *http.Request // nil without Track
	began   time.Time     // when Track saw it, with a monotonic reading; zero without Track
	noTouch atomic.Bool

	mu       sync.Mutex
	sessions []entry
	current  int      // index of the session that StatusOf reports
	fences   []fence  // those that this request has set
	first    [1]entry // backs sessions in the usual case, which saves an allocation
}

// entry is what a request knows of one session.
type entry struct {
	id     pgtype.UUID
	turn   int // grows with each put; see putIfUnchanged
	state  State
	reason EndReason
	user   string
	stamp
	at time.Time // when stamp was taken, monotonic

	loaded bool // this request has found or stored it, so base is set
	saved  bool // scs has committed it, so finish need not touch it
	// base is the data that scs started from: as found, or as last committed. Changes
	// are told by comparing with it, and merged relative to it.
	base   []byte
	exact  bool          // the row at stamp.version holds base, and nothing merged in
	window time.Duration // from last-seen time to expiry, as found: the idle timeout

	// Set by Delete. scs renews a token by Delete and then Commit of another: while
	// pending, a commit of a new token continues this session.
	pending   bool
	took      row       // the row that Delete found, before ending it
	deletedAt time.Time // by the database's clock, once the row was locked
	created   time.Time // when its user signed in; zero if unknown
	// revokedHere: this request revoked it, so that to sign in again is no renewal.
	revokedHere bool
}

// absent reports whether all that the request has done is to look for the session, in
// vain.
func (e *entry) absent() bool { return e.state == None && !e.loaded && !e.pending }

// fence is a fence that this request has set, and that its own sign-ins may pass.
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

// put stores e. A session that is new to the request becomes the current one if the
// current one is no longer alive: it has replaced it.
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

// putIfUnchanged stores e unless another put has come since the copy was taken: the
// result of a touch must not overwrite what the request has done meanwhile.
func (r *request) putIfUnchanged(e entry) {
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

// predecessor returns the session that a new token for user continues, or nil: the
// last session of that user that this request has deleted, or else the last
// anonymous one.
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

// markRenewed records that a new token has taken over from the session id.
func (r *request) markRenewed(id pgtype.UUID) {
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
	if known && e.pending && e.took.state() == Active && took.reason == SignedOut {
		return // once more: it was this request that signed it out
	}
	if !known {
		e = entry{id: id, user: took.user, stamp: took.stamp}
	}
	e.created = created
	loaded := e.version // that of base, which merged compares with took.version
	e.stamp, e.at = took.stamp, time.Now()
	e.version = loaded
	if ended {
		e.state, e.reason = Ended, SignedOut
	} else {
		e.state, e.reason = took.state(), took.reason
	}
	// A token that was never stored leaves nothing to continue. Neither does a session
	// that this request has revoked: signing in again starts a new one.
	e.pending = (took.present || e.loaded) && !e.revokedHere && !(took.reason == Revoked && r.hasFenced(took.user))
	e.took, e.deletedAt = took, at
	r.put(e)
}

// met records that a session was found to be over, for StatusOf.
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

// forgot records that this request has called Forget for user: a sign-in from now on
// continues nothing.
func (r *request) forgot(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sessions {
		if r.sessions[i].user == user {
			r.sessions[i].pending = false
		}
	}
}

// finish touches the sessions that the request used and scs did not commit. Without
// an idle timeout scs commits only changes, and last-seen times would stand still.
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
