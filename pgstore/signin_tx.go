package pgstore

import (
	"context"
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
// inserted freely.)

// signInTx is that transaction: a session gets a user, changes its user, or continues
// under a new token.
//
// The first round trip locks the user's row in scs_users, then the session's row and
// that of the session it renews, and reads the user's sessions. What to do is decided
// by package rules, while the locks are held. The second round trip evicts, writes,
// updates the user's index, and commits.
//
// It runs at READ COMMITTED. With a snapshot taken before the lock was granted, two
// sign-ins would not see each other, and both would find room.
type signInTx struct {
	store  *Store
	req    *tracked // nil without Track
	write  write
	facts  rules.Facts
	fresh  bool // nobody else knows the token, and this is the first attempt: its row need not be locked
	client db.Client
}

func (s *Store) newSignInTx(req *tracked, w write) *signInTx {
	tx := &signInTx{store: s, req: req, write: w, facts: rules.Facts{
		ID: w.ID, Existing: w.standIn, User: w.User, Keyed: w.keyed, Data: w.Data, TTL: w.TTL,
		Policy: rules.Policy(s.cfg.LimitPolicy),
	}}
	if req != nil {
		tx.facts.Began = req.began
		tx.facts.Exempt = func(fence time.Time) bool { return req.Exempt(w.User, fence) }
	}
	return tx
}

// signIn runs the transaction.
func (tx *signInTx) signIn(ctx context.Context) (out outcome, err error) {
	s, f := tx.store, &tx.facts
	if f.User != "" {
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
	err = s.db.InTx(ctx, func(t *db.Tx) error {
		if err := tx.read(ctx, t); err != nil {
			return err
		}
		v := f.Verdict()
		switch v.Outcome {
		case rules.Lost:
			out = outcome{met: v.Met}
			return nil
		case rules.Refused:
			s.stat.refusals.Add(1)
			return ErrUserLimit
		case rules.Unkeyed:
			return errUnkeyed
		}
		out, err = tx.carryOut(ctx, t, v)
		return err
	})
	return out, err
}

// read takes the locks and reads what the verdict needs.
func (tx *signInTx) read(ctx context.Context, t *db.Tx) error {
	f := &tx.facts
	f.Current = row.Row{}
	b := t.Begin()
	if f.User != "" {
		b.LockUser(f.User, &f.Fence)
	}
	if !tx.fresh { // else there should be no row; if there is one, SignIn fails, and the next attempt locks it
		b.Lock(f.ID, &f.Current)
	}
	if f.Renews != nil {
		b.Lock(f.Renews.ID, &f.Renewed)
	}
	if f.User != "" {
		if f.Limit > 0 {
			b.UserSessions(f.User, &f.Others)
		}
		if !tx.fresh {
			b.SignedIn(f.User, f.ID, &f.Since)
		}
		if f.IsRenewal() {
			b.SignedIn(f.User, f.Renews.ID, &f.RenewedSince)
		}
		b.Clock(&f.Clock.Read) // last, so that no wait for a lock comes after it
	}
	err := t.Send(ctx, b)
	f.Clock.Heard, tx.fresh = time.Now(), false
	return err
}

// carryOut ends the sessions that have to go, writes this one, and commits.
func (tx *signInTx) carryOut(ctx context.Context, t *db.Tx, v rules.Verdict) (out outcome, err error) {
	f, w := &tx.facts, tx.write.Write
	out.Merged, out.signedIn = f.Merge(), f.User != ""
	w.Data, w.TTL = out.Bytes, out.TTL

	ended := append(v.Evict, v.TimedOut...) // a write may just have extended one that has timed out: it is alive again
	b := t.Batch()
	b.TimeOut(v.TimedOut, f.User, f.Clock.Read)
	b.End(ended, db.Ending{Reason: row.Evicted, User: f.User}, &out.evicted)
	stale := append(ended, v.Stale...)
	if p := f.Renews; p != nil && p.WasAlive() {
		b.End([]pgtype.UUID{p.ID}, db.Ending{Reason: row.Renewed, From: row.SignedOut, User: p.RowAtDelete.User}, nil)
		stale = append(stale, p.ID)
	}
	if f.Current.Present {
		b.SwitchUser(w, &out.Written)
	} else {
		b.SignIn(w, &out.Written)
	}
	if f.Current.User != "" && f.Current.User != f.User {
		// The sweep deletes the index row of the session's last user only.
		b.Delist(f.Current.User, f.ID)
	}
	if f.User != "" {
		b.Enlist(f.User, f.ID, f.SignedInAt(), tx.client)
		b.Delist(f.User, stale...)
	}
	f.Sent = w.Data
	err = t.Commit(ctx, b)
	return out, err
}

// merge commits over a newer version of the session. It locks the row, merges, and
// updates, so no other write can come in between and there is nothing to repeat.
func (tx *signInTx) merge(ctx context.Context) (out outcome, err error) {
	f, w := &tx.facts, tx.write.Write
	err = tx.store.db.InTx(ctx, func(t *db.Tx) error {
		out = outcome{}
		b := t.Begin()
		b.Lock(f.ID, &f.Current)
		if err := t.Send(ctx, b); err != nil {
			return err
		}
		if !f.Current.Alive() || f.Current.User != f.Session.User {
			out.met = f.Current
			return nil
		}
		out.Merged = f.Merge()
		w.Data, w.TTL = out.Bytes, out.TTL
		b = t.Batch()
		b.Update(w, f.Current.Version, &out.Written)
		return t.Commit(ctx, b)
	})
	return out, err
}
