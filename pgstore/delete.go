package pgstore

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
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
	// Renewed: the session continues under a new token. (Without Track: SignedOut.)
	Renewed EndReason = row.Renewed
)

// Delete is DeleteCtx with context.Background().
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// DeleteCtx ends the session with this token, with SignedOut as its reason. The row
// is kept, without its data, until the sweeper deletes it, so that no request in
// flight can bring the session back. Deleting a token that names no live session is
// not an error.
//
// Under Track, RenewToken and MergeSession, which call it too, end the session as Renewed;
// its row keeps the data until the commit that follows continues it. And a sign-out also
// ends what renewals by other requests have made of the session. Without Track each call is
// a sign-out.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	id, _, standIn := idOf(token)
	req := s.requestOf(ctx)
	switch {
	case standIn && calledToRenew():
		return errors.New("pgstore: delete session: a session of All cannot be renewed: its user would not get the new token")
	case standIn || req == nil:
		_, _, err := s.signOut(ctx, request.Session{ID: id})
		return err
	case calledToRenew():
		return s.renew(ctx, req, id)
	}
	sessions := []request.Session{{ID: id}}
	if known, ok := req.Session(id); ok && known.Phase != request.Absent {
		sessions[0] = known
	} else {
		// A token that RenewToken has drawn and nobody has stored, or none, because another
		// request is renewing it: what it stands for ends.
		sessions = append(append(sessions, req.Left()...), req.Renewing()...)
	}
	for _, known := range sessions {
		left, replaced, err := s.signOut(ctx, known)
		if err != nil {
			return err
		}
		req.SignedOut(known.ID, left, replaced)
	}
	return nil
}

// renew ends a session as renewed. Its data stays where it is, so that nothing is lost if
// the answer is.
func (s *Store) renew(ctx context.Context, req *tracked, id pgtype.UUID) error {
	var left row.Row
	var clock row.Clock
	var renewed int
	began, attempts := time.Now(), 0
	err := s.do(ctx, "renew session", func(ctx context.Context) error {
		b := s.db.Batch()
		b.TimeOut([]pgtype.UUID{id}, "", time.Time{})
		b.Renew(id, &renewed)
		b.Clock(&clock)
		b.Find(id, &left)
		attempts++
		return s.db.Send(ctx, b)
	})
	if err != nil {
		return err
	}
	if attempts > 1 { // it may have been done by the first one, and a fence set since
		clock.Read = clock.Earliest(began)
	}
	s.count(func(c *Stat) { c.Ended += int64(renewed) })
	req.Renewed(id, left, clock.Read)
	return nil
}

// signOut ends a session, or what renewals have made of one that this request had alive. It
// returns what it has left, and whether a sign-in had replaced the session: that one is
// left alone.
func (s *Store) signOut(ctx context.Context, known request.Session) (left row.Row, replaced bool, err error) {
	end := db.Ending{Reason: row.SignedOut, User: known.User, Any: true}
	left, _, err = s.endLinked(ctx, "delete session", known.ID, end, func(_ row.Row, link row.Link) bool {
		replaced = link.SignIn
		return known.Had() && !replaced
	})
	return left, replaced, err
}

// endLinked ends a session or, as long as follow says so, the one that its link leads to,
// if that belongs to end.User. It returns what it has left, and whether it has ended any.
func (s *Store) endLinked(ctx context.Context, op string, id pgtype.UUID, end db.Ending,
	follow func(row.Row, row.Link) bool) (left row.Row, ended bool, err error) {
	end.Ended = new([]pgtype.UUID)
	for hops, tries := 0, 0; ; hops++ {
		var alive, pending int
		ids := []pgtype.UUID{id}
		add := func(b *db.Batch) *db.Batch {
			b.TimeOut(ids, "", time.Time{})
			b.End(ids, end, &alive, &pending)
			b.Find(id, &left)
			return b
		}
		send := func(ctx context.Context) error {
			if !s.cfg.Notify {
				return s.db.Send(ctx, add(s.db.Batch()))
			}
			return s.db.InTx(ctx, func(t *db.Tx) error {
				b, err := s.announce(ctx, t, add(t.Begin()), end, &left.User)
				if err != nil {
					return err
				}
				return t.Commit(ctx, b)
			})
		}
		err := s.do(ctx, op, func(ctx context.Context) error {
			err := send(ctx)
			if err == nil && hops > 0 && !left.Present && tries < rules.Patience {
				tries++
				err = db.ErrUnsettled
			}
			return err
		})
		if err != nil {
			return left, ended, err
		}
		s.count(func(c *Stat) { c.Ended += int64(alive) })
		ended = ended || alive+pending > 0
		link, linked := left.Link()
		if !linked || hops == row.MaxHops || !follow(left, link) {
			return left, ended, nil
		}
		id, end.Any = link.To, false
	}
}

// calledToRenew reports whether scs deletes a session because another one is to continue
// it. No argument says so: only who called does. Whoever is unknown signs out, which is safe.
func calledToRenew() bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		switch frame.Function {
		case nameOfRenewal, nameOfMerge:
			return true
		}
		if !more {
			return false
		}
	}
}

// The names under which the runtime knows them, also with -trimpath. A test pins them.
const (
	nameOfRenewal = "github.com/alexedwards/scs/v2.(*SessionManager).RenewToken"
	nameOfMerge   = "github.com/alexedwards/scs/v2.(*SessionManager).MergeSession"
)
