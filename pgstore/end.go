package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// EndReason says why a session ended before its time. It is "" for one that did not.
type EndReason string

const (
	// SignedOut is a session that was destroyed, as a rule by its own user.
	SignedOut EndReason = "signed_out"
	// Revoked is a session that was ended from another one, or by the app.
	Revoked EndReason = "revoked"
	// Evicted is a session that made room for another under the user's limit.
	Evicted EndReason = "evicted"
	// Renewed is a session that lives on under a new token.
	Renewed EndReason = "renewed"
)

// newMark identifies one operation that ends sessions, so that after a lost answer
// another attempt can tell what is its own doing. Versions of live sessions are positive.
func newMark() int64 { return -1 - rand.Int64() }

// queueEnd ends sessions whose reason is from ("" for live ones). Every ending
// goes through here. user, where not "", must be theirs. n counts those that ended.
func (s *Store) queueEnd(b *pgx.Batch, ids []pgtype.UUID, reason, from EndReason, user string, mark int64, n *int) {
	sql, which := s.sql.endAll, any(ids)
	if len(ids) == 1 {
		sql, which = s.sql.end, ids[0]
	}
	b.Queue(sql, which, string(reason), nullable(string(from)), nullable(user), mark).Query(func(rows pgx.Rows) error {
		count := 0
		for rows.Next() {
			count++
		}
		if n != nil {
			*n = count
		}
		return rows.Err()
	})
}

// queueMarked counts, after the queueEnd, what earlier attempts have ended, too.
func (s *Store) queueMarked(b *pgx.Batch, ids []pgtype.UUID, mark int64, n *int) {
	b.Queue(s.sql.marked, ids, mark).QueryRow(func(r pgx.Row) error { return r.Scan(n) })
}

// queueLapse sees to it that sessions which have just timed out are not extended by a
// write that began before. It precedes the queueEnd for the same ids.
func (s *Store) queueLapse(b *pgx.Batch, ids []pgtype.UUID, user string) {
	underWay := max(minUnderWay, 2*s.cfg.Timeout)
	b.Queue(s.sql.lapse, ids, float64(underWay.Microseconds()), nullable(user))
}

// minUnderWay is the least that a write is allowed for, whatever this store's Timeout:
// other processes may have set another.
const minUnderWay = time.Minute

// queueUnindex removes index rows of sessions that have ended.
func (s *Store) queueUnindex(b *pgx.Batch, user string, ids []pgtype.UUID) {
	switch len(ids) {
	case 0:
	case 1:
		b.Queue(s.sql.unindex, user, ids[0])
	default:
		b.Queue(s.sql.unindexAll, user, ids)
	}
}

// Delete is DeleteCtx with context.Background().
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// DeleteCtx signs the session with this token out. It stays ended: the row is kept
// as a tombstone until the sweeper takes it. A token that names no live session is
// no error.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	id, standIn := idOf(token)
	req := s.requestOf(ctx)
	tracked := req != nil
	if !tracked {
		req = s.plain.of(ctx, knowing(id))
	}
	var e entry
	if req != nil {
		e, _ = req.entry(id)
	}
	var took row
	var at, created time.Time
	var ended int
	mark := newMark()
	err := s.do(ctx, "delete session", func(ctx context.Context) error {
		b := &pgx.Batch{}
		b.Queue(s.sql.lock, id).QueryRow(took.scan)
		b.Queue(sqlClock).QueryRow(func(r pgx.Row) error { return r.Scan(&at) })
		if e.user != "" {
			b.Queue(s.sql.anID, e.user, id).QueryRow(func(r pgx.Row) error { return optional(r.Scan(&id, &created)) })
		}
		s.queueLapse(b, []pgtype.UUID{id}, "")
		s.queueEnd(b, []pgtype.UUID{id}, SignedOut, "", "", mark, &ended)
		return send(ctx, s.pool, b)
	})
	if err != nil {
		return err
	}
	if took.reason == SignedOut && took.version == mark {
		// An earlier attempt got through, and its answer was lost, and the data with it.
		took.reason, took.version, took.data, ended = "", e.version, e.base, 1
	}
	s.stat.ended.Add(int64(ended))
	switch {
	case standIn: // of Iterate: no session of this request
		return nil
	case !tracked && took.user != "":
		req = s.plain.open(ctx, s, true, knowing(id))
	}
	if req != nil {
		req.deleted(id, took, ended > 0, at, created)
	}
	return nil
}

