package db

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// LockUser locks the user's row, and makes one for a user without. fence is set to
// the user's fence, to zero if there is none. It is a statement of its own, and before
// all reads, so that these see what earlier holders of the lock have committed.
func (b *Batch) LockUser(user string, fence *time.Time) {
	b.add(sqlLockUser, user).QueryRow(func(r pgx.Row) error {
		var at pgtype.Timestamptz
		err := r.Scan(&at)
		*fence = at.Time // of -infinity, which stands for none, it is zero
		return err
	})
}

// Fence moves the user's fence to at, but not back, and reads where it stands.
func (b *Batch) Fence(user string, at time.Time, fence *time.Time) {
	b.add(sqlFence, user, at).QueryRow(func(r pgx.Row) error { return r.Scan(fence) })
}

// Forget deletes the user's row.
func (b *Batch) Forget(user string) { b.add(sqlForget, user) }

// Clock reads the database's clock at the moment at which the statement runs.
func (b *Batch) Clock(c *row.Clock) {
	b.add(sqlClock).QueryRow(func(r pgx.Row) error {
		err := r.Scan(&c.Read)
		c.Heard = time.Now()
		return err
	})
}

// Place reads the session's place in the user's index, zero if it is not in it, or if user
// is "".
func (b *Batch) Place(user string, id pgtype.UUID, p *row.Place) {
	*p = row.Place{}
	if user == "" {
		return
	}
	b.add(sqlPlace, user, id).QueryRow(func(r pgx.Row) error {
		return ignoreNoRows(r.Scan((*instant)(&p.Since), &p.Label))
	})
}

// UserSessions reads a page of the user's index, n sessions after the one given, by id, and
// what has become of each. On Citus, which makes a commit visible shard by shard, whoever holds
// the user's lock sees all of the index, as lock and index are in shards of one server; but not
// all of the sessions yet.
func (b *Batch) UserSessions(user string, after pgtype.UUID, n int, list *[]row.UserSession) {
	*list = nil
	b.add(sqlUserIndex, user, first(after), n).Query(func(rows pgx.Rows) error {
		s := row.UserSession{Unsettled: true}
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.CreatedAt)}, func() error {
			*list = append(*list, s)
			return nil
		})
		return err
	})
	b.add(sqlUserRows, user, first(after), n).Query(func(rows pgx.Rows) error {
		var s row.UserSession
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.LastSeen), (*instant)(&s.Expiry), &s.Gone, &s.Pending, &s.Unsettled}, func() error {
			at, ok := slices.BinarySearchFunc(*list, s.ID, func(s row.UserSession, id pgtype.UUID) int { return bytes.Compare(s.ID.Bytes[:], id.Bytes[:]) })
			if ok { // under the user's lock, both statements see the same index
				s.CreatedAt = (*list)[at].CreatedAt
				(*list)[at] = s
			}
			return nil
		})
		return err
	})
}

// first returns id, or the one before all others.
func first(id pgtype.UUID) pgtype.UUID {
	id.Valid = true
	return id
}

// Listing reads the user's live sessions, in one snapshot.
func (d *DB) Listing(ctx context.Context, user string) ([]row.Listed, error) {
	list := []row.Listed{}
	b := d.begin(sqlBeginRead)
	b.add(sqlLive, user).Query(func(rows pgx.Rows) error {
		s := row.Listed{User: user}
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.Expiry), (*instant)(&s.LastSeen)}, func() error {
			list = append(list, s)
			return nil
		})
		return err
	})
	b.add(sqlListedOf, user).Query(func(rows pgx.Rows) error { return fillIn(list, rows) })
	b.add(sqlCommit)
	err := d.Send(ctx, b)
	return list, err
}

// fillIn enters what the rows of the index say of the sessions in the list.
func fillIn(list []row.Listed, rows pgx.Rows) error {
	type key struct {
		user string
		id   pgtype.UUID
	}
	at := make(map[key]*row.Listed, len(list))
	for i := range list {
		at[key{list[i].User, list[i].ID}] = &list[i]
	}
	var s row.Listed
	var ip *netip.Addr
	_, err := pgx.ForEachRow(rows, []any{&s.User, &s.ID, (*instant)(&s.CreatedAt), &ip, &s.UserAgent, &s.Label}, func() error {
		if l := at[key{s.User, s.ID}]; l != nil {
			l.CreatedAt, l.UserAgent, l.Label, l.IP = s.CreatedAt, s.UserAgent, s.Label, netip.Addr{}
			if ip != nil {
				l.IP = *ip
			}
		}
		return nil
	})
	return err
}

// Count counts the user's live sessions.
func (d *DB) Count(ctx context.Context, user string) (n int, err error) {
	err = d.queryRow(ctx, d.pool, func(r pgx.Row) error { return r.Scan(&n) }, sqlCount, user)
	return n, err
}
