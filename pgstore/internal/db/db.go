// Package db reads and writes the session tables: SQL, rows, batches, retries. It knows
// nothing of scs, nor of the requests that it works for.
package db

import (
	"context"
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
	timeout   time.Duration
	onRetry   func()

	Turns Turns
}

// New returns the tables of schema, or of the search_path if it is "". Do gives each
// operation timeout, and calls onRetry before each attempt after the first.
func New(pool *pgxpool.Pool, schema string, timeout time.Duration, onRetry func()) *DB {
	return &DB{pool: pool, schema: schema, timeout: timeout, onRetry: onRetry}
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
// statement sees what was committed before the statement began.
func (tx *Tx) Begin() *Batch { return tx.db.begin(sqlBegin) }

// Batch returns an empty batch.
func (tx *Tx) Batch() *Batch { return tx.db.Batch() }

// Send sends the batch in one round trip.
func (tx *Tx) Send(ctx context.Context, b *Batch) error {
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
}

// Batch returns an empty batch.
func (d *DB) Batch() *Batch { return &Batch{db: d} }

func (d *DB) begin(sql string) *Batch {
	b := d.Batch()
	b.add(sql)
	return b
}

// Send sends the batch in one round trip.
func (d *DB) Send(ctx context.Context, b *Batch) error {
	return d.pool.SendBatch(ctx, &b.queue).Close()
}

func (b *Batch) add(sql string, args ...any) *pgx.QueuedQuery {
	return b.queue.Queue(b.db.q(sql), args...)
}
