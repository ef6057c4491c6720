package pgstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// Revoke ends one session of the user. id is a Session.ID, or the result of IDOf; if the
// session has been renewed since, what it has become ends. Revoke reports false, and does
// nothing, if id is not that of a live session of this user: it is safe to pass an id that
// came from a client. (It may also report false if the connection broke and only a second
// attempt was answered.) A request in flight on that session cannot bring it back. An empty
// userID is an error.
func (s *Store) Revoke(ctx context.Context, userID, id string) (bool, error) {
	if err := checkUserID("revoke", userID); err != nil {
		return false, err
	}
	uid, ok := parseID(id)
	if !ok {
		return false, nil
	}
	ids := []pgtype.UUID{uid}
	_, ended, err := s.endLinked(ctx, "revoke session", uid, db.Ending{Reason: row.Revoked, User: userID}, func(left row.Row, link row.Link) bool {
		ids = append(ids, link.To)
		return left.User == userID && left.EndReason == row.Renewed // else somebody has signed in since it ended
	})
	if req := s.requestOf(ctx); req != nil && err == nil {
		req.Revoked(userID, func(known *request.Session) bool { return slices.Contains(ids, known.ID) })
	}
	return ended, err
}

// RevokeAll ends every session of the user, including the one that the calling
// request came with, and returns how many were alive. Under Track it is also a fence:
// a sign-in of this user whose request began before RevokeAll and commits after it
// does not survive. The calling request itself may sign the user in again, by SignIn; to
// renew its token is not enough. What counts is
// the request that signs the user in: if a sign-in takes two, for a password and then a
// code, the second has to check that the password is still the same. An empty userID is an
// error.
func (s *Store) RevokeAll(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "revoke all sessions", user: userID})
}

// RevokeOthers ends every session of the user except the one with keepToken, as a
// rule sm.Token(ctx), and returns how many were alive. It is a fence as RevokeAll is,
// but renewals of the kept session pass it. keepToken must be the token of a live
// session of this user, or, under Track, the one that the calling request has just
// got by RenewToken (which the store cannot know yet, and so does not check). Otherwise
// RevokeOthers returns ErrNotLive and revokes nothing. So an app that raises the privileges
// of a session, for instance after a second factor, calls RenewToken and then RevokeOthers:
// no request that began before gets them. With
// SessionManager.HashTokenInStore no token is known: it always returns ErrNotLive.
// An empty userID is an error.
func (s *Store) RevokeOthers(ctx context.Context, userID, keepToken string) (int, error) {
	keep, _, standIn := idOf(keepToken)
	if keepToken == "" || standIn {
		return 0, fmt.Errorf("%w: pass sm.Token(ctx) of a session that has been committed", ErrNotLive)
	}
	return s.revokeUser(ctx, &revocation{op: "revoke other sessions", user: userID, keep: keep})
}

// Forget erases what the tables hold about a user whose account has been deleted. It
// ends the user's sessions, deletes their addresses, user agents and labels, and removes the
// user's id from the tombstones that it leaves. It returns how many sessions were
// alive. Delete the account first, so that the user cannot sign in any more: Forget
// also removes the fence, and does not stop a sign-in that is under way.
//
// The user's id may stay, until the sweeper deletes them, in rows of ended and timed-out
// sessions that earlier sign-ins have already dropped from the user's list. They
// hold no data. An empty userID is an error.
func (s *Store) Forget(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "forget user", user: userID, forget: true})
}

// revocation ends the sessions of a user under the user's lock, a page at a time: each is
// a transaction of its own, so that it goes on where it was if it has to be repeated.
type revocation struct {
	op     string
	user   string
	keep   pgtype.UUID // the session to keep; not Valid for none
	forget bool
	// renewing are the user's sessions whose successor is still to come in this request:
	// they must be kept.
	renewing []pgtype.UUID

	after pgtype.UUID // where the page begins
	full  bool        // whether the last page was a full one
	sent  time.Time   // the fence that an attempt has set, perhaps
	fence time.Time   // as it stands, once it has been set
	ended int
	tries int // how many attempts have found a session unsettled
}

