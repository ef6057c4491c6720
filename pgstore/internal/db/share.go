package db

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// maxShared bounds what a statement can have as parameters, and what is lost at once.
const maxShared = 1024

// share lets up to so many finds, touches and updates share a round trip, unless the pool has
// a hook that makes connections ready for one caller: they would serve others as his.
func (d *DB) share(most int) {
	cfg := d.pool.Config()
	if most = min(most, maxShared); cfg.PrepareConn != nil || cfg.BeforeAcquire != nil { //nolint:staticcheck // deprecated, but in use
		most = 1
	}
	conns := int(cfg.MaxConns)
	trips := func(t *trips, alone int) {
		t.pool, t.timeout, t.patience, t.max, t.alone, t.most = d.pool, d.timeout, patience, most, min(alone, conns), conns
	}
	trips(&d.reads, readsAlone)
	trips(&d.touches, writesAlone)
	trips(&d.updates, writesAlone)
	d.reads.one, d.reads.many = d.find, d.findMany
	d.touches.one, d.touches.many = d.touch, d.touchMany
	d.updates.one, d.updates.many = d.update, d.updateMany
	d.updates.writes, d.updates.held = true, make(map[pgtype.UUID]bool)

	var params strings.Builder
	for n := 1; n < 2*most; n++ {
		fmt.Fprintf(&params, ", $%d", n)
		if n&(n-1) == 0 {
			d.sqlFinds = append(d.sqlFinds, strings.Replace(sqlFindMany, "$1", params.String()[2:], 1))
		}
	}
}

func (d *DB) find(ctx context.Context, on runner, o *op) error {
	return d.queryRow(ctx, on, scanRow(&o.row), sqlFind, o.id)
}

func (d *DB) findMany(ctx context.Context, conn *pgxpool.Conn, ops []*op) error {
	size := bits.Len(uint(len(ops) - 1))
	ids := make([]any, 1<<size)
	for i := range ids {
		ids[i] = ops[min(i, len(ops)-1)].id
	}
	read := func(rows pgx.Rows) error {
		for rows.Next() {
			var id pgtype.UUID
			r := row.Row{Present: true}
			if err := rows.Scan(fields(&r, &id)...); err != nil {
				return err
			}
			if i, ok := slices.BinarySearchFunc(ops, id, func(o *op, id pgtype.UUID) int { return bytes.Compare(o.id.Bytes[:], id.Bytes[:]) }); ok {
				ops[i].row = r
			}
		}
		return rows.Err()
	}
	if d.textual {
		b := d.Batch()
		b.add(d.sqlFinds[size], ids...).Query(read)
		return conn.SendBatch(ctx, &b.queue).Close()
	}
	rows, err := conn.Query(ctx, d.q(d.sqlFinds[size]), ids...)
	if err != nil {
		return err
	}
	defer rows.Close()
	return read(rows)
}

func (d *DB) touch(ctx context.Context, on runner, o *op) error {
	b := d.Batch()
	b.add(sqlAsync).QueryRow(func(r pgx.Row) error { return r.Scan(nil) })
	b.touch(o)
	return on.SendBatch(ctx, &b.queue).Close()
}

func (d *DB) touchMany(ctx context.Context, conn *pgxpool.Conn, ops []*op) error {
	b := d.Batch()
	b.add(sqlAsyncImpatient).QueryRow(func(r pgx.Row) error { return r.Scan(nil, nil) })
	for _, o := range ops {
		b.touch(o)
	}
	return conn.SendBatch(ctx, &b.queue).Close()
}

func (b *Batch) touch(o *op) {
	b.add(sqlTouch, o.id, o.ttl.Microseconds(), nullable(o.user), o.version).QueryRow(o.out.scan)
}

func (d *DB) update(ctx context.Context, on runner, o *op) error {
	sql, args := o.write.update(o.version)
	return d.queryRow(ctx, on, o.out.scan, sql, args...)
}

func (d *DB) updateMany(ctx context.Context, conn *pgxpool.Conn, ops []*op) error {
	b := d.Batch()
	b.add(sqlImpatient).QueryRow(func(r pgx.Row) error { return r.Scan(nil) })
	for _, o := range ops {
		sql, args := o.write.update(o.version)
		b.add(sql, args...).QueryRow(o.out.scan)
	}
	return conn.SendBatch(ctx, &b.queue).Close()
}
