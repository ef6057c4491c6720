// Package request holds what one HTTP request knows of its sessions: each is in one
// phase, and every event that changes a phase is a method of Request.
//
//	event                  Absent    Live       Over    Closed  Renewing   Continued
//	Found, alive           Live      -          -       -       -          -
//	Found, over            Over      Over       -       -       -          -
//	Stored                 Live      Live       -       -       -          -
//	Stored, having left it -         -          -       -       Continued  -
//	Lost, LostWith         Over      Over       -       -       -          -
//	Renewed                Renewing  Renewing   *       -       -          -
//	SignedOut              -         Closed     Closed  Closed  Closed     Closed
//	Revoked                -         Over       -       -       Over       -
//
// One that the request has not looked for is as if Absent, but SignedOut makes it Closed. (It is
// Renewing or Closed only if Delete finds it.) A live one that the database no longer has is Over.
package request

import (
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Request is what one request knows. Its zero value knows nothing. Calls may overlap:
// they take copies of sessions, and report events when the database has answered.
type Request struct {
	Fences
	mu       sync.Mutex
	sessions []Session
	current  int        // index of the session that Current returns
	first    [1]Session // backs sessions in the usual case, which saves an allocation
}

// Session returns a copy of what is known of a session.
func (r *Request) Session(id pgtype.UUID) (Session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.find(id); s != nil {
		return *s, true
	}
	return Session{}, false
}

// Current returns a copy of the session that the request came with or, once that is
// over, the one that has replaced it.
func (r *Request) Current() (Session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) == 0 {
		return Session{}, false
	}
	return r.sessions[r.current], true
}

// Unsettled returns copies of the sessions that the request used and did not commit.
func (r *Request) Unsettled() []Session {
	return r.list(func(s *Session) bool { return s.Phase == Live && !s.Settled })
}

func (r *Request) list(want func(*Session) bool) (list []Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sessions {
		if want(&r.sessions[i]) {
			list = append(list, r.sessions[i])
		}
	}
	return list
}

// Left returns copies of the sessions that the request has left for what follows, in the
// order in which it has come across them.
func (r *Request) Left() (list []Session) { return r.list((*Session).Left) }

// Renewing returns copies of the sessions that others were renewing, or had renewed, when
// the request looked for them.
func (r *Request) Renewing() (list []Session) {
	return r.list(func(s *Session) bool { return s.Phase == Over && !s.Had() && s.Reason == row.Renewed })
}

// HadOver returns the last session of user that the request had alive and that is over, but
// for its own sign-out, or nil.
func (r *Request) HadOver(user string) *Session {
	over := r.list(func(s *Session) bool { return s.Phase == Over && s.Had() && s.User == user })
	if len(over) == 0 {
		return nil
	}
	return &over[len(over)-1]
}

// find returns the session for a change under the lock, or nil.
func (r *Request) find(id pgtype.UUID) *Session {
	for i := range r.sessions {
		if r.sessions[i].ID == id {
			return &r.sessions[i]
		}
	}
	return nil
}

// change is find for a session that is about to change.
func (r *Request) change(id pgtype.UUID) *Session {
	s := r.find(id)
	if s == nil {
		if r.sessions == nil {
			r.sessions = r.first[:0]
		}
		r.sessions = append(r.sessions, Session{ID: id})
		s = &r.sessions[len(r.sessions)-1]
	}
	s.generation++
	return s
}

// succeed makes s, which has just begun, the current session if the current one is no
// longer alive: s has replaced it.
func (r *Request) succeed(s *Session) {
	if s.generation == 1 && s.is() && r.sessions[r.current].Phase != Live {
		r.current = len(r.sessions) - 1
	}
}

// Found records a read. Data that changes are told against is that of the first read:
// later ones do not reach scs's memory of the session. A live row that is not readable
// counts as absent.
func (r *Request) Found(id pgtype.UUID, from row.Row, readable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.find(id); s != nil && s.Phase != Absent {
		r.met(s, from)
		return
	}
	s := r.change(id)
	s.User = from.User
	s.stamp(from.Stamp)
	switch {
	case from.Alive() && readable:
		s.become(Live, "")
		s.Base, s.RowHoldsBase, s.Window = from.Data, true, from.Expiry.Sub(from.LastSeen)
	case from.Present && !from.Alive():
		s.become(Over, from.Over())
	}
	// Current is the session that the request came with. One that it loads besides says
	// nothing of that.
	if !r.sessions[r.current].is() {
		r.current = slices.IndexFunc(r.sessions, func(s Session) bool { return s.ID == id })
	}
}

