package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// onConn runs f on one connection. A transaction that f leaves open, by an error
// or on purpose, is rolled back.
func (s *Store) onConn(ctx context.Context, f func(*pgxpool.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	err = f(conn)
	if c := conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		// Should this fail too, Release closes the connection, which ends the
		// transaction all the same.
		_, _ = conn.Exec(ctx, sqlRollback)
	}
	return err
}

// sender is a pool, or one of its connections.
type sender interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}

// send runs the batch in one round trip and its callbacks with what came back. A
// batch without BEGIN is one transaction by itself.
func send(ctx context.Context, to sender, b *pgx.Batch) error {
	return to.SendBatch(ctx, b).Close()
}

// discard is the callback of a statement whose only row says nothing.
func discard(row pgx.Row) error {
	var ignored any
	return row.Scan(&ignored)
}