func (s *Store) revokeUser(ctx context.Context, r *revocation) (int, error) {
	if err := checkUserID(r.op, r.user); err != nil {
		return 0, err
	}
	req := s.requestOf(ctx)
	if req != nil && r.keep.Valid {
		for _, left := range req.Left() {
			if left.Phase == request.Renewing && left.User == r.user && left.Had() {
				r.renewing = append(r.renewing, left.ID)
			}
		}
	}
	// A renewal between two pages can put a session before the second one. So if there is
	// more than one, the index is read until a pass ends nothing.
	var err error
	for again := true; again && err == nil; {
		r.after, again = pgtype.UUID{}, false
		for r.full = true; r.full && err == nil; {
			before := r.ended
			err = s.do(ctx, r.op, func(ctx context.Context) error { return s.revokePage(ctx, r, before) })
			again = again || r.full && r.ended > before
			s.count(func(c *Stat) { c.Ended += int64(r.ended - before) })
		}
	}
	if req != nil && !r.fence.IsZero() {
		req.Fenced(r.user, r.fence)
	}
	if req != nil && (err == nil || !r.fence.IsZero()) {
		req.Revoked(r.user, func(known *request.Session) bool {
			return known.ID != r.keep && !slices.Contains(r.renewing, known.ID)
		})
	}
	return r.ended, err
}

// begins returns nil if the revocation may begin, or go on. fence is the user's.
func (r *revocation) begins(fence time.Time, kept *row.Row) error {
	switch {
	case !r.fence.IsZero():
	case !r.sent.IsZero() && fence.Equal(r.sent):
		r.fence = fence // an earlier attempt was applied: who has signed in since is not meant
	case !r.keep.Valid, kept.Alive() && kept.User == r.user, !kept.Present && len(r.renewing) > 0:
	case !r.sent.IsZero() && fence.After(r.sent):
		return errInDoubt // an earlier attempt may have been applied, and the kept one revoked since
	default:
		return ErrNotLive
	}
	return nil
}

// revokePage ends a page of the user's sessions.
func (s *Store) revokePage(ctx context.Context, r *revocation, before int) error {
	leave, err := s.db.Turns.Enter(ctx, r.user)
	if err != nil {
		return err
	}
	defer leave()
	return s.db.InTx(ctx, func(t *db.Tx) error {
		var fence time.Time
		var clock row.Clock
		var index []row.UserSession
		spared := append([]pgtype.UUID{r.keep}, r.renewing...)
		rows := make([]row.Row, len(spared))
		b := t.Begin()
		b.LockUser(r.user, &fence)
		// Read once the lock is held: sign-ins that came before are in the index, and
		// those that come after meet the fence.
		b.Clock(&clock)
		for i, id := range spared {
			if id.Valid {
				b.Lock(id, &rows[i])
			}
		}
		b.UserSessions(r.user, r.after, pageSize, &index)
		if err := t.Send(ctx, b); err != nil {
			return err
		}
		if err := r.begins(fence, &rows[0]); err != nil {
			return err
		}
		for _, left := range rows { // what renewals have made of them is spared, too
			for link, ok := left.Link(); ok && !link.SignIn; link, ok = left.Link() {
				spared = append(spared, link.To)
				b := t.Batch()
				b.Lock(link.To, &left)
				if err := t.Send(ctx, b); err != nil {
					return err
				}
			}
		}
		var ids, stale []pgtype.UUID
		for _, u := range index {
			if !slices.Contains(spared, u.ID) && (r.fence.IsZero() || !u.CreatedAt.After(r.fence)) {
				ids = append(ids, u.ID)
				if u.Unsettled {
					stale = append(stale, u.ID)
				}
			}
		}
		if len(stale) > 0 && r.tries < rules.Patience {
			r.tries++
			return db.ErrUnsettled
		}

		var ended int
		full := len(index) == pageSize
		end := db.Ending{Reason: row.Revoked, User: r.user, Ended: new([]pgtype.UUID)}
		b = t.Batch()
		b.TimeOut(ids, r.user, clock.Read)
		b.End(ids, end, &ended, nil)
		b, err := s.announce(ctx, t, b, end, &r.user)
		if err != nil {
			return err
		}
		b.Delist(r.user, stale...)
		switch {
		case r.forget:
			b.Anonymize(r.user, ids)
			b.Delist(r.user, ids...)
			if !full {
				b.Forget(r.user)
			}
		case r.fence.IsZero():
			r.sent = clock.Read
			b.Fence(r.user, clock.Read, &fence)
		}
		if err := t.Commit(ctx, b); err != nil {
			return err
		}
		r.full, r.ended = full, before+ended
		if full && !r.forget { // which takes them out of the index
			r.after = index[pageSize-1].ID
		}
		if !r.forget && r.fence.IsZero() {
			r.fence = fence
		}
		return nil
	})
}