func (r *Request) met(s *Session, met row.Row) {
	switch {
	case s.Phase != Live:
	case !met.Alive():
		s.generation++
		s.end(met)
	case met.User == s.User:
		version := s.Version // that of Base
		s.stamp(met.Stamp)
		s.Version = version
	}
}

// Stored records a commit of base. The row has the stamp latest, and holds just base
// unless changes of others were merged in. It continues what the request had left.
func (r *Request) Stored(id pgtype.UUID, user string, base []byte, latest row.Stamp, rowHoldsBase bool, left []Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range left {
		if s := r.find(l.ID); s.Phase == Renewing {
			s.generation++
			s.become(Continued, row.Renewed)
		}
	}
	s := r.change(id)
	if s.Phase != Live && s.Phase != Absent {
		return // it was ended beside this commit
	}
	s.become(Live, "")
	s.stamp(latest)
	s.User, s.Base, s.RowHoldsBase, s.Settled = user, base, rowHoldsBase, true
	s.New, s.Written = s.New || s.generation == 1, true
	r.succeed(s)
}

// Lost records that a commit was dropped for what it met.
func (r *Request) Lost(id pgtype.UUID, met row.Row) {
	r.lose(id, func(s *Session) { s.end(met) })
}

// LostWith records that a commit of a new token was dropped, because the session that
// its user came from is over.
func (r *Request) LostWith(id pgtype.UUID, over Session) {
	r.lose(id, func(s *Session) {
		s.User, s.Stamp, s.TakenAt = over.User, over.Stamp, over.TakenAt
		s.become(Over, over.Reason)
	})
}

func (r *Request) lose(id pgtype.UUID, end func(*Session)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.change(id); s.Phase == Live || s.Phase == Absent {
		end(s)
		r.succeed(s)
	}
}

// Touched records that a touch of known, a copy, has left the row with the stamp latest. It
// does nothing if the session has changed since the copy was taken: the result of a touch
// must not overwrite what the request has done meanwhile.
func (r *Request) Touched(known Session, latest row.Stamp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.find(known.ID); s != nil && s.generation == known.generation {
		s.generation++
		s.stamp(latest)
		s.Settled, s.Written = true, true
	}
}

// NotTouched records that known, a copy, needed no touch; the row has this version. It does
// nothing if the session has changed since the copy was taken.
func (r *Request) NotTouched(known Session, version int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.find(known.ID); s != nil && s.generation == known.generation {
		s.RowHoldsBase = s.RowHoldsBase && version == s.Version
		s.Settled = true
	}
}

// Renewed records that Delete was called for the session so that it be continued under a
// new token, and what it left.
func (r *Request) Renewed(id pgtype.UUID, left row.Row, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(id)
	switch unknown := s == nil || s.Phase == Absent; {
	case unknown && left.Present: // else it was never stored
	case !unknown && (s.Phase == Live || s.Phase == Over && s.Had()): // the commit meets what others have made of it
	default:
		return // nothing of it goes on
	}
	s = r.change(id)
	if !s.Had() {
		s.User, s.Version = left.User, left.Version
	}
	version := s.Version // that of Base, not that of the row
	s.stamp(left.Stamp)
	s.Version, s.DeletedAt = version, at
	s.become(Renewing, left.Over())
	r.succeed(s)
}

// SignedOut records that this request has ended the session by Delete, and what it left;
// replaced says that a sign-in had replaced the session, which is then left alone.
func (r *Request) SignedOut(id pgtype.UUID, left row.Row, replaced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(id)
	if s == nil && !left.Present || s != nil && s.Phase == Absent {
		return
	}
	s = r.change(id)
	if !s.Had() {
		s.User = left.User
	}
	s.stamp(left.Stamp)
	s.become(Closed, left.Over())
	s.LeftAlone = replaced
	r.succeed(s)
}

// Revoked records that this request has ended sessions of user itself: those for which
// ended returns true. Only SignIn makes that user's what follows.
func (r *Request) Revoked(user string, ended func(*Session) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sessions {
		if s := &r.sessions[i]; s.User == user && (s.Phase == Live || s.Phase == Renewing) && ended(s) {
			s.generation++
			s.become(Over, row.Revoked)
		}
	}
}
