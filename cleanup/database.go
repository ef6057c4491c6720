package cleanup

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// database runs transactions under the settings of a sweep.
type database struct {
	pool  *pgxpool.Pool
	opts  Options
	names *strings.Replacer // of q

	readOnly      bool // nothing will be deleted: a standby will do
	shortLockWait bool // wait for locks for a shortWaitShare-th of LockTimeout only
	tempo         tempo
}

func newDatabase(pool *pgxpool.Pool, o Options) *database {
	schema := ""
	if o.Schema != "" {
		schema = pgx.Identifier{o.Schema}.Sanitize() + "."
	}
	names := strings.NewReplacer("{", schema+"scs_", "}", "")
	return &database{pool: pool, opts: o, names: names, tempo: tempo{traffic: true}}
}

// q is a statement with the tables named.
func (d *database) q(sql string) string { return d.names.Replace(sql) }

// probe finds out what kind of database this is, and whether a sweep can work in it. It
// reports whether the sessions are distributed over servers.
func (d *database) probe(ctx context.Context) (distributed bool, err error) {
	err = d.inTransaction(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var citus bool
		b := &pgx.Batch{}
		b.Queue(sqlCitus).QueryRow(func(r pgx.Row) error { return r.Scan(&citus) })
		for i, table := range probes {
			if i == 2 && !d.opts.Orphans {
				break
			}
			b.Queue(d.q("SELECT " + table[0] + " FROM " + table[1] + " LIMIT 0"))
			if !d.readOnly {
				b.Queue(d.q("DELETE FROM " + table[1] + " WHERE false"))
			}
		}
		if err := tx.SendBatch(ctx, b).Close(); err != nil || !citus {
			return err
		}
		return tx.QueryRow(ctx, sqlDistributed, d.q("{sessions}")).Scan(&distributed)
	})
	return distributed, explain(ctx, "look at the database", &d.opts, err)
}

// inTransaction runs f in a transaction under the sweep's settings.
func (d *database) inTransaction(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	return d.bounded(ctx, func(ctx context.Context) error {
		return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if err := d.tempo.observe(tx.QueryRow(ctx, sqlSettings, d.settings()...)); err != nil {
				return err
			}
			return f(ctx, tx)
		})
	})
}

// query runs a statement in a transaction of its own, and in one round trip. In most query
// modes pgx prepares all statements of a batch before it runs the first, and preparing
// waits for table locks while no timeout is set yet. So probe has run statements on the
// same tables through inTransaction before.
func query[T any](ctx context.Context, d *database, sql string, args ...any) (list []T, err error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	b.Queue(sqlSettings, d.settings()...).QueryRow(d.tempo.observe)
	b.Queue(d.q(sql), args...).Query(func(rows pgx.Rows) (err error) {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		return err
	})
	b.Queue("COMMIT")
	err = d.bounded(ctx, func(ctx context.Context) error { return d.pool.SendBatch(ctx, b).Close() })
	return list, err
}

// bounded runs one transaction with a deadline, in case the server no longer answers.
// The statement and lock timeouts are enforced by the server itself.
func (d *database) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	limit := d.opts.StatementTimeout + replyGrace
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(own)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer from the server in %v: %w", limit, err)
	}
	return err
}

func (d *database) settings() []any {
	wait := d.opts.LockTimeout
	if d.shortLockWait {
		wait /= shortWaitShare
	}
	return []any{milliseconds(d.opts.StatementTimeout), milliseconds(wait), strconv.FormatBool(d.readOnly)}
}

// milliseconds is d as a setting. 0 would mean no limit.
func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }

func (d *database) graceMicros() float64 { return float64(d.opts.Grace.Microseconds()) }

const (
	replyGrace = 15 * time.Second // what a server may take beyond its statement timeout, connecting included

	// While others write to the server, a sweep makes small batches, and pauses after
	// each for politePause times as long as it took. On two cores that also serve the
	// requests, these had 1.3 to 1.5 times their p99 without a sweep (with 200 and 2: twice).
	politeBatch = 80 // still some 10,000 rows a second
	politePause = 4

	trafficWrites = 20                     // writing transactions of others per second that count as traffic
	observation   = 100 * time.Millisecond // the shortest time over which they are counted
)

// tempo is how fast a sweep may go.
type tempo struct {
	traffic bool          // others write; true at first, until it is known
	last    time.Duration // how long the last batch took, or the last page of a listing
	xid     int64         // the server's next transaction id at the time seen
	seen    time.Time
	own     int64 // transaction ids that this sweep has used since
}

// observe reads the next transaction id, which comes with the settings of each of our
// transactions, and sees how many others there were.
func (t *tempo) observe(r pgx.Row) error {
	var xid int64
	if err := r.Scan(nil, nil, nil, nil, nil, nil, nil, &xid); err != nil {
		return err
	}
	if elapsed := time.Since(t.seen); elapsed >= observation {
		t.traffic = t.seen.IsZero() || float64(xid-t.xid-t.own) > trafficWrites*elapsed.Seconds()
		t.xid, t.seen, t.own = xid, time.Now(), 0
	}
	return nil
}
