package rules

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Facts are what a sign-in, or a renewal, is decided by. Those of the second group are
// read under the user's lock and the locks of the two rows.
type Facts struct {
	ID       pgtype.UUID
	Existing bool   // the token was a stand-in: an existing session, never inserted
	User     string // "" if the session becomes nobody's
	Keyed    bool   // the data says whose session it is, if only that it is nobody's
	Data     []byte
	TTL      time.Duration
	Session  *request.Session           // as the request has found or stored it; nil for a new token
	Renews   *request.Session           // the deleted session that the new token continues, or nil
	Began    time.Time                  // when the request began, by our monotonic clock; zero if unknown
	Exempt   func(fence time.Time) bool // whether this request has set the fence itself; nil: it has not
	Limit    int                        // 0: none
	Policy   Policy
	Sent     []byte // what an earlier attempt has sent, whose answer was lost

	Current row.Row   // the row of the session
	Renewed row.Row   // the row of Renews
	Fence   time.Time // zero if there is none
	Clock   Clock
	Others  []row.UserSession // the user's sessions, if there is a limit
	// Since when the user has had the session, and the one that it renews: zero if they
	// are not in the user's index.
	Since, RenewedSince time.Time
}

// Policy says what happens at the limit.
type Policy int

const (
	EvictOldest Policy = iota
	EvictLeastRecent
	Reject
)

// Clock is one reading of the database's clock, and when it was received by ours. It was
// taken earlier than that.
type Clock struct{ Read, Heard time.Time }

// earliest returns the earliest instant of the database's clock that t, an instant of our
// monotonic clock, can have been. So it does not matter what the servers' clocks say.
func (c Clock) earliest(t time.Time) time.Time { return c.Read.Add(-c.Heard.Sub(t)) }

// Outcome is what becomes of a sign-in.
type Outcome int

const (
	Granted Outcome = iota
	Lost            // it is dropped: Verdict.Met says for what
	Refused         // the user is at the limit
	Unkeyed         // it would take a user's session out of the user's index
)

// Verdict is what becomes of a sign-in, and of the user's other sessions.
type Verdict struct {
	Outcome Outcome
	Met     row.Row // if Lost: the row that is over, or what stands for it

	Evict    []pgtype.UUID // live ones, to make room
	TimedOut []pgtype.UUID // those past their expiry, which nobody has ended yet
	Stale    []pgtype.UUID // those that are gone
}

// IsRenewal reports whether the session continues one of the same user, and so keeps its
// age and its place in the limit. From an anonymous one it only takes the data.
func (f *Facts) IsRenewal() bool { return f.Renews != nil && f.Renews.User == f.User }

// isOwn reports whether the row is a live one of this user already.
func (f *Facts) isOwn() bool { return f.Current.Alive() && f.Current.User == f.User }

// SignedInAt returns since when the user is signed in, zero for now: a renewal keeps its
// age, and so does a session that is the user's already.
func (f *Facts) SignedInAt() time.Time {
	switch {
	case f.Current.User == f.User && !f.Since.IsZero():
		return f.Since
	case f.IsRenewal():
		return cmp.Or(f.Renews.CreatedAt, f.RenewedSince)
	default:
		return time.Time{}
	}
}

// Verdict decides.
func (f *Facts) Verdict() Verdict {
	current := &f.Current
	switch {
	case current.Alive() && current.User != "" && f.User == "" && !f.Keyed:
		return Verdict{Outcome: Unkeyed}
	case current.Over() != "":
		return Verdict{Outcome: Lost, Met: *current}
	case f.isOwn() && f.Sent != nil && bytes.Equal(current.Data, f.Sent):
		// The earlier attempt has succeeded.
	case !current.Present && (f.Session != nil || f.Existing):
		return Verdict{Outcome: Lost} // it existed and has been swept
	case f.Session != nil && current.User != f.Session.User:
		return Verdict{Outcome: Lost, Met: *current} // it has changed its user since the request loaded it
	case f.Session == nil && f.isOwn():
		// A live session of this user that the request has not loaded.
	case f.User == "":
		// It becomes nobody's.
	case f.IsRenewal() && (!mayRenew(f.Renews, f.User) || f.Renewed.EndReason != row.SignedOut):
		return Verdict{Outcome: Lost, Met: f.Renewed} // somebody else has ended it
	case !f.passesFence():
		met := *current
		met.Present, met.EndReason = true, row.Revoked
		return Verdict{Outcome: Lost, Met: met}
	}
	return f.makeRoom()
}

