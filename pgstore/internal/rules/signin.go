package rules

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Facts are what a sign-in, a renewal or a merge is decided by. Those of the second group
// are read under the user's lock and the locks of the rows; a merge needs Current only.
type Facts struct {
	Commit
	// Continues is the index in Left of the session that this one continues, -1 for none.
	// If it is a renewal, the session keeps its age and its place in the limit.
	Continues int
	Renewal   bool
	Began     time.Time // when the request began, by our monotonic clock; zero if unknown
	Exempt    func(fence time.Time) bool
	Limit     int // 0: none
	Policy    Policy
	// Sent is the data that an earlier attempt may have stored over version SentOver of the
	// row, 0 if there was none. nil: no attempt has got so far.
	Sent     []byte
	SentOver int64
	Tries    int // how many attempts have found what they read Unsettled

	Current row.Row   // the row of the session
	Fence   time.Time // zero if there is none
	Clock   row.Clock
	Others  []row.UserSession // the user's sessions, if there is a limit
	// The session's own place in the user's index.
	row.Place
}

// Policy says what happens at the limit.
type Policy int

const (
	EvictOldest Policy = iota
	EvictLeastRecent
	Reject
)

// Outcome is what becomes of a sign-in.
type Outcome int

const (
	Granted   Outcome = iota
	Lost              // it is dropped: Verdict.Met says for what
	Refused           // the user is at the limit
	Unkeyed           // it would take a user's session out of the user's index
	Unsettled         // what it is decided by is not all visible yet: it is to be read again
	Done              // an earlier attempt has succeeded
	InDoubt           // an earlier attempt may have succeeded
)

// Patience is how often what is unsettled is read again before it counts as gone.
const Patience = 3

// Verdict is what becomes of a sign-in, and of other sessions of the user.
type Verdict struct {
	Outcome Outcome
	Met     row.Row // if Lost: the row that is over, or what stands for it

	Evict    []pgtype.UUID // live ones, to make room
	TimedOut []pgtype.UUID // those past their expiry, which nobody has ended yet
	Stale    []pgtype.UUID // those that are gone
	Stay     []row.UserSession
}

// isOwn reports whether the row is a live one of this user already.
func (f *Facts) isOwn() bool { return f.Current.Alive() && f.Current.User == f.User }

// continued returns the session that this one continues, or nil.
func (f *Facts) continued() *Left {
	if f.Continues < 0 {
		return nil
	}
	return &f.Left[f.Continues]
}

// Keeps returns what the session keeps of its place in the user's index, or of the one that
// it continues. A renewal keeps its age, and so does a session that is the user's already; a
// zero Since is now. A label stays through a sign-in as well, as the user's values do.
func (f *Facts) Keeps() row.Place {
	if f.Current.User == f.User && !f.Since.IsZero() {
		return f.Place
	}
	from := f.continued()
	switch {
	case from == nil || !from.open() || from.Row.User != f.User:
		return row.Place{}
	case f.Renewal:
		return from.Place
	default:
		return row.Place{Label: from.Label}
	}
}

// Attempted returns what has become of an earlier attempt: Granted if there was none, or
// if the row shows that it was not applied.
func (f *Facts) Attempted() Outcome {
	switch {
	case f.Sent == nil || f.Current.Version == f.SentOver:
		return Granted
	case f.Current.Version != f.SentOver+1 || !f.Current.Alive():
		return InDoubt
	case f.Current.User == f.User && bytes.Equal(f.Current.Data, f.Sent):
		return Done
	default:
		return Granted // another write has come first
	}
}

