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

// The rule that the limit, the listing and RevokeAll rest on: a session becomes a
// live session of a user in one place, the transaction below, under that user's lock.
// Every other write is an UPDATE by id of a row that is alive and whose user stays
// the same. It never inserts, revives, or changes the user. (Anonymous sessions are
// inserted freely.)

// admission is that transaction: a session gets a user, changes its user, or continues
// under a new token.
//
// The first round trip locks the user's row in scs_users, then the session's row and
// that of the session it renews, and reads the user's sessions. What to do is decided
// in Go, while the locks are held. The second round trip evicts, writes, updates the
// user's index, and commits.
//
// It runs at READ COMMITTED, where each statement sees what was committed before the
// statement began. With a snapshot taken before the lock was granted, two sign-ins
// would not see each other, and both would find room.
type admission struct {
	write
	req    *request // nil if the store knows nothing of the request
	prior  *entry   // the session as the request loaded it; nil for a new token
	renews *entry   // the deleted session that the new token continues, or nil
	fresh  bool     // the token is new and this is the first attempt: its row need not be locked

	ip, userAgent *string // the client's; nil if unknown

	// Read under the lock.
	fence   pgtype.Timestamptz
	own     row
	renewed row
	created map[pgtype.UUID]time.Time // the user's index
	others  []candidate               // the user's other live sessions
	lapsed  []pgtype.UUID             // the user's sessions that have timed out
	stale   []pgtype.UUID             // index rows to delete: their sessions have ended or are gone
	reading clockReading

	sent []byte // the data of the last attempt, to recognize a commit whose answer was lost
}

// renewsEnded reports whether this would renew a session that had already ended, or
// belonged to another user, when the request deleted it.
func (a *admission) renewsEnded() bool {
	return a.renews != nil && a.renews.user == a.user &&
		(a.renews.took.state() != Active || a.renews.took.user != a.user)
}

// isRenewal reports whether the session continues one of the same user, and so keeps
// its age and its place in the limit. From an anonymous one it only takes the data.
func (a *admission) isRenewal() bool { return a.renews != nil && a.renews.user == a.user }

// admit runs the transaction.
func (s *Store) admit(ctx context.Context, a *admission) (out outcome, err error) {
	limit := 0
	if a.user != "" {
		if limit, err = s.cfg.limitOf(ctx, a.user); err != nil {
			return out, err
		}
		client := s.clientOf(ctx, a.req) // the app's code: before any lock or connection is taken
		a.ip, a.userAgent = addrText(client.IP), nullable(client.UserAgent)
		leave, err := s.queue.enter(ctx, a.user)
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
		// A statement of its own, and before all reads, so that these see what earlier
		// holders of the lock have committed.
		b.Queue(s.sql.lockUser, a.user).QueryRow(func(r pgx.Row) error { return r.Scan(&a.fence) })
	}
	if a.fresh {
		// Nobody else knows the token, so there should be no row to lock. If there is
		// one, the insert fails with a unique violation, and the retry locks it.
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

// queueUserRead queues the reads of the user's sessions: all of them if there is a
// limit to enforce, otherwise only the creation times of the sessions at hand.
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

// mayLive decides, under the locks, whether the session may be written. If not, a.own
// says what has become of it.
func (s *Store) mayLive(ctx context.Context, conn *pgxpool.Conn, a *admission) (bool, error) {
	switch own := a.own.state(); {
	case own == Active && a.own.user != "" && a.user == "" && !a.keyed:
		return false, errUnkeyed
	case own == Ended || own == Expired:
		return false, nil
	case own == Active && a.own.user == a.user && a.sent != nil && bytes.Equal(a.own.data, a.sent):
		return true, nil // an earlier attempt succeeded, and its answer was lost
	case own == None && (a.prior != nil || a.standIn):
		return false, nil // it existed and has been swept
	case a.prior != nil && a.own.user != a.prior.user:
		return false, nil // it has changed its user since the request loaded it
	case a.prior == nil && own == Active && a.own.user == a.user:
		return true, nil // a live session of this user whose state the request does not know
	case a.user == "":
		return a.prior != nil || !a.renewsEnded(), nil
	}
	if a.isRenewal() && (a.renewsEnded() || a.renewed.reason != SignedOut) {
		a.own = a.renewed // somebody else has ended it
		return false, nil
	}
	ok, err := a.passesFence(ctx, conn)
	if err == nil && !ok {
		a.own.present, a.own.reason = true, Revoked
	}
	return ok, err
}

func (s *Store) writeAdmission(ctx context.Context, conn *pgxpool.Conn, a *admission, victims []pgtype.UUID) (out outcome, err error) {
	data, ttl, conflict, merged := a.merged()
	evicted := 0
	b := &pgx.Batch{}
	if len(a.lapsed) > 0 {
		s.queueLapse(b, a.lapsed, a.user)
		// If a write has extended one of them before the lapse, it is alive again:
		// end it too.
		victims = append(victims, a.lapsed...)
	}
	if len(victims) > 0 {
		s.queueEnd(b, victims, Evicted, "", a.user, newMark(), &evicted)
		a.stale = append(a.stale, victims...)
	}
	if len(a.lapsed) > 0 {
		b.Queue(s.sql.empty, a.lapsed, a.user)
	}
	if a.renews != nil && a.renews.took.state() == Active {
		s.queueEnd(b, []pgtype.UUID{a.renews.id}, Renewed, SignedOut, a.renews.took.user, newMark(), nil)
		a.stale = append(a.stale, a.renews.id)
	}
	if a.own.present {
		b.Queue(s.sql.switchUser, a.id, nullable(a.user), data, ttl.Microseconds()).QueryRow(out.scanStamp)
	} else {
		b.Queue(s.sql.admit, a.id, nullable(a.user), data, ttl.Microseconds()).QueryRow(out.scanStamp)
	}
	if a.own.user != "" && a.own.user != a.user {
		// The sweep deletes the index row of the session's last user only.
		s.queueUnindex(b, a.own.user, []pgtype.UUID{a.id})
	}
	if a.user != "" {
		var created *time.Time // nil: now, by the database; set if the session is older than its token
		if t, ok := a.created[a.id]; ok && a.own.user == a.user {
			created = &t
		} else if a.isRenewal() {
			if t := cmp.Or(a.renews.created, a.created[a.renews.id]); !t.IsZero() {
				created = &t
			}
		}
		b.Queue(s.sql.index, a.user, a.id, created, a.ip, a.userAgent)
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
