package pgstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
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
	var ended, attempts int
	ids, mark := []pgtype.UUID{uid}, newMark()
	err := s.do(ctx, "revoke session", func(ctx context.Context) error {
		b := &pgx.Batch{}
		s.queueLapse(b, ids, userID)
		s.queueEnd(b, ids, Revoked, "", userID, mark, &ended)
		if attempts++; attempts > 1 {
			s.queueMarked(b, ids, mark, &ended)
		}
		// A request that is just renewing it has signed it out: stop the renewal.
		s.queueEnd(b, ids, Revoked, SignedOut, userID, newMark(), nil)
		return send(ctx, s.pool, b)
	})
	if err != nil {
		return false, err
	}
	s.stat.ended.Add(int64(ended))
	req := s.requestOf(ctx)
	if req == nil {
		req = s.plain.own(ctx, s, false, knowing(uid))
	}
	if req != nil {
		req.revoked(userID, func(gone pgtype.UUID) bool { return gone == uid })
	}
	return ended > 0, nil
}

// RevokeAll ends every session of the user, including the one that the calling
// request came with, and returns how many were alive. Under Track it is also a fence:
// a sign-in of this user whose request began before RevokeAll and commits after it
// does not survive. The calling request itself may sign the user in again. An empty
// userID is an error.
func (s *Store) RevokeAll(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "revoke all sessions", user: userID, mark: newMark()})
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
	return s.revokeUser(ctx, &revocation{op: "revoke other sessions", user: userID, keep: keep, mark: newMark()})
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
	return s.revokeUser(ctx, &revocation{op: "forget user", user: userID, forget: true, mark: newMark()})
}

// revocation ends the sessions of a user under the user's lock.
type revocation struct {
	op     string
	user   string
	keep   pgtype.UUID // the session to keep; not Valid for none
	forget bool

	mark  int64         // see newMark
	clock time.Time     // the database's clock, read under the lock
	kept  row           // the row of keep
	ids   []pgtype.UUID // the sessions to end
	tried []pgtype.UUID // the ids of earlier attempts
	fence time.Time     // as it stands after the revocation
	ended int
}

func (s *Store) revokeUser(ctx context.Context, r *revocation) (int, error) {
	if err := checkUserID(r.op, r.user); err != nil {
		return 0, err
	}
	req := s.requestOf(ctx)
	if req == nil {
		req = s.plain.own(ctx, s, true, having(r.user))
	}
	// A session that this request is renewing has no live row at the moment: its old
	// token is signed out and its new one not yet committed. It must be kept.
	var renewing *entry
	if req != nil && !r.forget {
		if renewing = req.predecessor(r.user); renewing != nil && (renewing.user != r.user || renewing.took.state() != Active) {
			renewing = nil
		}
	}
	err := s.do(ctx, r.op, func(ctx context.Context) error {
		leave, err := s.queue.enter(ctx, r.user)
		if err != nil {
			return err
		}
		defer leave()
		return s.onConn(ctx, func(conn *pgxpool.Conn) error {
			if err := s.readRevocation(ctx, conn, r); err != nil {
				return err
			}
			switch {
			case !r.keep.Valid || r.kept.state() == Active && r.kept.user == r.user:
			case !r.kept.present && renewing != nil:
			default:
				return ErrNotLive
			}
			r.ids = slices.DeleteFunc(r.ids, func(id pgtype.UUID) bool {
				return r.keep.Valid && id == r.keep || renewing != nil && id == renewing.id
			})
			return s.writeRevocation(ctx, conn, r)
		})
	})
	if err != nil {
		if req != nil && r.kept.present {
			req.met(r.keep, r.kept)
		}
		return 0, err
	}
	s.stat.ended.Add(int64(r.ended))
	if req != nil {
		if r.forget {
			req.forgot(r.user)
		} else {
			req.fenced(r.user, r.fence)
		}
		req.revoked(r.user, func(id pgtype.UUID) bool { return !r.keep.Valid || id != r.keep })
	}
	return r.ended, nil
}

func (s *Store) readRevocation(ctx context.Context, conn *pgxpool.Conn, r *revocation) error {
	r.ids, r.kept = nil, row{}
	b := &pgx.Batch{}
	b.Queue(sqlBegin)
	b.Queue(s.sql.lockUser, r.user)
	// Read once the lock is held: sign-ins that came before are in the index, and
	// those that come after meet the fence.
	b.Queue(sqlClock).QueryRow(func(row pgx.Row) error { return row.Scan(&r.clock) })
	if r.keep.Valid {
		b.Queue(s.sql.lock, r.keep).QueryRow(r.kept.scan)
	}
	b.Queue(s.sql.userIDs, r.user).Query(func(rows pgx.Rows) error {
		var id pgtype.UUID
		var created time.Time
		_, err := pgx.ForEachRow(rows, []any{&id, &created}, func() error {
			r.ids = append(r.ids, id)
			return nil
		})
		return err
	})
	return send(ctx, conn, b)
}

func (s *Store) writeRevocation(ctx context.Context, conn *pgxpool.Conn, r *revocation) error {
	b := &pgx.Batch{}
	s.queueLapse(b, r.ids, r.user)
	s.queueEnd(b, r.ids, Revoked, "", r.user, r.mark, &r.ended)
	if len(r.tried) > 0 {
		s.queueMarked(b, append(r.tried, r.ids...), r.mark, &r.ended)
	}
	r.tried = append(r.tried, r.ids...)
	// Second, so that a session signed out in between by its own renewal is caught.
	s.queueEnd(b, r.ids, Revoked, SignedOut, r.user, newMark(), nil)
	if r.forget {
		b.Queue(s.sql.anonymize, r.ids, r.user)
		s.queueUnindex(b, r.user, r.ids)
		b.Queue(s.sql.forget, r.user)
	} else {
		b.Queue(s.sql.fence, r.user, r.clock).QueryRow(func(row pgx.Row) error { return row.Scan(&r.fence) })
	}
	b.Queue(sqlCommit)
	return send(ctx, conn, b)
}
