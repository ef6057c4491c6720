package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// maxDataBytes leaves room for the rest of the message in PostgreSQL's limit of
// 1 GB for a field (https://www.postgresql.org/docs/current/limits.html).
const maxDataBytes = 1<<30 - 1<<16

// write is one call of CommitCtx, checked by newWrite.
type write struct {
	rules.Commit
	standIn bool  // the token was a key of All
	version int64 // of the session when All read it
}

// row is what is written to the session's row.
func (w *write) row() db.Write {
	return db.Write{ID: w.ID, User: w.User, Data: w.Data, TTL: w.TTL, Unseen: w.Unseen}
}

// newWrite checks what can be checked without the database.
func (s *Store) newWrite(ctx context.Context, req *tracked, token string, data []byte, expiry time.Time) (w write, err error) {
	if len(data) > maxDataBytes {
		return w, fmt.Errorf("%d bytes of data: PostgreSQL stores at most 1 GB in a field; "+
			"keep large values in a table of their own and their key in the session", len(data))
	}
	user, keyed, ok := frame.User(data)
	if s.cfg.limited() && !(ok && keyed) {
		return w, errors.New("a user limit is set, but the data does not say whose session it is: " +
			"set SessionManager.Codec = pgstore.Codec{UserKey: ...} to the session key that holds the user's id")
	}
	s.noteUser(ctx, user)
	if user != "" {
		if err := validUserID(user); err != nil {
			return w, err
		}
	}
	w.ID, w.version, w.standIn = idOf(token)
	_, w.SignIn = ctx.Value(aliveKey{}).(*bool)
	w.User, w.Keyed = user, ok && keyed
	w.TTL, w.Unseen = time.Until(expiry), mustNotTouch(ctx, req)
	if w.Data = data; data == nil {
		w.Data = []byte{}
	}
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
// key by key; and a new token continues the session that the same request has renewed, if
// there is one. If a handler takes longer than the idle timeout, its session has timed out
// when it is committed, unless another request has extended it.
func (s *Store) CommitCtx(ctx context.Context, token string, data []byte, expiry time.Time) error {
	req := s.calledIn(ctx)
	w, err := s.newWrite(ctx, req, token, data, expiry)
	if err != nil {
		return opError("commit session", err)
	}
	var alive bool
	switch {
	case w.standIn:
		alive, err = s.commitStandIn(ctx, w)
	case req == nil:
		alive, err = s.commitPlain(ctx, w)
	default:
		alive, err = s.commitTracked(ctx, req, w)
	}
	if committed, ok := ctx.Value(aliveKey{}).(*bool); ok {
		*committed = alive && w.TTL > 0
	}
	return err
}

// outcome is the result of a write to the database.
type outcome struct {
	db.Written
	rules.Merged         // if written: what the row holds now
	met          row.Row // if not: the row that was met
	signedIn     bool    // it was a sign-in or a renewal
	evicted      int     // sessions that were ended to make room
}

// commitPlain commits without Track: the last write wins, as scs documents it. alive
// reports whether the session is alive afterwards.
func (s *Store) commitPlain(ctx context.Context, w write) (alive bool, err error) {
	tx := s.newSignInTx(nil, w)
	var out outcome
	err = s.do(ctx, "commit session", func(ctx context.Context) (err error) {
		out = outcome{Merged: rules.Merged{Bytes: w.Data}}
		if out.Written, err = s.db.Update(ctx, w.row(), db.AnyVersion); err != nil || out.OK {
			return err
		}
		if w.User == "" {
			if out.Written, err = s.db.Insert(ctx, w.row()); err != nil || out.OK {
				return err
			}
		}
		out, err = tx.run(ctx)
		return err
	})
	if err == nil {
		s.countWrite(out)
	}
	return out.OK, err
}

// commitStandIn commits under a key of All, for Iterate: over the version that All has
// read, and without extending the session or changing whose it is.
func (s *Store) commitStandIn(ctx context.Context, w write) (alive bool, err error) {
	w.Unseen = true
	tx := s.newSignInTx(nil, w)
	f := &tx.facts
	var out outcome
	err = s.do(ctx, "commit session", func(ctx context.Context) (err error) {
		if f.Sent != nil {
			if f.Current, err = s.db.Find(ctx, w.ID); err != nil {
				return err
			}
			if earlier := f.Attempted(); earlier != rules.Granted {
				out, err = tx.repeated(earlier)
				return err
			}
		}
		out.Written, err = tx.send(w.Data, w.version, func() (db.Written, error) { return s.db.Update(ctx, w.row(), w.version) })
		return err
	})
	if err == nil && !out.OK {
		err = ErrStale
	}
	if err == nil {
		s.countWrite(out)
	}
	return out.OK, err
}

// commitTracked commits under Track, which knows what the request has loaded.
func (s *Store) commitTracked(ctx context.Context, req *tracked, w write) (alive bool, err error) {
	known, ok := req.Session(w.ID)
	if ok && known.Phase != request.Absent { // scs would draw another token for it; this one is as good
		w.Session = &known
	}
	var left []request.Session
	if w.Session == nil || known.User != w.User {
		left, w.HadOver = req.Left(), req.HadOver(w.User)
		for _, s := range req.Renewing() { // or signing in on
			if w.SignIn && (s.User == "" || s.User == w.User) {
				left = append(left, s)
			}
		}
		w.Left = rules.LeftOf(left)
	}
	way := w.Way()
	switch way {
	case rules.Keep:
		return true, s.touchIfDue(ctx, req, known, w.TTL)
	case rules.DropWith:
		req.LostWith(w.ID, *w.HadOver)
		fallthrough
	case rules.Drop:
		s.count(func(c *Stat) { c.Dropped++ })
		return false, nil
	}

	tx := s.newSignInTx(req, w)
	tx.stays = way == rules.Update || way == rules.Merge
	tx.fresh = w.Session == nil && way == rules.SignIn
	var out outcome
	err = s.do(ctx, "commit session", func(ctx context.Context) (err error) {
		out = outcome{Merged: rules.Merged{Bytes: w.Data}}
		first := tx.facts.Sent == nil // else the row must show what has become of the earlier attempt
		switch {
		case first && way == rules.Update:
			out.Written, err = tx.send(w.Data, known.Version, func() (db.Written, error) { return s.db.Update(ctx, w.row(), known.Version) })
		case first && way == rules.Insert:
			out.Written, err = tx.send(w.Data, 0, func() (db.Written, error) { return s.db.Insert(ctx, w.row()) })
		}
		if err == nil && !out.OK {
			out, err = tx.run(ctx)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	s.countWrite(out)
	if !out.OK {
		if !w.SignIn { // else the commit that follows may still make it nobody's session
			req.Lost(w.ID, out.met)
		}
		return false, nil
	}
	if w.Unseen && w.Session != nil {
		out.Now = known.Now.Add(time.Since(known.TakenAt)) // see db.Written
	}
	req.Stored(w.ID, w.User, w.Data, out.Stamp, bytes.Equal(w.Data, out.Bytes), left)
	return true, nil
}

// countWrite adds what became of a write to the counters.
func (s *Store) countWrite(out outcome) {
	s.count(func(c *Stat) {
		if !out.OK {
			c.Dropped++
			return
		}
		c.Writes++
		c.Evictions += int64(out.evicted)
		if out.signedIn {
			c.SignIns++
		}
		if out.Conflict {
			c.Conflicts++
		}
		if out.Kept {
			c.Merges++
		}
	})
}

// touchIfDue sets the session's last-seen time to now and its expiry to ttl from now,
// but never to an earlier one: with a ttl of 0 expiry stays. It does nothing while
// both would move by less than touchAfter, or under NoTouch, or if another request has
// written data since, which as a rule has extended the session, too. But of a session that this
// request has stored before it makes sure that nobody has ended it: its cookie is to go out.
func (s *Store) touchIfDue(ctx context.Context, req *tracked, known request.Session, ttl time.Duration) error {
	after := s.cfg.touchAfter(max(ttl, known.Window))
	due := !mustNotTouch(ctx, req) && rules.TouchDue(known.Stamp, time.Since(known.TakenAt), ttl, after)
	if !due && !known.New && !known.Written {
		s.count(func(c *Stat) { c.Skips++ })
		req.NotTouched(known, known.Version)
		return nil
	}
	var out db.Written
	var met row.Row
	err := s.do(ctx, "touch session", func(ctx context.Context) (err error) {
		if due {
			if out, err = s.db.Touch(ctx, known.ID, known.User, known.Version, ttl); err != nil || out.OK {
				return err
			}
		}
		met, err = s.db.Find(ctx, known.ID)
		return err
	})
	switch {
	case err != nil:
		return err
	case out.OK:
		s.count(func(c *Stat) { c.Touches++ })
		req.Touched(known, out.Stamp)
	case met.Alive() && met.User == known.User:
		s.count(func(c *Stat) { c.Skips++ })
		req.NotTouched(known, met.Version)
	default:
		s.count(func(c *Stat) { c.Dropped++ })
		req.Lost(known.ID, met)
	}
	return nil
}
