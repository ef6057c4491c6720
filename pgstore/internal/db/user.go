package db

import (
	"context"
	"net/netip"
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

// SignedIn reads since when the user has had a session, zero if it is not in the index, or
// if user is "".
func (b *Batch) SignedIn(user string, id pgtype.UUID, at *time.Time) {
	*at = time.Time{}
	if user == "" {
		return
	}
	b.add(sqlSignedIn, user, id).QueryRow(func(r pgx.Row) error {
		return ignoreNoRows(r.Scan((*instant)(at)))
	})
}

// UserIDs reads a page of the user's index: n ids after the one given, of sessions that
// began until then; zero: whenever.
func (b *Batch) UserIDs(user string, after pgtype.UUID, until time.Time, n int, ids *[]pgtype.UUID) {
	at := pgtype.Timestamptz{Time: until, Valid: true}
	if until.IsZero() {
		at.InfinityModifier = pgtype.Infinity
	}
	b.add(sqlUserIDs, user, first(after), at, n).Query(func(rows pgx.Rows) (err error) {
		*ids, err = pgx.CollectRows(rows, pgx.RowTo[pgtype.UUID])
		return err
	})
}

// UserSessions reads a page of the user's index: n sessions after the one given, and what
// has become of them.
func (b *Batch) UserSessions(user string, after pgtype.UUID, n int, list *[]row.UserSession) {
	at := make(map[pgtype.UUID]int)
	*list = nil
	b.add(sqlUserIndex, user, first(after), n).Query(func(rows pgx.Rows) error {
		s := row.UserSession{Gone: true}
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.CreatedAt)}, func() error {
			at[s.ID] = len(*list)
			*list = append(*list, s)
			return nil
		})
		return err
	})
	b.add(sqlUserRows, user, first(after), n).Query(func(rows pgx.Rows) error {
		var s row.UserSession
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.LastSeen), (*instant)(&s.Expiry), &s.Gone, &s.Pending}, func() error {
			if i, ok := at[s.ID]; ok { // under the user's lock, both statements see the same index
				s.CreatedAt = (*list)[i].CreatedAt
				(*list)[i] = s
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
	var index map[pgtype.UUID]row.Listed
	list := []row.Listed{}
	b := d.begin(sqlBeginRead)
	b.add(sqlListedOf, user).Query(func(rows pgx.Rows) (err error) {
		index, err = collectIndex(rows)
		return err
	})
	b.add(sqlLive, user).Query(func(rows pgx.Rows) error {
		var s row.Listed
		_, err := pgx.ForEachRow(rows, []any{&s.ID, (*instant)(&s.Expiry), (*instant)(&s.LastSeen)}, func() error {
			entry := index[s.ID]
			entry.Expiry, entry.LastSeen = s.Expiry, s.LastSeen
			list = append(list, entry)
			return nil
		})
		return err
	})
	b.add(sqlCommit)
	err := d.Send(ctx, b)
	return list, err
}

// collectIndex reads rows of the index, by id.
func collectIndex(rows pgx.Rows) (map[pgtype.UUID]row.Listed, error) {
	index := make(map[pgtype.UUID]row.Listed)
	defer rows.Close()
	for rows.Next() {
		var s row.Listed
		var ip *netip.Addr
		if err := rows.Scan(&s.User, &s.ID, (*instant)(&s.CreatedAt), &ip, &s.UserAgent); err != nil {
			return nil, err
		}
		if ip != nil {
			s.IP = *ip
		}
		index[s.ID] = s
	}
	return index, rows.Err()
}

// Count counts the user's live sessions.
func (d *DB) Count(ctx context.Context, user string) (n int, err error) {
	err = d.queryRow(ctx, func(r pgx.Row) error { return r.Scan(&n) }, sqlCount, user)
	return n, err
}
