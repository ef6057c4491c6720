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

// UserSession is a session of a user, as the user index and the session table have it.
type UserSession struct {
	ID        pgtype.UUID
	CreatedAt time.Time
	LastSeen  time.Time
	Expiry    time.Time
	// Gone: the row is not there, has been ended, or is another user's by now. The
	// fields above, CreatedAt apart, are then zero.
	Gone bool
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
}
