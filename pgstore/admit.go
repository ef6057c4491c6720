package pgstore

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// admission is the one transaction in which a session becomes a live session of a
// user, is handed from one user to another, or continues under a new token.
//
// Round trip one takes the user's lock, then the session's row and that of the
// session it renews, then reads what the user has. The rest is decided here, under
// the lock; round trip two evicts, writes, indexes and commits.
//
// It runs at READ COMMITTED, where each statement sees what was committed before it
// began. Under a snapshot older than the lock, two sign-ins would count each other
// out and both find room.
type admission struct {
	write
	req    *request // nil where the store knows nothing of the request
	prior  *entry   // the session as its request found it; nil for a new token
	renews *entry   // the session that this request deleted, and that this one continues
	fresh  bool     // the token was made by this request, and has not been tried yet

	// Read under the lock.
	fence   pgtype.Timestamptz
	own     row
	renewed row
	created map[pgtype.UUID]time.Time // the user's index
	others  []candidate               // the user's other live sessions
	lapsed  []pgtype.UUID             // those that have timed out
	stale   []pgtype.UUID             // index rows of those that have ended
	reading clockReading

	sent []byte // the data that an earlier attempt has tried to store
}

// renewsEnded reports whether this is the renewal of a session that its request
// found ended, or in other hands, when it came to delete it.
func (a *admission) renewsEnded() bool {
	return a.renews != nil && a.renews.user == a.user &&
		(a.renews.took.state() != Active || a.renews.took.user != a.user)
}

// isRenewal reports whether the user stays: then the session keeps its age and its
// place. An anonymous predecessor only hands over its data.
func (a *admission) isRenewal() bool { return a.renews != nil && a.renews.user == a.user }

// admit runs the transaction.
func (s *Store) admit(ctx context.Context, a *admission) (out outcome, err error) {
	limit := 0
	if a.user != "" {
		if limit, err = s.cfg.limitOf(ctx, a.user); err != nil {
			return out, err
		}
		leave, err := s.users.enter(ctx, a.user)
		if err != nil {
			return out, err
		}
		defer leave()
	}
	err = s.onConn(ctx, func(conn *pgxpool.Conn) error {
		out = outcome{}
		if err := s.readAdmission(ctx, conn, a, limit); err != nil {
			return err
		}
		if ok, err := s.mayLive(ctx, conn, a); err != nil || !ok {
			out.found = a.own
			return err
		}
		victims, err := s.makeRoom(ctx, conn, a, limit)
		if err != nil {
			return err
		}
		out, err = s.writeAdmission(ctx, conn, a, victims)
		return err
	})
	return out, err
}

func (s *Store) readAdmission(ctx context.Context, conn *pgxpool.Conn, a *admission, limit int) error {
	a.renewed, a.created, a.others, a.lapsed, a.stale = row{}, nil, nil, nil, nil
	b := &pgx.Batch{}
	b.Queue(sqlBegin)
	if a.user != "" {
		b.Queue(sqlClock).QueryRow(func(r pgx.Row) error { return r.Scan(&a.reading.clock) })
		// Alone and first: what follows must see what its holders have committed.
		b.Queue(s.sql.lockUser, a.user).QueryRow(func(r pgx.Row) error { return r.Scan(&a.fence) })
	}
	if a.fresh {
		// Nobody else knows the token. Should its row be there all the same, the
		// insert fails, and the next attempt looks.
		a.own = row{}
	} else {
		b.Queue(s.sql.lock, a.id).QueryRow(a.own.scan)
	}
	if a.renews != nil {
		b.Queue(s.sql.lock, a.renews.id).QueryRow(a.renewed.scan)
	}
	if a.user != "" {
		s.queueUserRead(b, a, limit)
	}
	a.reading.asked = time.Now()
	a.fresh = false
	err := send(ctx, conn, b)
	a.reading.heard = time.Now()
	return err
}

