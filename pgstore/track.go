package pgstore

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/scspg/scspg/pgstore/internal/request"
)

// Track returns a handler that tells the store which calls belong to one request; the
// package comment lists what that adds. Mount it around LoadAndSave:
//
//	handler := store.Track(sm.LoadAndSave(mux))
//
// Mounted inside LoadAndSave it would not see the session being loaded. That mistake
// is logged once, and counted by Stat.Untracked. Mounting Track twice is harmless. When
// next has returned, Track may touch a session that the request used but did not commit.
//
// Of the response, Track changes Set-Cookie alone. scs sends a session's cookie whenever
// it has committed, and an answer that comes late would put back a token that a sign-in
// in another tab has replaced. So Track withholds the cookie of a session that the
// request knows, unless the session is alive and either new in this request or stored
// or touched by the last commit before the answer. An answer that changed nothing sets no
// cookie, and a persistent cookie is extended by the same answers as its session.
// Cache-Control and Vary stay as scs wrote them, so caches treat every answer alike.
//
// What scs adds to headers that have gone out is lost, as it is without Track. After a
// Flush before the first write, changes are stored, but the cookie of a session that is
// new or renewed does not reach the client: call WriteHeader before Flush. After an
// informational answer, such as 103 Early Hints, LoadAndSave neither stores changes nor
// sends a cookie: make the changes before it.
//
// Changes are told relative to the first load of a session in the request. A handler
// that goes on and loads a session again and again, with sm.Load for each message of a
// WebSocket for instance, serves each message through Track, or else with a context
// that does not come from Track.
func (s *Store) Track(next http.Handler) http.Handler {
	s.mounted.Store(true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer, _ := r.Context().Value(trackedKey{}).(*tracked)
		if outer.of(s) != nil {
			next.ServeHTTP(w, r)
			return
		}
		req := &tracked{store: s, outer: outer, http: r, began: time.Now()}
		ctx := context.WithValue(r.Context(), trackedKey{}, req)
		defer s.finish(ctx, req)
		req.answer.ResponseWriter, req.answer.cookies = w, req
		defer req.answer.filter()
		next.ServeHTTP(&req.answer, r.WithContext(ctx))
	})
}

type trackedKey struct{}

// tracked is a request under Track, and what the store knows of its sessions.
type tracked struct {
	request.Request
	store   *Store
	outer   *tracked // the same request to another store around the same handler
	http    *http.Request
	answer  answer
	began   time.Time // with a monotonic reading
	noTouch atomic.Bool
}

// of returns the state of the request for store s, or nil.
func (r *tracked) of(s *Store) *tracked {
	for ; r != nil; r = r.outer {
		if r.store == s {
			return r
		}
	}
	return nil
}

// requestOf returns the tracked request of ctx, or nil.
func (s *Store) requestOf(ctx context.Context) *tracked {
	req, _ := ctx.Value(trackedKey{}).(*tracked)
	return req.of(s)
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
	req, _ := ctx.Value(trackedKey{}).(*tracked)
	for ; req != nil; req = req.outer {
		req.noTouch.Store(true)
	}
	return context.WithValue(ctx, noTouchKey{}, true)
}

// mustNotTouch reports whether NoTouch has marked ctx or its request, which may be nil.
func mustNotTouch(ctx context.Context, req *tracked) bool {
	return ctx.Value(noTouchKey{}) != nil || req != nil && req.noTouch.Load()
}

// finish touches the sessions that the request used and scs did not commit. Without
// an idle timeout scs commits only changes, and last-seen times would stand still.
func (s *Store) finish(ctx context.Context, req *tracked) {
	if mustNotTouch(ctx, req) {
		return
	}
	for _, known := range req.Unsettled() {
		if err := s.touchIfDue(ctx, req, known, 0); err != nil {
			s.cfg.Logger.WarnContext(ctx, "pgstore: a session's last-seen time was not updated", "session", known.ID.String(), "error", err)
		}
	}
}

// calledIn is requestOf for scs's calls. It counts one past Track, and once says so, or what
// Track would add.
func (s *Store) calledIn(ctx context.Context) *tracked {
	if req := s.requestOf(ctx); req != nil || ctx == context.Background() {
		return req
	}
	s.count(func(c *Stat) { c.Untracked++ })
	switch mounted := s.mounted.Load(); {
	case mounted && ctx.Value(clientKey{}) == nil:
		s.noted.Do(func() {
			s.cfg.Logger.WarnContext(ctx, "pgstore: a session was used outside Track; mount it as store.Track(sm.LoadAndSave(mux)), "+
				"and give work outside HTTP a context from WithClient")
		})
	case !mounted && ctx.Value(http.ServerContextKey) != nil:
		s.noted.Do(func() {
			s.cfg.Logger.InfoContext(ctx, "pgstore: sessions are used without Track; store.Track(sm.LoadAndSave(mux)) saves the write of each "+
				"unchanged request, merges overlapping ones, keeps a session's age through RenewToken, and tells why sessions end")
		})
	}
	return nil
}