// Verdict decides.
func (f *Facts) Verdict() Verdict {
	current := &f.Current
	switch {
	case current.Over() != "":
		return Verdict{Outcome: Lost, Met: *current}
	case f.Attempted() != Granted:
		return Verdict{Outcome: f.Attempted()}
	case f.Session != nil && (!current.Present || current.User != f.Session.User) && !(f.isOwn() && f.heldBefore()):
		return Verdict{Outcome: Lost, Met: *current} // it was swept, or has changed its user since the request loaded it
	case current.User != "" && f.User == "" && !f.Keyed:
		return Verdict{Outcome: Unkeyed}
	case f.Session == nil && f.isOwn():
		// A live session of this user that the request has not loaded.
	case f.Tries < Patience && slices.ContainsFunc(f.Left, func(l Left) bool { return l.missing }):
		return Verdict{Outcome: Unsettled}
	case f.Renewal && (!f.continued().open() || f.continued().Row.User != f.User):
		return Verdict{Outcome: Lost, Met: f.continued().Row} // somebody else has ended it
	case f.User != "" && !f.passesFence():
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
	case f.Renewal && f.continued().hops == 0:
		// What is renewed was alive when it was deleted, so a fence from before then has
		// spared it.
		return f.continued().DeletedAt.After(f.Fence)
	case f.Began.IsZero():
		return true // without Track, nobody knows when it began
	case !f.SignIn && f.heldBefore():
		return false
	default:
		return f.Clock.Earliest(f.Began).After(f.Fence)
	}
}

// heldBefore reports whether the session had its user before the store indexed it:
// UserKey was added to a live table. Nobody knows then when it began. (Reindex may have
// given it to its user since the request loaded it.)
func (f *Facts) heldBefore() bool {
	base := f.Session
	if p := f.continued(); p != nil {
		base = &p.Session
	}
	if base == nil || base.User != "" {
		return false
	}
	_, keyed, _ := frame.User(base.Base) // if it is, the data says that it was nobody's
	return !keyed && frame.Holds(base.Base, f.User)
}

// makeRoom returns what has to go so that the user stays within the limit.
func (f *Facts) makeRoom() Verdict {
	overAsItBegins := f.TTL <= 0 && f.Merge().TTL <= 0
	if f.Limit == 0 || f.isOwn() || overAsItBegins {
		return f.sort(len(f.Others))
	}
	return f.sort(f.Limit - 1)
}

// Trim is Verdict for a user with very many sessions, of which Others is but a part: the
// sessions of the part go that would go in any case.
func (f *Facts) Trim() Verdict { return f.sort(f.Limit) }

// sort sorts the user's other sessions, and picks those that end so that so many stay. The
// session being signed in neither counts nor is picked; nor are those that it takes over
// from. One that is unsettled may be alive: if it decides, it is to be read again.
func (f *Facts) sort(stay int) (v Verdict) {
	unsettled := 0
	for _, s := range f.Others {
		switch {
		case s.ID == f.ID || s.Pending || slices.ContainsFunc(f.Left, func(l Left) bool { return l.At == s.ID && l.open() }):
		case s.Unsettled && f.Tries < Patience:
			unsettled++
		case s.Gone || s.Unsettled:
			v.Stale = append(v.Stale, s.ID)
		case s.Expiry.After(f.Clock.Read):
			v.Stay = append(v.Stay, s)
		default:
			v.TimedOut = append(v.TimedOut, s.ID)
		}
	}
	excess := len(v.Stay) + unsettled - stay
	switch {
	case excess <= 0:
		return v
	case unsettled > 0:
		return Verdict{Outcome: Unsettled}
	}
	byAge := func(x, y row.UserSession) int {
		return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), bytes.Compare(x.ID.Bytes[:], y.ID.Bytes[:]))
	}
	switch {
	case f.Policy == EvictLeastRecent:
		slices.SortFunc(v.Stay, func(x, y row.UserSession) int { return cmp.Or(x.LastSeen.Compare(y.LastSeen), byAge(x, y)) })
	case f.Policy == Reject && f.Renewal: // it is never refused: it had its place before
		slices.SortFunc(v.Stay, func(x, y row.UserSession) int { return byAge(y, x) })
	case f.Policy == Reject:
		return Verdict{Outcome: Refused}
	default:
		slices.SortFunc(v.Stay, byAge)
	}
	for _, s := range v.Stay[:excess] {
		v.Evict = append(v.Evict, s.ID)
	}
	v.Stay = v.Stay[excess:]
	return v
}
