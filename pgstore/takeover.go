package pgstore

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// maxArrivals are taken over in one transaction. As long as that takes, sign-ins of their
// users wait.
const maxArrivals = 200

// arrival is a session that becomes its user's without a sign-in.
type arrival struct {
	rules.Incoming
	id    pgtype.UUID
	since time.Time // since when the user has had it, zero for now
	met   row.Row
}

// takeOver is, beside the sign-in transaction, the one place in which sessions become live
// sessions of users, and it does so in the same way: under the users' locks, and in the same
// transaction as their rows of the index. But it evicts nobody: the next sign-in does. It
// returns how many sessions came to which end. List is its own to change.
func (s *Store) takeOver(ctx context.Context, op string, list []arrival, dryRun bool) (ends [rules.Fates]int, err error) {
	err = s.do(ctx, op, func(ctx context.Context) error {
		ends = [rules.Fates]int{}
		b := s.db.Batch()
		for i := range list {
			b.Find(list[i].id, &list[i].met)
		}
		if err := s.db.Send(ctx, b); err != nil {
			return err
		}
		// So a repeated import locks nobody in vain.
		list = slices.DeleteFunc(list, func(a arrival) bool { return a.Fate(&a.met, time.Time{}) == rules.Stays })
		if len(list) == 0 {
			return nil
		}
		return s.db.InTx(ctx, func(t *db.Tx) error {
			b, err := settle(ctx, t, list, &ends)
			if err != nil || dryRun {
				return err
			}
			return t.Commit(ctx, b)
		})
	})
	return ends, err
}

// settle takes the locks, decides, and returns what is to be done. Whoever locks more than
// one user, or row, does so in this order.
func settle(ctx context.Context, t *db.Tx, list []arrival, ends *[rules.Fates]int) (*db.Batch, error) {
	fences := make(map[string]*time.Time)
	for _, a := range list {
		fences[a.User] = new(time.Time)
	}
	b := t.Begin()
	for _, user := range slices.Sorted(maps.Keys(fences)) {
		if user != "" {
			b.LockUser(user, fences[user])
		}
	}
	slices.SortFunc(list, func(x, y arrival) int { return bytes.Compare(x.id.Bytes[:], y.id.Bytes[:]) })
	for i := range list {
		b.Lock(list[i].id, &list[i].met)
	}
	if err := t.Send(ctx, b); err != nil {
		return nil, err
	}
	b = t.Batch()
	for i := range list {
		a := &list[i]
		fate := a.Fate(&a.met, *fences[a.User])
		ends[fate]++
		a.carryOut(b, fate)
	}
	return b, nil
}

// carryOut adds to the batch what the fate of the session asks for.
func (a *arrival) carryOut(b *db.Batch, fate rules.Fate) {
	switch {
	case fate == rules.Barred && a.Read != 0: // it should have ended with the user's others
		b.End([]pgtype.UUID{a.id}, db.Ending{Reason: row.Revoked}, nil, nil)
	case fate == rules.Comes || fate == rules.Changes:
		b.TakeOver(db.Write{ID: a.id, User: a.User, Data: a.Data}, a.Version(&a.met), a.Expiry, a.met.Version)
		if a.met.User != a.User {
			b.Delist(a.met.User, a.id)
		}
		if a.User != "" && !(a.met.Alive() && a.met.User == a.User) {
			b.Enlist(a.User, a.id, row.Place{Since: a.since}, db.Client{})
		}
	}
}

// incoming encodes what a session holds, as c does, and says whose it is.
func (c Codec) incoming(deadline time.Time, values map[string]any) (in rules.Incoming, err error) {
	in.Data, err = c.Encode(deadline, values)
	in.User, _, _ = frame.User(in.Data)
	return in, err
}

// read decodes what Codec or scs.GobCodec has written. Unlike Decode it says so if it cannot.
func (c Codec) read(b []byte) (time.Time, map[string]any, error) {
	if frame.Is(b) {
		return frame.Decode(b, c.UserKey)
	}
	return frame.DecodeGobCodec(b)
}