// passesFence reports whether the user's fence lets this sign-in or renewal pass. The
// reading of the clock is some round trip coarse; if it leaves doubt, the answer is no.
func (f *Facts) passesFence() bool {
	switch {
	case f.Fence.IsZero() || f.Exempt != nil && f.Exempt(f.Fence):
		return true
	case f.IsRenewal():
		// What is renewed was alive when it was deleted, so a fence from before then has
		// spared it.
		return f.Renews.DeletedAt.After(f.Fence)
	case f.Began.IsZero():
		return true // without Track, nobody knows when it began
	default:
		return f.Clock.earliest(f.Began).After(f.Fence)
	}
}

// makeRoom sorts the user's other sessions, and picks those that end so that the user
// stays within the limit. The session being signed in neither counts nor is picked.
func (f *Facts) makeRoom() (v Verdict) {
	var alive []row.UserSession
	for _, s := range f.Others {
		switch {
		case s.ID == f.ID:
		case s.Gone:
			v.Stale = append(v.Stale, s.ID)
		case s.Expiry.After(f.Clock.Read):
			alive = append(alive, s)
		default:
			v.TimedOut = append(v.TimedOut, s.ID)
		}
	}
	excess := len(alive) - (f.Limit - 1)
	overAsItBegins := f.TTL <= 0 && f.Session == nil && f.Renews == nil
	if f.Limit == 0 || excess <= 0 || f.isOwn() || overAsItBegins {
		return v
	}
	byAge := func(x, y row.UserSession) int {
		return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), bytes.Compare(x.ID.Bytes[:], y.ID.Bytes[:]))
	}
	switch {
	case f.Policy == EvictLeastRecent:
		slices.SortFunc(alive, func(x, y row.UserSession) int { return cmp.Or(x.LastSeen.Compare(y.LastSeen), byAge(x, y)) })
	case f.Policy == Reject && f.IsRenewal(): // it is never refused: it had its place before
		slices.SortFunc(alive, func(x, y row.UserSession) int { return byAge(y, x) })
	case f.Policy == Reject:
		return Verdict{Outcome: Refused}
	default:
		slices.SortFunc(alive, byAge)
	}
	for _, s := range alive[:excess] {
		v.Evict = append(v.Evict, s.ID)
	}
	return v
}

// Merged is what a write stores.
type Merged struct {
	Bytes    []byte
	TTL      time.Duration
	Conflict bool // others had changed the session since the request loaded it
	Kept     bool // their changes were kept
}

// Merge returns what to store: what the request commits, merged with what others have
// changed meanwhile, in the session itself or in the one that it continues. Nothing that
// was written for one user is carried over to another.
func (f *Facts) Merge() Merged {
	d := Merged{Bytes: f.Data, TTL: f.TTL}
	if s := f.Session; s != nil && f.Current.Present && (s.User == f.User || s.User == "") && !(s.RowHoldsBase && f.Current.Version == s.Version) {
		d.merge(s.Base, &f.Current)
	}
	if p := f.Renews; p != nil && p.Base != nil && p.WasAlive() && p.RowAtDelete.User == p.User &&
		!(p.RowHoldsBase && p.RowAtDelete.Version == p.Version) {
		d.merge(p.Base, &p.RowAtDelete)
	}
	return d
}

// merge takes in what others have changed since base, key by key. The time to live is the
// longer of the two, cut to the merged deadline. Data that is not Codec's cannot be
// merged: then the last write wins.
func (d *Merged) merge(base []byte, current *row.Row) {
	d.Conflict = true
	merged, ok := frame.Merge(base, d.Bytes, current.Data)
	if !ok {
		return
	}
	d.Bytes, d.Kept = merged, true
	d.TTL = max(d.TTL, current.Expiry.Sub(current.Now))
	if deadline, ok := frame.Deadline(merged); ok {
		d.TTL = min(d.TTL, time.Until(deadline))
	}
}
