package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// onConn runs f on one connection of the pool. If f returns with a transaction open,
// because of an error or to abandon it, onConn rolls it back.
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

// send sends the batch in one round trip and runs its callbacks on the results. A batch
// without BEGIN is one implicit transaction.
func send(ctx context.Context, to sender, b *pgx.Batch) error {
	return to.SendBatch(ctx, b).Close()
}

// discard is the callback of a statement whose one row is of no interest.
func discard(row pgx.Row) error {
	var ignored any
	return row.Scan(&ignored)
}
