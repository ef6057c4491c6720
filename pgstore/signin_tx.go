package pgstore

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// The rule that the limit, the listing and RevokeAll rest on: a session becomes a
// live session of a user in one place, the transaction below, under that user's lock.
// Every other write is an UPDATE by id of a row that is alive and whose user stays
// the same. It never inserts, revives, or changes the user. (Anonymous sessions are
// inserted freely. Import and Reindex have a second such place, takeOver.)

// signInTx is that transaction: a session gets a user, changes its user, or continues
// under a new token. The first round trip locks the user's row in scs_users, the session's
// row and those of the sessions that the request has left for it, and reads the user's
// sessions. If somebody else has continued one of these, further ones follow the links.
// Package rules then decides, while the locks are held. The last round trip evicts, writes,
// updates the user's index, and commits.
//
// A session that stays its user's goes the same way, without the user's lock, if others have
// written it: while its row is locked the changes are merged, so nothing has to be repeated.
//
// It runs at READ COMMITTED. With a snapshot taken before the lock was granted, two
// sign-ins would not see each other, and both would find room.
type signInTx struct {
	store  *Store
	req    *tracked // nil without Track
	write  write
	facts  rules.Facts
	stays  bool // the session stays its user's
	fresh  bool // nobody else knows the token, and this is the first attempt: its row need not be locked
	client db.Client
	// trimmed: the user has more sessions than are read at once, but no more than may be.
	trimmed bool
}

// newSignInTx returns the transaction for w, of a request that may be nil.
func (s *Store) newSignInTx(req *tracked, w write) *signInTx {
	tx := &signInTx{store: s, req: req, write: w, facts: rules.Facts{Commit: w.Commit, Policy: rules.Policy(s.cfg.LimitPolicy)}}
	tx.facts.Continues, tx.facts.Renewal = w.Continues()
	if req != nil {
		tx.facts.Began = req.began
		tx.facts.Exempt = func(fence time.Time) bool { return req.Exempt(w.User, fence) }
	}
	return tx
}

// enters reports whether the session enters the index of a user, or stays in it anew.
func (tx *signInTx) enters() bool { return tx.facts.User != "" && !tx.stays }

// run runs the transaction.
func (tx *signInTx) run(ctx context.Context) (out outcome, err error) {
	s, f := tx.store, &tx.facts
	if tx.enters() {
		// The app's code, before any lock or connection is taken.
		if f.Limit, err = s.cfg.limitOf(ctx, f.User); err != nil {
			return out, err
		}
		tx.client = db.Client(s.clientOf(ctx, tx.req))
		leave, err := s.db.Turns.Enter(ctx, f.User)
		if err != nil {
			return out, err
		}
		defer leave()
	}
	out, err = tx.attempt(ctx)
	if errors.Is(err, errTooMany) {
		if err = tx.trim(ctx); err == nil {
			tx.trimmed = true // what is left is within the limit
			out, err = tx.attempt(ctx)
		}
	}
	return out, err
}

// attempt runs the transaction once.
func (tx *signInTx) attempt(ctx context.Context) (out outcome, err error) {
	s, f := tx.store, &tx.facts
	err = s.db.InTx(ctx, func(t *db.Tx) error {
		if err := tx.read(ctx, t); err != nil {
			return err
		}
		if len(f.Others) > pageSize && !tx.trimmed {
			return errTooMany
		}
		v := f.Verdict()
		if err := tx.refused(v.Outcome); err != nil {
			return err
		}
		switch v.Outcome {
		case rules.Granted:
			if err := f.Unreadable(); err != nil {
				return &sealError{err}
			}
			out, err = tx.carryOut(ctx, t, v)
			return err
		case rules.Lost:
			out = outcome{met: v.Met}
			return nil
		default:
			out, err = tx.repeated(v.Outcome)
			return err
		}
	})
	return out, err
}

// refused returns the error of an attempt that does not go on, or nil.
func (tx *signInTx) refused(o rules.Outcome) error {
	switch o {
	case rules.Refused:
		tx.store.count(func(c *Stat) { c.Refusals++ })
		return ErrUserLimit
	case rules.Unkeyed:
		return errUnkeyed
	case rules.Unsettled:
		tx.facts.Tries++
		return db.ErrUnsettled
	default:
		return nil
	}
}

// errTooMany: the user has more sessions than are read at once.
var errTooMany = errors.New("the user has too many sessions")

