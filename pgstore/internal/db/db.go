// Package db reads and writes the session tables: SQL, rows, batches, retries. It knows
// nothing of scs, nor of the requests that it works for.
package db

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DB is the session tables of one schema. It is safe for concurrent use.
type DB struct {
	pool      *pgxpool.Pool
	schema    string
	qualified sync.Map // SQL as in sql.go to SQL with its tables qualified
	textual   bool     // results come as text
	timeout   time.Duration
	onRetry   func()

	Turns  Turns
	Sealer Sealer // nil: data is stored as it is

	reads, touches, updates trips
	sqlFinds                []string // for up to 1, 2, 4, ... sessions
}

// New returns the tables of schema, or of the search_path if it is "". Do gives each
// operation timeout, and calls onRetry before each attempt after the first. Up to maxBatch
// finds, touches and updates share a round trip.
func New(pool *pgxpool.Pool, schema string, timeout time.Duration, maxBatch int, onRetry func()) *DB {
	mode := pool.Config().ConnConfig.DefaultQueryExecMode
	d := &DB{
		pool: pool, schema: schema, timeout: timeout, onRetry: onRetry,
		textual: mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol,
	}
	d.share(maxBatch)
	return d
}

// Tx is a transaction that takes two round trips: a batch that begins it, and one that
// commits it.
type Tx struct {
	db   *DB
	conn *pgxpool.Conn
}

// InTx runs f on one connection. If f returns with its transaction open, because of an
// error or to abandon it, InTx rolls it back.
func (d *DB) InTx(ctx context.Context, f func(*Tx) error) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	err = f(&Tx{db: d, conn: conn})
	if c := conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		// Should this fail too, Release closes the connection, which ends the
		// transaction all the same.
		_, _ = conn.Exec(ctx, sqlRollback)
	}
	return err
}

// Begin returns a batch that begins a transaction at READ COMMITTED, where each
// statement sees what was committed before the statement began. If the app's host vanishes,
// the server ends the transaction after half the timeout, so that whoever waits for its locks
// gets them within theirs.
func (tx *Tx) Begin() *Batch {
	b := tx.db.begin(sqlBegin)
	b.add(sqlBound, min(max(tx.db.timeout.Milliseconds()/2, 1), math.MaxInt32/3))
	return b
}

// Batch returns an empty batch. What Begin has set holds for it, too.
func (tx *Tx) Batch() *Batch { return &Batch{db: tx.db} }

// Send sends the batch in one round trip.
func (tx *Tx) Send(ctx context.Context, b *Batch) error {
	if b.err != nil {
		return b.err
	}
	return tx.conn.SendBatch(ctx, &b.queue).Close()
}

// Commit sends the batch and commits.
func (tx *Tx) Commit(ctx context.Context, b *Batch) error {
	b.add(sqlCommit)
	return tx.Send(ctx, b)
}

// Batch is a list of statements that share a round trip. What its methods are given
// pointers to is set once it has been sent. Without BEGIN it is one implicit transaction.
type Batch struct {
	db    *DB
	queue pgx.Batch
	err   error // why it cannot be sent
}

// Batch returns an empty batch.
func (d *DB) Batch() *Batch {
	b := &Batch{db: d}
	b.readable()
	return b
}

func (d *DB) begin(sql string) *Batch {
	b := &Batch{db: d}
	b.add(sql)
	b.readable()
	return b
}

// readable makes results that come as text come in the form that pgx reads, whatever the
// role or the database is set to: for the transaction only.
func (b *Batch) readable() {
	if b.db.textual {
		b.add(sqlReadable).QueryRow(func(r pgx.Row) error { return r.Scan(nil, nil) })
	}
}

// Send sends the batch in one round trip.
func (d *DB) Send(ctx context.Context, b *Batch) error {
	if b.err != nil {
		return b.err
	}
	return d.pool.SendBatch(ctx, &b.queue).Close()
}

func (b *Batch) add(sql string, args ...any) *pgx.QueuedQuery {
	return b.queue.Queue(b.db.q(sql), args...)
}

// runner is a pool or a connection.
type runner interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// queryRow runs one statement and scans its row.
func (d *DB) queryRow(ctx context.Context, on runner, scan func(pgx.Row) error, sql string, args ...any) error {
	if !d.textual {
		return scan(on.QueryRow(ctx, d.q(sql), args...))
	}
	b := d.Batch()
	b.add(sql, args...).QueryRow(scan)
	return on.SendBatch(ctx, &b.queue).Close()
}

// query runs one statement and calls read with its rows.
func (d *DB) query(ctx context.Context, read func(pgx.Rows) error, sql string, args ...any) error {
	b := d.Batch()
	b.add(sql, args...).Query(read)
	return d.Send(ctx, b)
}
