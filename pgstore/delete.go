package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// EndReason says why a session was ended before it timed out. It is "" for a session
// that is alive or has timed out.
type EndReason string

const (
	// SignedOut: SessionManager.Destroy was called, as a rule by the user signing out.
	SignedOut EndReason = row.SignedOut
	// Revoked: Revoke, RevokeOthers, RevokeAll or Forget ended it.
	Revoked EndReason = row.Revoked
	// Evicted: a later sign-in of the same user needed its place under the limit.
	Evicted EndReason = row.Evicted
	// Renewed: the session continues under a new token.
	Renewed EndReason = row.Renewed
)

// Delete is DeleteCtx with context.Background().
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// DeleteCtx ends the session with this token, with SignedOut as its reason. The row
// is kept, without its data, until the sweeper deletes it, so that no request in
// flight can bring the session back. Deleting a token that names no live session is
// not an error.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	id, standIn := idOf(token)
	req := s.requestOf(ctx)
	if standIn { // of Iterate: no session of this request
		req = nil
	}
	var known request.Session
	if req != nil {
		known, _ = req.Session(id)
	}
	var met row.Row
	var at, signedInAt time.Time
	var ended int
	ids, endingID := []pgtype.UUID{id}, db.NewEndingID()
	err := s.do(ctx, "delete session", func(ctx context.Context) error {
		b := s.db.Batch()
		b.Lock(id, &met)
		b.Clock(&at)
		if known.User != "" {
			b.SignedIn(known.User, id, &signedInAt)
		}
		b.TimeOut(ids, "", time.Time{})
		b.End(ids, db.Ending{Reason: row.SignedOut, ID: endingID}, &ended)
		return s.db.Send(ctx, b)
	})
	if err != nil {
		return err
	}
	if met.EndReason == row.SignedOut && met.Version == endingID {
		// An earlier attempt succeeded, but its answer was lost, and with it the data that
		// the row had held. Go on with what this request had loaded.
		met.EndReason, met.Version, met.Data, ended = "", known.Version, known.Base, 1
	}
	s.stat.ended.Add(int64(ended))
	if req != nil {
		req.Deleted(id, met, ended > 0, at, signedInAt)
	}
	return nil
}
