package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// maxDataBytes leaves room for the rest of the message in PostgreSQL's limit of
// 1 GB for a field (https://www.postgresql.org/docs/current/limits.html).
const maxDataBytes = 1<<30 - 1<<16

// anyVersion, as the version that an update expects, lets it overwrite whatever is
// there: the last write wins.
const anyVersion = 0

// write is one call of CommitCtx, checked by newWrite.
type write struct {
	id      pgtype.UUID
	standIn bool   // the token was a key of All: an existing session, never inserted
	data    []byte // never nil
	user    string // "" while anonymous
	keyed   bool   // data says whose session it is, if only that it is nobody's
	ttl     time.Duration
	noTouch bool // the request must not extend its session
}

// newWrite checks what can be checked without the database.
func (s *Store) newWrite(ctx context.Context, req *request, token string, data []byte, expiry time.Time) (write, error) {
	if len(data) > maxDataBytes {
		return write{}, fmt.Errorf("pgstore: commit session: %d bytes of data: PostgreSQL stores at most 1 GB in a field; "+
			"keep large values in a table of their own and their key in the session", len(data))
	}
	user, keyed, ok := frame.User(data)
	if s.cfg.limited() && !(ok && keyed) {
		return write{}, errors.New("pgstore: commit session: a user limit is set, but the data does not say whose session it is: " +
			"set SessionManager.Codec = pgstore.Codec{UserKey: ...} to the session key that holds the user's id")
	}
	if user != "" {
		if err := validUserID(user); err != nil {
			return write{}, fmt.Errorf("pgstore: commit session: %w", err)
		}
	}
	w := write{data: data, user: user, keyed: ok && keyed, ttl: time.Until(expiry)}
	if w.data == nil {
		w.data = []byte{}
	}
	w.id, w.standIn = idOf(token)
	w.noTouch = ctx.Value(noTouchKey{}) != nil || req != nil && req.noTouch.Load()
	return w, nil
}

// Commit is CommitCtx with context.Background().
func (s *Store) Commit(token string, data []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expiry)
}

// CommitCtx stores data as the session with this token. The time from now to expiry
// is its time to live on the database's clock. If the session has ended or expired
// meanwhile, or belongs to another user, the write is dropped and CommitCtx returns
// nil: Stat.Dropped counts it, and StatusOf says why. A commit that gives the session
// a user is a sign-in, and may return ErrUserLimit.
//
// Under Track, data that equals what the request loaded is not written; if another
// request has written the session since it was loaded, the changes of both are merged
// key by key; and a new token continues the session that the same request deleted, if
// there is one.
func (s *Store) CommitCtx(ctx context.Context, token string, data []byte, expiry time.Time) error {
	req := s.requestOf(ctx)
	w, err := s.newWrite(ctx, req, token, data, expiry)
	if err != nil {
		return err
	}
	var alive bool
	switch {
	case w.standIn: // of Iterate: no session of this request
		alive, err = s.commitPlain(ctx, nil, w)
	case req == nil:
		s.noteUntracked(ctx)
		alive, err = s.commitPlain(ctx, s.plain.of(ctx, continuing(w.id, w.user)), w)
	default:
		alive, err = s.commitTracked(ctx, req, w)
	}
	if committed, ok := ctx.Value(aliveKey{}).(*bool); ok {
		*committed = alive && w.ttl > 0
	}
	return err
}

// commitPlain commits without Track: the last write wins, as scs documents it. req is
// what plainRequests knows of the request, or nil. alive reports whether the session
// is alive afterwards.
func (s *Store) commitPlain(ctx context.Context, req *request, w write) (alive bool, err error) {
	a := admission{write: w, req: req}
	if req != nil {
		if e, known := req.entry(w.id); known && e.state == Ended {
			s.stat.dropped.Add(1)
			return false, nil
		}
		a.renews = req.predecessor(w.user)
	}
	var out outcome
	err = s.do(ctx, "commit session", func(ctx context.Context) error {
		var err error
		if out, err = s.update(ctx, w, anyVersion); err != nil || out.written {
			return err
		}
		if w.user == "" && !w.standIn {
			if out, err = s.insert(ctx, w); err != nil || out.written {
				return err
			}
		}
		out, err = s.admit(ctx, &a)
		return err
	})
	if err != nil {
		return false, err
	}
	s.count(out)
	switch {
	case req == nil:
	case !out.written:
		// After a failed SignIn, LoadAndSave commits this token again, without the
		// user's id. Remember that it was refused.
		req.put(entry{id: w.id, state: Ended})
	case a.renews != nil:
		req.markRenewed(a.renews.id)
	}
	return out.written, nil
}

// commitTracked commits under Track, which knows what the request has loaded.
func (s *Store) commitTracked(ctx context.Context, req *request, w write) (alive bool, err error) {
	e, known := req.entry(w.id)
	if e.absent() {
		e, known = entry{}, false // scs would draw a new token; this one is as good
	}
	if known && e.state != Active {
		// It had already ended when this request loaded it, or this request ended it.
		s.stat.dropped.Add(1)
		return false, nil
	}
	if known && w.user == e.user && frame.Same(e.base, w.data) {
		return true, s.touchIfDue(ctx, req, e, w.ttl)
	}

	a := admission{write: w, req: req, fresh: !known}
	if known {
		a.prior = &e
	}
	if !known || w.user != e.user {
		a.renews = req.predecessor(w.user)
	}
	if !known && a.renewsEnded() {
		// Somebody else ended the session that the new token continues.
		e = *a.renews
		e.id, e.pending, e.loaded = w.id, false, false
		req.put(e)
		s.stat.dropped.Add(1)
		return false, nil
	}

	var out outcome
	err = s.do(ctx, "commit session", func(ctx context.Context) error {
		var err error
		switch {
		case known && w.user == e.user:
			if e.exact {
				if out, err = s.update(ctx, w, e.version); err != nil || out.written {
					return err
				}
			}
			out, err = s.merge(ctx, &a)
			return err
		case !known && w.user == "" && a.renews == nil:
			if out, err = s.insert(ctx, w); err != nil || out.written {
				return err
			}
			a.fresh = false
		}
		out, err = s.admit(ctx, &a)
		return err
	})
	if err != nil {
		return false, err
	}
	s.count(out)
	if out.written && a.renews != nil {
		req.markRenewed(a.renews.id)
	}
	req.put(e.after(w, known, out))
	return out.written, nil
}

