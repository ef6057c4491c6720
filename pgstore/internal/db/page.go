package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Page reads up to n live sessions, in the order of their ids, after the one given: with
// their data, or with what the user index has. That is read in a snapshot of its own, so it
// may be missing for a session that has just ended.
func (d *DB) Page(ctx context.Context, after pgtype.UUID, n int, withData bool) (page []row.Listed, err error) {
	var users []string
	var ids []pgtype.UUID
	err = d.query(ctx, func(rows pgx.Rows) error {
		var s row.Listed
		_, err := pgx.ForEachRow(rows, []any{&s.ID, &s.User, (*instant)(&s.Expiry), (*instant)(&s.LastSeen), &s.Version, &s.Data}, func() error {
			page = append(page, s)
			if s.User != "" {
				users, ids = append(users, s.User), append(ids, s.ID)
			}
			return nil
		})
		return err
	}, sqlPage, first(after), n, withData)
	if err == nil && !withData && len(ids) > 0 {
		err = d.query(ctx, func(rows pgx.Rows) error { return fillIn(page, rows) }, sqlListedIn, users, ids)
	}
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
