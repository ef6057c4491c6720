package request

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Phase is what a request may do with a session. Its zero value is Absent.
type Phase int

const (
	// Absent: the request has looked for it, in vain. A commit makes it a new session.
	Absent Phase = iota
	// Live: the request has found or stored it. A commit changes it.
	Live
	// Over: it ended or timed out, or a write to it was dropped. A commit is dropped, and so
	// is one of a new token for its user, unless SignIn makes it.
	Over
	// Closed: this request has signed it out. A commit is dropped; what follows is a new
	// session.
	Closed
	// Renewing: this request has renewed its token, or merged it into another session. A
	// commit is dropped; one of a new token continues it.
	Renewing
	// Continued: a new token of this request has taken over from it. A commit is dropped.
	Continued
)

// Session is what a request knows of one session. Which fields are set depends on the
// phase; those of the Stamp, User and TakenAt are in all phases but Absent.
type Session struct {
	ID    pgtype.UUID
	Phase Phase
	User  string
	row.Stamp
	TakenAt time.Time // when the Stamp was taken, by our monotonic clock

	// Reason says why it is over: "" while Live or Absent, or if the row is gone.
	Reason string

	// Base is the data that scs started from: as found, or as last committed. Changes
	// are told by comparing with it, and merged relative to it. It is nil if this
	// request has neither found nor stored the session.
	Base         []byte
	RowHoldsBase bool          // the row of this Version holds Base, and nothing merged in
	Window       time.Duration // from last-seen time to expiry, as found: the idle timeout
	Settled      bool          // scs has committed it, so it need not be touched at the request's end

	DeletedAt time.Time // while Renewing: when, by the database's clock, once the row was locked

	// What the client may be told of its cookie.
	New       bool // this request has made it: the client does not know its token yet
	Written   bool // the last commit has stored or touched it
	LeftAlone bool // while Closed: the sign-out came too late, a sign-in had replaced the session

	generation int // grows with each change
}

// Had reports whether the request has found or stored the session alive.
func (s *Session) Had() bool { return s.Base != nil }

// Left reports whether the request has left the session for what follows: renewed it, or
// ended it itself, if only too late.
func (s *Session) Left() bool { return s.Phase == Renewing || s.Phase == Closed }

// become is the one place where a phase changes.
func (s *Session) become(p Phase, reason string) { s.Phase, s.Reason = p, reason }

// end records a row that is over. If the row is alive, it belongs to another user by
// now: this request's own user was signed out of it.
func (s *Session) end(met row.Row) {
	reason := met.Over()
	if met.Alive() {
		reason = row.SignedOut
	}
	s.become(Over, reason)
	s.RowHoldsBase = s.RowHoldsBase && met.Version == s.Version
	s.stamp(met.Stamp)
}

// stamp records the state of the row as just read or written.
func (s *Session) stamp(latest row.Stamp) { s.Stamp, s.TakenAt = latest, time.Now() }

// is reports whether there is, or was, such a session.
func (s *Session) is() bool { return s.Phase == Live || s.Reason != "" }
