package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Page reads up to n live sessions, in the order of their ids, after the one given. What
// only the user index has is read in a snapshot of its own, so it may be missing for a
// session that has just ended.
func (d *DB) Page(ctx context.Context, after pgtype.UUID, n int) ([]row.Listed, error) {
	var users []string
	var ids []pgtype.UUID
	page, err := d.page(ctx, after, n, false, func(s row.Listed, _ int64, _ []byte) {
		if s.User != "" {
			users, ids = append(users, s.User), append(ids, s.ID)
		}
	})
	if err != nil || len(ids) == 0 {
		return page, err
	}
	var index map[pgtype.UUID]row.Listed
	err = d.query(ctx, func(rows pgx.Rows) (err error) {
		index, err = collectIndex(rows)
		return err
	}, sqlListedIn, users, ids)
	for i := range page {
		s := &page[i]
		if entry, ok := index[s.ID]; ok && entry.User == s.User {
			s.CreatedAt, s.IP, s.UserAgent = entry.CreatedAt, entry.IP, entry.UserAgent
		}
	}
	return page, err
}

// PageData calls f with the data of up to n live sessions, in the order of their ids, and
// returns how many there were and the last id.
func (d *DB) PageData(ctx context.Context, after pgtype.UUID, n int, f func(id pgtype.UUID, version int64, data []byte)) (int, pgtype.UUID, error) {
	page, err := d.page(ctx, after, n, true, func(s row.Listed, version int64, data []byte) { f(s.ID, version, data) })
	if len(page) > 0 {
		after = page[len(page)-1].ID
	}
	return len(page), after, err
}

func (d *DB) page(ctx context.Context, after pgtype.UUID, n int, withData bool, f func(row.Listed, int64, []byte)) (page []row.Listed, err error) {
	err = d.query(ctx, func(rows pgx.Rows) error {
		for rows.Next() {
			var s row.Listed
			var version int64
			var data []byte
			if err := rows.Scan(&s.ID, &s.User, (*instant)(&s.Expiry), (*instant)(&s.LastSeen), &version, &data); err != nil {
				return err
			}
			f(s, version, data)
			page = append(page, s)
		}
		return rows.Err()
	}, sqlPage, after, n, withData)
	return page, err
}

// Totals are counts of rows.
type Totals struct{ Live, SignedIn, Users, Expired, All int64 }

// EstimatedRows returns how many rows the session table has, by the statistics: -1 until
// the first vacuum or analyze.
func (d *DB) EstimatedRows(ctx context.Context) (rows float64, err error) {
	err = d.queryRow(ctx, func(r pgx.Row) error { return r.Scan(&rows) }, sqlEstimate)
	return rows, err
}

// Totals counts the rows of the session table, or those of a sample of so many percent of
// it, if that is not 0.
func (d *DB) Totals(ctx context.Context, percent float64) (t Totals, err error) {
	query, args := sqlTotals, []any(nil)
	if percent > 0 {
		query, args = sqlSample, []any{percent}
	}
	err = d.queryRow(ctx, func(r pgx.Row) error {
		return r.Scan(&t.Live, &t.SignedIn, &t.Users, &t.Expired, &t.All)
	}, query, args...)
	return t, err
}

// OldestExpired returns the earliest expiry that has passed, zero if there is none.
func (d *DB) OldestExpired(ctx context.Context) (oldest time.Time, err error) {
	err = d.queryRow(ctx, func(r pgx.Row) error { return r.Scan((*instant)(&oldest)) }, sqlOldest)
	return oldest, err
}
