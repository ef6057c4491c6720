// Package rules decides what becomes of a write or a sign-in: facts in, verdict out. It
// cannot reach the database; what it needs from there, its caller has read.
package rules

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Way is how a commit goes on.
type Way int

const (
	Drop     Way = iota // the session is over
	DropWith            // so is the one that the user of a new token came from
	Keep                // nothing has changed: at most a touch
	Update              // if the row has changed since: Merge
	Merge
	Insert // of an anonymous session; if the row is there: SignIn
	SignIn // the sign-in transaction
)

// Commit holds what is known of a commit before anything is read.
type Commit struct {
	ID     pgtype.UUID
	User   string // "" while anonymous
	Keyed  bool   // the data says whose session it is, if only that it is nobody's
	Data   []byte
	TTL    time.Duration
	SignIn bool // Store.SignIn commits
	Unseen bool // the session must not be extended

	// Under Track.
	Session *request.Session // as the request has found or stored it; nil for a new token
	Left    []Left           // what the request has left for it
	HadOver *request.Session // a session of User that the request had alive, and that is over
}

// Continues returns the index in Left of the session that this one continues, -1 for none,
// and whether that is a renewal: the last one of the user that the request has renewed
// away, or else the last anonymous one. A session that keeps its user goes on as it is.
func (c *Commit) Continues() (i int, renewal bool) {
	i = -1
	if c.Session != nil && c.Session.User == c.User {
		return i, false
	}
	for n, l := range c.Left {
		switch {
		case l.Phase != request.Renewing:
		case l.User == c.User:
			i, renewal = n, !c.SignIn && l.Had()
		case l.User == "" && (i < 0 || c.Left[i].User == ""):
			i = n
		}
	}
	return i, renewal
}

// Way returns how the commit goes on.
func (c *Commit) Way() Way {
	_, renewal := c.Continues()
	switch s := c.Session; {
	case s != nil && s.Phase != request.Live:
		return Drop
	case s != nil && frame.Same(s.Base, c.Data) && (s.User == c.User || !c.Keyed):
		return Keep
	case s != nil && s.User == c.User && s.RowHoldsBase:
		return Update
	case s != nil && s.User == c.User:
		return Merge
	case c.User != "" && c.HadOver != nil && !renewal && !c.SignIn:
		return DropWith
	case s == nil && c.User == "" && len(c.Left) == 0:
		return Insert
	default:
		return SignIn
	}
}

// TouchDue reports whether a session that has not changed is due for a touch: it has not
// been seen for after, or its expiry would move by as much. age is how long ago the stamp
// was taken; ttl is the time to live from now, 0 if expiry stays.
func TouchDue(latest row.Stamp, age, ttl, after time.Duration) bool {
	now := latest.Now.Add(age)
	unseen, gain := now.Sub(latest.LastSeen), ttl-latest.Expiry.Sub(now)
	return unseen >= after || gain >= after
}
