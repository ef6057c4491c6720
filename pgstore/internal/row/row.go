// Package row holds what is known of a session as it is stored. It is what the rooms
// of pgstore tell each other about a session: values only.
package row

import (
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Why a session is over, as the column end_reason has it.
const (
	SignedOut = "signed_out"
	Revoked   = "revoked"
	Evicted   = "evicted"
	Renewed   = "renewed"
	// TimedOut: a sign-in or a revocation met it past its expiry. A session that has
	// expired and that nobody has met is over for this reason, too.
	TimedOut = "timed_out"
)

// Forever stands for an expiry of infinity, which somebody has set by hand. It is past what
// any session's deadline can be.
var Forever = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Stamp is the state of a row right after a read or a write. Its times are by the
// database's clock.
type Stamp struct {
	Version  int64
	Expiry   time.Time
	LastSeen time.Time
	Now      time.Time // when the row was read or written
}

// Row is a session as stored. The zero value stands for a row that is not there.
type Row struct {
	Stamp
	Present   bool
	Data      []byte
	User      string // "" while anonymous
	EndReason string // "" unless the session was ended
	// Unreadable: why the data, which is sealed, is missing here.
	Unreadable error
}

// Alive reports whether the session is found by its token.
func (r *Row) Alive() bool { return r.Present && r.Over() == "" }

// Over returns why the session is over, "" if it is alive or not there.
func (r *Row) Over() string {
	switch {
	case r.EndReason != "" || !r.Present:
		return r.EndReason
	case !r.Expiry.After(r.Now):
		return TimedOut
	default:
		return ""
	}
}

// Pending reports whether the session was renewed and has no successor yet. Its data is
// what it was.
func (r *Row) Pending() bool { return r.EndReason == Renewed && r.Version != linked }

// linked is the version of a row whose data is a link; those of data begin with 1.
const linked = 0

// Link is what takes the place of the data once another session goes on in its stead.
type Link struct {
	SignIn bool // a sign-in made it, not a renewal
	To     pgtype.UUID
}

// MaxHops bounds how many links are followed. More than a few take as many requests that
// overlap, each of which renews the session.
const MaxHops = 8

// What a link begins with.
const (
	linkOfRenewal = 1
	linkOfSignIn  = 2
)

// Encode returns the link as a row has it.
func (l Link) Encode() []byte {
	kind := byte(linkOfRenewal)
	if l.SignIn {
		kind = linkOfSignIn
	}
	return append([]byte{kind}, l.To.Bytes[:]...)
}

// Link returns the link that the row holds, if it does.
func (r *Row) Link() (l Link, ok bool) {
	if r.EndReason == "" || r.Version != linked || len(r.Data) != 1+len(l.To.Bytes) || r.Data[0] > linkOfSignIn {
		return l, false
	}
	l.SignIn, l.To.Valid = r.Data[0] == linkOfSignIn, true
	copy(l.To.Bytes[:], r.Data[1:])
	return l, true
}

// UserSession is a session of a user, as the user index and the session table have it.
type UserSession struct {
	ID        pgtype.UUID
	CreatedAt time.Time
	LastSeen  time.Time
	Expiry    time.Time
	// Gone: it has been ended.
	Gone bool
	// Unsettled: the row is not there, or is another user's, and alive. Perhaps the sign-in
	// that has put the session into the index has not become visible there yet.
	Unsettled bool
	// Pending: see Row.Pending. It is then not Gone.
	Pending bool
}

// Place is what a user's index says of a session: zero if the session is not in it.
type Place struct {
	Since time.Time // since when the user has had it
	Label string    // "" for none
}

// Listed is a live session, as it is listed.
type Listed struct {
	ID       pgtype.UUID
	User     string
	LastSeen time.Time
	Expiry   time.Time

	// From the user index: zero while anonymous.
	CreatedAt time.Time
	IP        netip.Addr // zero if unknown
	UserAgent string     // "" if unknown
	Label     string     // "" for none

	Version int64
	Data    []byte // nil unless asked for
	// Of sealed data: whether it would be sealed otherwise today, and why it is missing.
	Outdated   bool
	Unreadable error
}

// Clock is one reading of the database's clock, and when it was received by ours. It was
// taken earlier than that.
type Clock struct{ Read, Heard time.Time }

// Earliest returns the earliest instant of the database's clock that t, an instant of our
// monotonic clock, can have been. So it does not matter what the servers' clocks say.
func (c Clock) Earliest(t time.Time) time.Time { return c.Read.Add(-c.Heard.Sub(t)) }
