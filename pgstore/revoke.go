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
)

// Revoke ends one session of the user. id is a Session.ID, or the result of IDOf. It
// reports false, and does nothing, if id is not that of a live session of this user:
// it is safe to pass an id that came from a client. A request in flight on that
// session cannot bring it back. An empty userID is an error.
func (s *Store) Revoke(ctx context.Context, userID, id string) (bool, error) {
	if err := checkUserID("revoke", userID); err != nil {
		return false, err
	}
	uid, ok := parseID(id)
	if !ok {
		return false, nil
	}
	var ended int
	ids := []pgtype.UUID{uid}
	err := s.do(ctx, "revoke session", func(ctx context.Context) error {
		b := s.db.Batch()
		b.TimeOut(ids, userID, time.Time{})
		endForGood(b, ids, userID, &ended)
		return s.db.Send(ctx, b)
	})
	if err != nil {
		return false, err
	}
	s.stat.ended.Add(int64(ended))
	if req := s.requestOf(ctx); req != nil {
		req.Revoked(userID, func(id pgtype.UUID) bool { return id == uid })
	}
	return ended > 0, nil
}

// endForGood ends the user's sessions, also those that a request is just renewing: it has
// signed them out, and is stopped. They come second, so that one which is signed out in
// between is caught. n is set to how many were alive.
func endForGood(b *db.Batch, ids []pgtype.UUID, user string, n *int) {
	*n = 0
	b.End(ids, db.Ending{Reason: row.Revoked, User: user}, n)
	b.End(ids, db.Ending{Reason: row.Revoked, From: row.SignedOut, User: user}, nil)
}

// RevokeAll ends every session of the user, including the one that the calling
// request came with, and returns how many were alive. Under Track it is also a fence:
// a sign-in of this user whose request began before RevokeAll and commits after it
// does not survive. The calling request itself may sign the user in again. An empty
// userID is an error.
func (s *Store) RevokeAll(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "revoke all sessions", user: userID})
}

// RevokeOthers ends every session of the user except the one with keepToken, as a
// rule sm.Token(ctx), and returns how many were alive. It is a fence as RevokeAll is,
// but renewals of the kept session pass it. keepToken must be the token of a live
// session of this user, or, under Track, the one that the calling request has just
// got by RenewToken (which the store cannot know yet, and so does not check). Otherwise
// RevokeOthers returns ErrNotLive and revokes nothing. With
// SessionManager.HashTokenInStore no token is known: it always returns ErrNotLive.
// An empty userID is an error.
func (s *Store) RevokeOthers(ctx context.Context, userID, keepToken string) (int, error) {
	keep, standIn := idOf(keepToken)
	if keepToken == "" || standIn {
		return 0, fmt.Errorf("%w: pass sm.Token(ctx) of a session that has been committed", ErrNotLive)
	}
	return s.revokeUser(ctx, &revocation{op: "revoke other sessions", user: userID, keep: keep})
}

// Forget erases what the tables hold about a user whose account has been deleted. It
// ends the user's sessions, deletes their addresses and user agents, and removes the
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

// revocation ends the sessions of a user under the user's lock.
type revocation struct {
	op     string
	user   string
	keep   pgtype.UUID // the session to keep; not Valid for none
	forget bool

	clock time.Time     // the database's clock, read under the lock
	kept  row.Row       // the row of keep
	ids   []pgtype.UUID // the sessions to end
	fence time.Time     // as it stands after the revocation
	ended int
}

func (s *Store) revokeUser(ctx context.Context, r *revocation) (int, error) {
	if err := checkUserID(r.op, r.user); err != nil {
		return 0, err
	}
	req := s.requestOf(ctx)
	// A session that this request is renewing has no live row at the moment: its old
	// token is signed out and its new one not yet committed. It must be kept.
	var renewing *request.Session
	if req != nil && !r.forget {
		if renewing = req.Predecessor(r.user); renewing != nil && (renewing.User != r.user || !renewing.WasAlive()) {
			renewing = nil
		}
	}
	err := s.do(ctx, r.op, func(ctx context.Context) error {
		leave, err := s.db.Turns.Enter(ctx, r.user)
		if err != nil {
			return err
		}
		defer leave()
		return s.db.InTx(ctx, func(t *db.Tx) error {
			if err := r.read(ctx, t); err != nil {
				return err
			}
			switch {
			case !r.keep.Valid || r.kept.Alive() && r.kept.User == r.user:
			case !r.kept.Present && renewing != nil:
			default:
				return ErrNotLive
			}
			r.ids = slices.DeleteFunc(r.ids, func(id pgtype.UUID) bool {
				return r.keep.Valid && id == r.keep || renewing != nil && id == renewing.ID
			})
			return r.carryOut(ctx, t)
		})
	})
	if err != nil {
		if req != nil && r.kept.Present {
			req.Met(r.keep, r.kept)
		}
		return 0, err
	}
	s.stat.ended.Add(int64(r.ended))
	switch {
	case req == nil:
	case r.forget:
		req.Forgot(r.user)
	default:
		req.Fenced(r.user, r.fence)
		req.Revoked(r.user, func(id pgtype.UUID) bool { return !r.keep.Valid || id != r.keep })
	}
	return r.ended, nil
}

// read takes the user's lock, and reads what there is to end.
func (r *revocation) read(ctx context.Context, t *db.Tx) error {
	b := t.Begin()
	b.LockUser(r.user, &r.fence)
	// Read once the lock is held: sign-ins that came before are in the index, and
	// those that come after meet the fence.
	b.Clock(&r.clock)
	if r.keep.Valid {
		b.Lock(r.keep, &r.kept)
	}
	b.UserIDs(r.user, &r.ids)
	return t.Send(ctx, b)
}

// carryOut ends the sessions, and commits.
func (r *revocation) carryOut(ctx context.Context, t *db.Tx) error {
	b := t.Batch()
	b.TimeOut(r.ids, r.user, r.clock)
	endForGood(b, r.ids, r.user, &r.ended)
	if r.forget {
		b.Anonymize(r.user, r.ids)
		b.Delist(r.user, r.ids...)
		b.Forget(r.user)
	} else {
		b.Fence(r.user, r.clock, &r.fence)
	}
	return t.Commit(ctx, b)
}