// trim makes the sessions of a user few enough to be read at once, page by page, each in a
// transaction of its own: if the time does not suffice, the next sign-in goes on. It ends
// what is beyond the limit, and takes what is gone out of the index.
func (tx *signInTx) trim(ctx context.Context) error {
	s, f := tx.store, &tx.facts
	var kept []row.UserSession
	var after pgtype.UUID
	for full := true; full; {
		err := s.db.InTx(ctx, func(t *db.Tx) error {
			var page []row.UserSession
			b := t.Begin()
			b.LockUser(f.User, &f.Fence)
			b.UserSessions(f.User, after, pageSize, &page)
			b.Clock(&f.Clock)
			if err := t.Send(ctx, b); err != nil {
				return err
			}
			if full = len(page) == pageSize; len(page) > 0 {
				after = page[len(page)-1].ID
			}
			f.Others = append(kept, page...)
			v := f.Trim()
			if err := tx.refused(v.Outcome); err != nil {
				return err
			}
			kept = v.Stay
			evicted := 0
			b, err := tx.end(ctx, t, v, &evicted)
			if err != nil {
				return err
			}
			if err := t.Commit(ctx, b); err != nil {
				return err
			}
			s.count(func(c *Stat) { c.Evictions += int64(evicted) })
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// end returns a batch that ends the sessions that have to go, and takes them out of the index.
func (tx *signInTx) end(ctx context.Context, t *db.Tx, v rules.Verdict, evicted *int) (*db.Batch, error) {
	f := &tx.facts
	end := db.Ending{Reason: row.Evicted, User: f.User, Ended: new([]pgtype.UUID)}
	b := t.Batch()
	b.TimeOut(v.TimedOut, f.User, f.Clock.Read)
	ended := append(v.Evict, v.TimedOut...) // a write may just have extended one that has timed out: it is alive again
	b.End(ended, end, evicted, nil)
	b, err := tx.store.announce(ctx, t, b, end, &f.User)
	if err == nil {
		b.Delist(f.User, append(ended, v.Stale...)...)
	}
	return b, err
}

// read takes the locks and reads what the verdict needs.
func (tx *signInTx) read(ctx context.Context, t *db.Tx) error {
	f := &tx.facts
	f.Current = row.Row{}
	b := t.Begin()
	if tx.enters() {
		b.LockUser(f.User, &f.Fence)
	}
	if !tx.fresh { // else there should be no row; if there is one, SignIn fails, and the next attempt locks it
		b.Lock(f.ID, &f.Current)
	}
	if tx.enters() && !tx.fresh {
		b.Place(f.User, f.ID, &f.Place)
	}
	for i := range f.Left {
		l := &f.Left[i]
		*l = rules.Left{Session: l.Session, At: l.ID}
		b.Lock(l.ID, &l.Row)
		b.Place(l.User, l.ID, &l.Place)
	}
	if f.Limit > 0 {
		most := pageSize + 1
		if tx.trimmed {
			most = math.MaxInt32
		}
		b.UserSessions(f.User, pgtype.UUID{}, most, &f.Others)
	}
	if tx.enters() {
		b.Clock(&f.Clock) // last, so that no wait for a lock comes after it
	}
	err := t.Send(ctx, b)
	tx.fresh = false
	for i, to, ok := f.Follow(); ok && err == nil; i, to, ok = f.Follow() {
		var r row.Row
		var place row.Place
		b := t.Batch()
		b.Lock(to, &r)
		b.Place(f.User, to, &place)
		err = t.Send(ctx, b)
		f.Followed(i, to, r, place)
	}
	return err
}

// carryOut ends the sessions that have to go, writes this one, and commits.
func (tx *signInTx) carryOut(ctx context.Context, t *db.Tx, v rules.Verdict) (out outcome, err error) {
	f := &tx.facts
	out.Merged, out.signedIn = f.Merge(), tx.enters()
	w := tx.write.row()
	w.Data, w.TTL = out.Bytes, out.TTL

	b, err := tx.end(ctx, t, v, &out.evicted)
	if err != nil {
		return out, err
	}
	for _, s := range f.Successions() {
		b.Link(s.ID, s.Reason, s.Link)
		b.Delist(s.User, s.ID)
		if s.Ends && tx.store.cfg.Notify { // its row is locked: it was open
			b.Notify(db.Ended{IDs: []pgtype.UUID{s.ID}, User: s.User, Reason: s.Reason})
		}
	}
	switch {
	case tx.stays:
		b.Update(w, f.Current.Version, &out.Written)
	case f.Current.Present:
		b.SwitchUser(w, &out.Written)
	default:
		b.SignIn(w, &out.Written)
	}
	if f.Current.User != f.User {
		// The sweep deletes the index row of the session's last user only.
		b.Delist(f.Current.User, f.ID)
	}
	if tx.enters() {
		b.Enlist(f.User, f.ID, f.Keeps(), tx.client)
	}
	out.Written, err = tx.send(w.Data, f.Current.Version, func() (db.Written, error) {
		err := t.Commit(ctx, b)
		return out.Written, err
	})
	return out, err
}

// send notes what write sends, over which version of the row. If its answer is lost, the next
// attempt looks for that.
func (tx *signInTx) send(data []byte, over int64, write func() (db.Written, error)) (db.Written, error) {
	tx.facts.Sent, tx.facts.SentOver = data, over
	out, err := write()
	if err == nil && !out.OK || err != nil && db.Refused(err) {
		tx.facts.Sent = nil
	}
	return out, err
}

// repeated is the outcome if an earlier attempt, whose answer was lost, may have succeeded.
func (tx *signInTx) repeated(earlier rules.Outcome) (outcome, error) {
	f := &tx.facts
	if earlier != rules.Done {
		return outcome{}, errInDoubt
	}
	return outcome{
		Written: db.Written{Stamp: f.Current.Stamp, OK: true}, Merged: rules.Merged{Bytes: f.Sent}, signedIn: tx.enters(),
	}, nil
}