// optional is err, but that a row which is not there is none.
func optional(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// Revoke ends one session of the user, by the id that Sessions and IDOf give. It
// reports false, and does nothing, where the id is not that of a live session of
// this very user. A request in flight on that session cannot bring it back.
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
		req = s.plain.of(ctx, knowing(uid))
	}
	if req != nil {
		req.revoked(userID, func(gone pgtype.UUID) bool { return gone == uid })
	}
	return ended > 0, nil
}

// RevokeAll ends every session of the user, this request's own included, and
// returns how many were alive. It is a fence: a sign-in whose request began before
// it, and commits after, does not survive (under Track). The calling request itself
// may sign in again.
func (s *Store) RevokeAll(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "revoke all sessions", user: userID, mark: newMark()})
}

// RevokeOthers ends every session of the user but the one with keepToken, and
// returns how many were alive. It is a fence as RevokeAll is; renewals of the kept
// session pass it. keepToken must be that of a live session of this user, or the one
// that the calling request has just renewed under Track; otherwise it is an error,
// and nothing is revoked.
func (s *Store) RevokeOthers(ctx context.Context, userID, keepToken string) (int, error) {
	keep, standIn := idOf(keepToken)
	if keepToken == "" || standIn {
		return 0, errors.New("pgstore: revoke other sessions: the token to keep is not that of a session: " +
			"pass sm.Token(ctx) of a session that has been committed")
	}
	return s.revokeUser(ctx, &revocation{op: "revoke other sessions", user: userID, keep: keep, mark: newMark()})
}

// Forget removes what the tables hold of a user whose account is deleted: it ends
// the user's sessions, takes the user's id off what stays of them until the sweep,
// and deletes addresses, user agents and the fence. It returns how many sessions
// were alive. Delete the account first: a sign-in that starts later, or is still
// under way, starts the user afresh. Tombstones of sessions that a later sign-in has
// replaced are no longer found by their user: they are empty, and keep the bare id
// until the sweeper takes them.
func (s *Store) Forget(ctx context.Context, userID string) (int, error) {
	return s.revokeUser(ctx, &revocation{op: "forget user", user: userID, forget: true, mark: newMark()})
}

// revocation ends the sessions of a user under the user's lock.
type revocation struct {
	op     string
	user   string
	keep   pgtype.UUID // invalid: none
	forget bool

	mark  int64
	clock time.Time
	kept  row
	ids   []pgtype.UUID
	tried []pgtype.UUID // the ids of earlier attempts
	fence time.Time
	ended int
}

func (s *Store) revokeUser(ctx context.Context, r *revocation) (int, error) {
	if err := checkUserID(r.op, r.user); err != nil {
		return 0, err
	}
	req := s.requestOf(ctx)
	if req == nil {
		req = s.plain.open(ctx, s, true, having(r.user))
	}
	// What this request is renewing has no live row just now, and is its own.
	var renewing *entry
	if req != nil && !r.forget {
		if renewing = req.predecessor(r.user); renewing != nil && (renewing.user != r.user || renewing.took.state() != Active) {
			renewing = nil
		}
	}
	err := s.do(ctx, r.op, func(ctx context.Context) error {
		leave, err := s.users.enter(ctx, r.user)
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
				return fmt.Errorf("the token to keep is not that of a live session of this user; nothing was revoked")
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
