package db

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Old is a row in the table of scs's own stores.
type Old struct {
	Token  string
	Data   []byte
	Expiry time.Time
	Now    time.Time // when it was read
}

// OldPage reads up to n live rows of the table, in the order of their tokens, after the one
// given.
func (d *DB) OldPage(ctx context.Context, table pgx.Identifier, after string, n int) (page []Old, err error) {
	b := d.Batch()
	sql := strings.Replace(sqlOldPage, "old_table", table.Sanitize(), 1) // and not qualified by our schema
	b.queue.Queue(sql, after, n).Query(func(rows pgx.Rows) error {
		var o Old
		_, err := pgx.ForEachRow(rows, []any{&o.Token, &o.Data, (*instant)(&o.Expiry), &o.Now}, func() error {
			page = append(page, o)
			return nil
		})
		return err
	})
	err = d.Send(ctx, b)
	return page, err
}

// TakeOver writes a session of a user without a sign-in, over the version of the row that
// was met under its lock, 0 if there was none. Expiry moves forward only; of w the time to
// live does not count.
func (b *Batch) TakeOver(w Write, version int64, expiry time.Time, over int64) {
	b.seal(&w)
	b.add(sqlTakeOver, w.ID, nullable(w.User), w.Data, version, expiry, over)
}
