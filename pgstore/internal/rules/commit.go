// Package rules decides what becomes of a write or a sign-in: facts in, verdict out. It
// cannot reach the database; what it needs from there, its caller has read.
package rules

import (
	"time"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Way is how a commit goes on.
type Way int

const (
	Drop        Way = iota // the session is over
	DropRenewal            // the session that the new token would renew is over
	Keep                   // nothing has changed: at most a touch
	Update                 // if the row has changed since: Merge
	Merge
	Insert // of an anonymous session; if the row is there: SignIn
	SignIn // the sign-in transaction
)

// Commit holds the facts of a commit under Track.
type Commit struct {
	User string // "" while anonymous
	Data []byte

	Session     *request.Session // what the request knows of it; nil or Absent for a new token
	Predecessor *request.Session // the session that a new token for User continues, or nil
}

// Way returns how the commit goes on.
func (c Commit) Way() Way {
	s := c.Session
	switch {
	case s == nil || s.Phase == request.Absent: // scs would draw a new token; this one is as good
		if c.Predecessor != nil && !mayRenew(c.Predecessor, c.User) {
			return DropRenewal
		}
		if c.User == "" && c.Predecessor == nil {
			return Insert
		}
		return SignIn
	case s.Phase != request.Live:
		return Drop
	case s.User != c.User:
		return SignIn
	case frame.Same(s.Base, c.Data):
		return Keep
	case s.RowHoldsBase:
		return Update
	default:
		return Merge
	}
}

// mayRenew reports whether a new token for user may continue p. A renewal cannot: the
// session had already ended, or belonged to somebody else, when the request deleted it.
func mayRenew(p *request.Session, user string) bool {
	return p.User != user || p.WasAlive() && p.RowAtDelete.User == user
}

// TouchDue reports whether a session that has not changed is due for a touch: it has not
// been seen for after, or its expiry would move by as much. ttl is its time to live from
// now, 0 if its expiry stays.
func TouchDue(latest row.Stamp, age, ttl, after time.Duration) bool {
	unseen := latest.Now.Sub(latest.LastSeen) + age
	gain := ttl - (latest.Expiry.Sub(latest.Now) - age)
	return unseen >= after || gain >= after
}
