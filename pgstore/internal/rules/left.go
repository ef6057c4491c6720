package rules

import (
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Left is a session that the request has left, and what has become of it since.
type Left struct {
	request.Session
	At    pgtype.UUID // its id or, where links were followed, that of the last one
	Row   row.Row     // of At
	hops  int         // how many links were followed
	stuck bool        // the next one must not be
	// missing: the row that the last link leads to is not there. It was, if not yet swept.
	missing bool
	// The place of At in its user's index.
	row.Place
}

// LeftOf returns what has become of sessions, as far as is known before anything is read.
func LeftOf(sessions []request.Session) []Left {
	list := make([]Left, len(sessions))
	for i, s := range sessions {
		list[i] = Left{Session: s, At: s.ID}
	}
	return list
}

// Follow returns the index of a session in Left whose row is linked, and the one to read
// next. Links are followed only from a session that the request had alive, or by SignIn, and
// those of sign-ins only by a sign-in: it ends what it finds there. (What a request stores
// after its sign-out is none, and leaves a sign-in that was faster alone.)
func (f *Facts) Follow() (i int, to pgtype.UUID, ok bool) {
	for i := range f.Left {
		l := &f.Left[i]
		link, linked := l.Row.Link()
		if !linked || l.stuck || l.hops == row.MaxHops || !l.Had() && !f.SignIn || link.To == f.ID || link.SignIn && (f.Renewal || f.User == "") {
			continue
		}
		return i, link.To, true
	}
	return 0, to, false
}

// Followed enters the row that Follow has asked for. It is none of ours unless it belongs
// to the user that the session had when it was loaded alive, or to the one who signs in.
func (f *Facts) Followed(i int, to pgtype.UUID, r row.Row, place row.Place) {
	l := &f.Left[i]
	if !r.Present || (r.User != l.User || !l.Had()) && (f.Renewal || r.User != f.User) {
		l.stuck, l.missing = true, !r.Present
		return
	}
	l.At, l.Row, l.Place = to, r, place
	l.hops++
}

// open reports whether the session can still be continued.
func (l *Left) open() bool { return l.Row.Pending() || l.hops > 0 && l.Row.Alive() }

// Successions returns how the sessions that the request has left, and what has become of
// them, are to point to this one. Those that are over, whoever has ended them, do if it is a
// user's: so that another sign-in in the same browser finds it.
func (f *Facts) Successions() (list []Succession) {
	for _, l := range f.Left {
		s := Succession{ID: l.At, User: l.Row.User, Reason: row.Renewed}
		s.Link = row.Link{SignIn: !f.Renewal || l.Row.User != f.User, To: f.ID}
		switch _, linked := l.Row.Link(); {
		case slices.ContainsFunc(list, func(other Succession) bool { return other.ID == s.ID }):
			continue
		case l.open() && l.Row.User != "" && l.Row.User != f.User:
			s.Reason, s.Ends = row.SignedOut, true // of that user, who has not signed in again
		case l.open():
		case !linked && f.User != "" && l.Had() && l.Row.Over() != "":
			s.Reason, s.Link.SignIn = l.Row.Over(), true
		default:
			continue
		}
		list = append(list, s)
	}
	return list
}

// Succession is a session in whose stead another one goes on.
type Succession struct {
	ID     pgtype.UUID
	User   string
	Reason string // why it is over
	Ends   bool   // by this
	Link   row.Link
}