// after returns what is known of the session once the commit w has had this outcome.
// known says whether e was known before, or is the zero entry.
func (e entry) after(w write, known bool, out outcome) entry {
	at := time.Now()
	e.id, e.saved = w.id, true
	if !out.written {
		e.stamp, e.at = out.found.stamp, at
		e.state, e.reason = out.found.lost()
		return e
	}
	if w.noTouch && known {
		// scanStamp takes the database's time from last_seen_at, which a write under
		// NoTouch leaves alone: go on from the earlier stamp instead.
		out.now = e.now.Add(at.Sub(e.at))
	}
	e.state, e.reason, e.user, e.loaded = Active, "", w.user, true
	e.stamp, e.at = out.stamp, at
	e.base, e.exact = w.data, bytes.Equal(w.data, out.data)
	return e
}

// count adds what became of a write to the counters.
func (s *Store) count(out outcome) {
	c := &s.stat
	if !out.written {
		c.dropped.Add(1)
		return
	}
	c.writes.Add(1)
	c.evictions.Add(int64(out.evicted))
	if out.admitted {
		c.signIns.Add(1)
	}
	if out.conflict {
		c.conflicts.Add(1)
	}
	if out.merged {
		c.merges.Add(1)
	}
}

// update writes the data of a live session whose user stays.
func (s *Store) update(ctx context.Context, w write, version int64) (out outcome, err error) {
	err = out.scanStamp(s.pool.QueryRow(ctx, s.updateOf(w), w.id, w.data, w.ttl.Microseconds(), nullable(w.user), version))
	out.data = w.data
	return out, err
}

// updateOf is the statement that w takes.
func (s *Store) updateOf(w write) string {
	if w.noTouch {
		return s.sql.updateOnly
	}
	return s.sql.update
}

// insert writes a new anonymous session, unless the row is there.
func (s *Store) insert(ctx context.Context, w write) (out outcome, err error) {
	err = out.scanStamp(s.pool.QueryRow(ctx, s.sql.insert, w.id, w.data, w.ttl.Microseconds()))
	out.data = w.data
	return out, err
}

// touchIfDue sets the session's last-seen time to now and its expiry to ttl from now,
// but never to an earlier one: with a ttl of 0 expiry stays. It does nothing while
// both would move by less than touchAfter, or under NoTouch.
func (s *Store) touchIfDue(ctx context.Context, req *request, e entry, ttl time.Duration) error {
	elapsed := time.Since(e.at)
	unseen := e.now.Sub(e.seen) + elapsed
	gain := ttl - (e.expiry.Sub(e.now) - elapsed)
	after := s.cfg.touchAfter(max(ttl, e.window))
	noTouch := ctx.Value(noTouchKey{}) != nil || req.noTouch.Load()
	if noTouch || unseen < after && gain < after {
		s.stat.skips.Add(1)
		e.saved = true
		req.putIfUnchanged(e)
		return nil
	}
	var out outcome
	var found row
	err := s.do(ctx, "touch session", func(ctx context.Context) error {
		version, ttl := e.version, ttl
		for n := 1; ; n++ {
			b := &pgx.Batch{}
			b.Queue(sqlAsync).QueryRow(discard)
			b.Queue(s.sql.touch, e.id, ttl.Microseconds(), nullable(e.user), version).QueryRow(out.scanStamp)
			if err := send(ctx, s.pool, b); err != nil || out.written {
				return err
			}
			if err := found.scan(s.pool.QueryRow(ctx, s.sql.find, e.id)); err != nil || n == maxTouches {
				return err
			}
			// Another request has written data since. As a rule it has extended the session,
			// too, but not under NoTouch. It may also have set an earlier deadline.
			deadline, ok := frame.Deadline(found.data)
			if !ok || found.state() != Active || found.user != e.user {
				return nil
			}
			ttl = min(ttl, time.Until(deadline))
			if found.now.Sub(found.seen) < after && ttl-found.expiry.Sub(found.now) < after {
				return nil
			}
			version = found.version
		}
	})
	if err != nil {
		return err
	}
	e.saved, e.at = true, time.Now()
	switch {
	case out.written:
		s.stat.touches.Add(1)
		e.exact = e.exact && out.version == e.version
		e.stamp = out.stamp
	case found.state() == Active && found.user == e.user:
		s.stat.skips.Add(1)
		e.stamp, e.exact = found.stamp, false
	default:
		s.stat.dropped.Add(1)
		e.stamp = found.stamp
		e.state, e.reason = found.lost()
	}
	req.putIfUnchanged(e)
	return nil
}

// maxTouches bounds how often a touch is tried beside requests that write data.
const maxTouches = 3

// nullable returns a pointer to user for use as a column value, nil (NULL) for "".
func nullable(user string) *string {
	if user == "" {
		return nil
	}
	return &user
}
