package pgstore

import (
	"context"
	"time"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// SignedInAt returns when the user of the request's session signed in: Session.CreatedAt, as
// this server's clock has it, so that time.Since is right whatever that clock says. Renewals do
// not move it; each SignIn does. A page that asks for a recent one (OWASP Authentication Cheat
// Sheet, "Require Re-authentication for Sensitive Features") sends the user back to the
// password if it was too long ago.
//
// It is the zero time, which is too long ago for any page, if nobody is signed in as StatusOf
// has it, and so without Track; or if that is not known, as of a session that had its user
// before UserKey was set. Each call is a read by primary key: the session's own read does not
// include it, so that only pages that ask pay.
func (s *Store) SignedInAt(ctx context.Context) (time.Time, error) {
	if st := s.StatusOf(ctx); st.State != Active || st.UserID == "" {
		return time.Time{}, nil
	}
	known, _ := s.requestOf(ctx).Current()
	var place row.Place
	err := s.do(ctx, "read sign-in time", func(ctx context.Context) error {
		b := s.db.Batch()
		b.Place(known.User, known.ID, &place)
		return s.db.Send(ctx, b)
	})
	if err != nil || place.Since.IsZero() {
		return time.Time{}, err
	}
	return known.TakenAt.Add(place.Since.Sub(known.Now)), nil
}
