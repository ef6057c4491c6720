package cleanup

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
)

// q is a statement with the tables named.
func (s *sweep) q(sql string) string { return s.names.Replace(sql) }

// probe finds out what kind of database this is, and whether a sweep can work in it.
func (s *sweep) probe(ctx context.Context) error {
	return explain(ctx, "look at the database", &s.opts, s.inTransaction(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		var citus, nowhere bool
		if err := c.QueryRow(ctx, sqlPlace).Scan(&citus, &s.sized, &nowhere); err != nil {
			return err
		}
		if nowhere && s.opts.Schema == "" {
			return pgfault.ErrNoSchema
		}
		b := &pgx.Batch{}
		for i, table := range probes {
			if i == 2 && !s.opts.Orphans {
				break
			}
			b.Queue(s.q("SELECT " + table[0] + " FROM " + table[1] + " LIMIT 0"))
			if !s.readOnly {
				b.Queue(s.q("DELETE FROM " + table[1] + " WHERE false"))
			}
		}
		if citus {
			b.Queue(sqlDistributed, s.q("{sessions}")).QueryRow(func(r pgx.Row) error { return r.Scan(&s.distributed) })
		}
		return c.SendBatch(ctx, b).Close()
	}))
}

// begin begins a transaction under the settings of a sweep.
func (s *sweep) begin() *pgx.Batch {
	wait := s.opts.LockTimeout
	if s.shortLockWait {
		wait /= shortWaitShare
	}
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	b.Queue(sqlSettings, milliseconds(s.opts.StatementTimeout), milliseconds(wait), milliseconds(idleTimeout),
		strconv.FormatBool(s.readOnly)).QueryRow(s.tempo.observe)
	return b
}

// milliseconds is d as a setting. 0 would mean no limit.
func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }

// inTransaction runs f in a transaction, from statement to statement.
func (s *sweep) inTransaction(ctx context.Context, f func(context.Context, *pgxpool.Conn) error) error {
	return s.connected(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		err := c.SendBatch(ctx, s.begin()).Close()
		if err == nil {
			err = f(ctx, c)
		}
		if err == nil {
			b := &pgx.Batch{} // Exec would lose why a connection breaks
			b.Queue("COMMIT")
			err = c.SendBatch(ctx, b).Close()
		}
		return err
	})
}

// query runs a statement in a transaction of its own, and in one round trip. In most query
// modes pgx prepares all statements of a batch before it runs the first, and preparing
// waits for table locks while no timeout is set yet. So probe has run statements on the
// same tables through inTransaction before.
func query[T any](ctx context.Context, s *sweep, sql string, args ...any) (list []T, err error) {
	err = s.connected(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		b := s.begin()
		b.Queue(s.q(sql), args...).Query(func(rows pgx.Rows) (err error) {
			list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
			return err
		})
		b.Queue("COMMIT")
		return c.SendBatch(ctx, b).Close()
	})
	return list, err
}

// connected runs f, which is one transaction, on a connection, and if that breaks, within
// the budget on others. The transaction may have been committed all the same: what f has
// deleted by then, it does not find again. A server that has never answered is not waited for.
func (s *sweep) connected(ctx context.Context, f func(context.Context, *pgxpool.Conn) error) error {
	once := func(ctx context.Context) error {
		return s.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
			err := f(ctx, c)
			if err != nil && !c.Conn().IsClosed() {
				_, _ = c.Exec(ctx, "ROLLBACK") // if it fails, the pool closes the connection, which does the same
			}
			return err
		})
	}
	lost, err := s.bounded(ctx, once)
	first, wait := err, backoff
	for n := 1; lost && n < maxConnections && !s.tempo.seen.IsZero() && s.rest(ctx, wait); n++ {
		if lost, err = s.bounded(ctx, once); err != nil {
			err = fmt.Errorf("%w (it began with: %w)", err, first)
		}
		wait *= 2
	}
	return err
}

// bounded runs one transaction with a deadline, in case the server no longer answers, and
// reports whether it was the connection that failed. The statement and lock timeouts are
// enforced by the server itself.
func (s *sweep) bounded(ctx context.Context, f func(context.Context) error) (lost bool, err error) {
	limit := s.opts.StatementTimeout + replyGrace
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = f(own)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		return true, fmt.Errorf("no answer from the server in %v: %w", limit, err)
	}
	return pgfault.IsConnection(err), err
}

const (
	replyGrace     = 15 * time.Second // what a server may take beyond its statement timeout, connecting included
	maxConnections = 8                // for one transaction: with the backoff, half a minute

	// While others write to the server, a sweep makes small batches, and pauses after
	// each for politePause times as long as it took. On two cores that also serve the
	// requests, these had 1.3 to 1.5 times their p99 without a sweep (with 200 and 2: twice).
	politeBatch = 80 // still some 10,000 rows a second
	politePause = 4

	trafficWrites = 20                     // writing transactions of others per second that count as traffic
	observation   = 100 * time.Millisecond // the shortest time over which they are counted
)

var (
	backoff     = 250 * time.Millisecond // before the first new connection; it doubles
	idleTimeout = 15 * time.Second       // after which the server ends a transaction whose sweep has vanished
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
	if err := r.Scan(&xid, nil); err != nil {
		return err
	}
	if elapsed := time.Since(t.seen); elapsed >= observation {
		t.traffic = t.seen.IsZero() || float64(xid-t.xid-t.own) > trafficWrites*elapsed.Seconds()
		t.xid, t.seen, t.own = xid, time.Now(), 0
	}
	return nil
}
