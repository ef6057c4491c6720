package db

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Sealer makes of a session's data what is stored, and the reverse. Both are bound to the
// row: its id, and whose it is.
type Sealer interface {
	Seal(id pgtype.UUID, user string, data []byte) ([]byte, error)
	// Open also reports whether Seal would do it otherwise today.
	Open(id pgtype.UUID, user string, stored []byte) (data []byte, outdated bool, err error)
}

func (d *DB) seal(w *Write) (err error) {
	if d.Sealer != nil {
		w.Data, err = d.Sealer.Seal(w.ID, w.User, w.Data)
	}
	return err
}

// seal makes Send return the error.
func (b *Batch) seal(w *Write) {
	if err := b.db.seal(w); err != nil {
		b.err = err
	}
}

// open opens the data of a row that was read, unless that is a link or nothing.
func (d *DB) open(id pgtype.UUID, r *row.Row) {
	if _, linked := r.Link(); d.Sealer == nil || linked || len(r.Data) == 0 {
		return
	}
	r.Data, _, r.Unreadable = d.Sealer.Open(id, r.User, r.Data)
}

// Reseal seals the data of sessions as it is done today, if it is still what was read, and
// returns of how many.
func (d *DB) Reseal(ctx context.Context, list []row.Listed) (n int, err error) {
	b := d.Batch()
	for _, s := range list {
		w := Write{ID: s.ID, User: s.User, Data: s.Data}
		b.seal(&w)
		b.add(sqlReseal, w.ID, w.Data, s.Version).Exec(func(ct pgconn.CommandTag) error { n += int(ct.RowsAffected()); return nil })
	}
	return n, d.Send(ctx, b)
}
