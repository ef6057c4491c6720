package db

import (
	"context"
	"math"
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
			if d.Sealer != nil && withData {
				s.Data, s.Outdated, s.Unreadable = d.Sealer.Open(s.ID, s.User, s.Data)
			}
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

// Totals are counts of rows. See pgstore's Overview.
type Totals struct {
	Live, SignedIn, Users, Expired int64
	OldestExpired                  time.Time
	Estimated                      bool
}

// Totals counts the rows of the session table or, if the statistics say that it has more
// than exact, those of a sample of about so many, and scales the counts up.
func (d *DB) Totals(ctx context.Context, exact, sample float64) (t Totals, err error) {
	var rows, all float64 // rows is -1 until the first vacuum or analyze
	if err = d.queryRow(ctx, d.pool, func(r pgx.Row) error { return r.Scan(&rows) }, sqlEstimate); err != nil {
		return t, err
	}
	query, args := sqlTotals, []any(nil)
	if t.Estimated = rows > exact; t.Estimated {
		query, args = sqlSample, []any{min(100*sample/max(rows, 1), 100)}
	}
	err = d.queryRow(ctx, d.pool, func(r pgx.Row) error { return r.Scan(&t.Live, &t.SignedIn, &t.Users, &t.Expired, &all) }, query, args...)
	if err != nil {
		return t, err
	}
	if t.Estimated && all > 0 {
		for _, n := range []*int64{&t.Live, &t.SignedIn, &t.Expired} {
			*n = int64(math.Round(float64(*n) * rows / all))
		}
	}
	err = d.queryRow(ctx, d.pool, func(r pgx.Row) error { return r.Scan((*instant)(&t.OldestExpired)) }, sqlOldest)
	return t, err
}