// queueUserRead asks for what the user has: all of it where there is a limit to
// keep, otherwise only the ages of the sessions at hand.
func (s *Store) queueUserRead(b *pgx.Batch, a *admission, limit int) {
	a.created = make(map[pgtype.UUID]time.Time)
	readAge := func(rows pgx.Rows) error {
		var id pgtype.UUID
		var created time.Time
		_, err := pgx.ForEachRow(rows, []any{&id, &created}, func() error {
			a.created[id] = created
			return nil
		})
		return err
	}
	if limit == 0 {
		if !a.fresh {
			b.Queue(s.sql.anID, a.user, a.id).Query(readAge)
		}
		if a.isRenewal() && a.renews.created.IsZero() {
			b.Queue(s.sql.anID, a.user, a.renews.id).Query(readAge)
		}
		return
	}
	b.Queue(s.sql.userIDs, a.user).Query(readAge)
	b.Queue(s.sql.userRows, a.user).Query(func(rows pgx.Rows) error {
		var c candidate
		var unexpired, gone bool
		stored := make(map[pgtype.UUID]bool, len(a.created))
		_, err := pgx.ForEachRow(rows, []any{&c.id, &c.seen, &unexpired, &gone}, func() error {
			stored[c.id] = true
			switch {
			case c.id == a.id:
			case gone:
				a.stale = append(a.stale, c.id)
			case unexpired:
				c.created = a.created[c.id]
				a.others = append(a.others, c)
			default:
				a.lapsed = append(a.lapsed, c.id)
			}
			return nil
		})
		for id := range a.created {
			if !stored[id] && id != a.id {
				a.stale = append(a.stale, id)
			}
		}
		return err
	})
}

// mayLive decides, under the locks, whether the write may go through at all.
func (s *Store) mayLive(ctx context.Context, conn *pgxpool.Conn, a *admission) (bool, error) {
	switch own := a.own.state(); {
	case own == Ended || own == Expired:
		return false, nil
	case own == Active && a.own.user == a.user && a.sent != nil && bytes.Equal(a.own.data, a.sent):
		return true, nil // an earlier attempt got through, and its answer was lost
	case own == None && (a.prior != nil || a.standIn):
		return false, nil // it was there, and has been swept
	case a.prior != nil && a.own.user != a.prior.user:
		return false, nil // it has changed hands since it was found
	case a.prior == nil && own == Active && a.own.user == a.user:
		return true, nil // the same, of a token that this attempt need not continue
	case a.user == "":
		return a.prior != nil || !a.renewsEnded(), nil
	}
	if !a.isRenewal() {
		began, err := a.beganAfterFence(ctx, conn)
		return err == nil && a.passes(began), err
	}
	if a.renewsEnded() || a.renewed.reason != SignedOut {
		a.own = a.renewed
		return false, nil
	}
	// It was alive when it was deleted: a fence set before that had spared it.
	return a.passes(a.renews.deletedAt.After(a.fence.Time)), nil
}

func (s *Store) writeAdmission(ctx context.Context, conn *pgxpool.Conn, a *admission, victims []pgtype.UUID) (out outcome, err error) {
	data, ttl, conflict, merged := a.merged()
	evicted := 0
	b := &pgx.Batch{}
	if len(a.lapsed) > 0 {
		s.queueLapse(b, a.lapsed, a.user)
		victims = append(victims, a.lapsed...) // should a write have been first
	}
	if len(victims) > 0 {
		s.queueEnd(b, victims, Evicted, "", a.user, newMark(), &evicted)
		a.stale = append(a.stale, victims...)
	}
	if a.renews != nil && a.renews.took.state() == Active {
		s.queueEnd(b, []pgtype.UUID{a.renews.id}, Renewed, SignedOut, a.renews.took.user, newMark(), nil)
		a.stale = append(a.stale, a.renews.id)
	}
	switch {
	case a.own.present:
		b.Queue(s.sql.switchUser, a.id, nullable(a.user), data, ttl.Microseconds()).QueryRow(out.scanStamp)
	default:
		b.Queue(s.sql.admit, a.id, nullable(a.user), data, ttl.Microseconds()).QueryRow(out.scanStamp)
	}
	if a.own.user != "" && a.own.user != a.user {
		s.queueUnindex(b, a.own.user, []pgtype.UUID{a.id}) // the sweep will know the last user only
	}
	if a.user != "" {
		client := s.clientOf(ctx, a.req)
		var created *time.Time // the database's now, unless the session is older than its token
		if t, ok := a.created[a.id]; ok && a.own.user == a.user {
			created = &t
		} else if a.isRenewal() {
			if t := cmp.Or(a.renews.created, a.created[a.renews.id]); !t.IsZero() {
				created = &t
			}
		}
		b.Queue(s.sql.index, a.user, a.id, created, addrText(client.IP), nullable(client.UserAgent))
		s.queueUnindex(b, a.user, a.stale)
	}
	b.Queue(sqlCommit)
	a.sent = data
	if err := send(ctx, conn, b); err != nil {
		return outcome{}, err
	}
	out.data, out.conflict, out.merged = data, conflict, merged
	out.evicted, out.admitted = evicted, a.user != ""
	return out, nil
}
