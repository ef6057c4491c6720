package cleanup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Sweep deletes the sessions that are past their grace period, oldest first, in
// short transactions, until none is left or the budget is used up: then
// Result.OutOfBudget is set, which is not an error. It uses one connection at a
// time, and is safe to call from anywhere at once.
//
// When ctx ends, the batch under way is rolled back, and Sweep returns the result so
// far with an error that matches ctx.Err() and context.Cause(ctx). To let the batch
// finish, close Options.Stop instead. Other errors to match with errors.Is are
// ErrNotMigrated and ErrReadOnly. The result is valid with an error, too.
func Sweep(ctx context.Context, pool *pgxpool.Pool, o Options) (Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Result{}, err
	}
	s := &sweep{Options: o, sql: newStatements(o.Schema), pool: pool, started: time.Now(), tempo: tempo{busy: true}}
	err = s.run(ctx)
	s.Duration = time.Since(s.started)
	return s.Result, err
}

// sweep is one call of Sweep.
type sweep struct {
	Options
	Result
	sql     statements
	pool    *pgxpool.Pool
	started time.Time

	portable bool
	hasty    bool // waits for locks for a hasteShare-th of LockTimeout only
	tempo
}

func (s *sweep) run(ctx context.Context) error {
	if err := s.preflight(ctx); err != nil {
		return err
	}
	if s.DryRun {
		return s.dryRun(ctx)
	}
	var err error
	if s.portable {
		err = s.sweepPortably(ctx)
	} else {
		err = s.sweepByPlace(ctx)
	}
	if err != nil && !errors.Is(err, errBudget) {
		return explain(ctx, opDelete, &s.Options, err)
	}
	s.OutOfBudget = err != nil
	return s.countLeft(ctx)
}

// preflight sees what kind of database this is.
func (s *sweep) preflight(ctx context.Context) error {
	err := s.inTransaction(ctx, s.look)
	if err != nil {
		return explain(ctx, "look at the database", &s.Options, err)
	}
	return nil
}

func (s *sweep) look(ctx context.Context, tx pgx.Tx) error {
	var citus bool
	b := &pgx.Batch{}
	b.Queue(sqlCitus).QueryRow(func(r pgx.Row) error { return r.Scan(&citus) })
	for _, probe := range s.sql.probes {
		b.Queue(probe)
	}
	if !s.DryRun { // which works on a standby
		for _, probe := range s.sql.deleteProbes {
			b.Queue(probe)
		}
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil || !citus {
		return err
	}
	return tx.QueryRow(ctx, sqlDistributed, s.sql.sessions).Scan(&s.portable)
}

// errBudget says that the budget is used up.
var errBudget = errors.New("cleanup: the budget is used up")

// done is called after each batch.
func (s *sweep) done(b Result, took time.Duration) {
	s.add(b)
	s.Batches++
	s.Longest = max(s.Longest, took)
	s.last, s.own = took, s.own+1
	s.Duration = time.Since(s.started)
	if s.Progress != nil {
		s.Progress(s.Result)
	}
}

// inTransaction runs f in a transaction under the sweep's settings.
func (s *sweep) inTransaction(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	return s.bounded(ctx, func(ctx context.Context) error {
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if err := s.observe(tx.QueryRow(ctx, sqlSettings, s.settings()...)); err != nil {
				return err
			}
			return f(ctx, tx)
		})
	})
}

// begin returns a batch that does the same in one round trip; send adds the COMMIT. In
// most query modes pgx prepares all statements of a batch before it runs the first, and
// preparing waits for table locks while no timeout is set yet. So preflight has run
// statements on the same tables through inTransaction before.
func (s *sweep) begin() *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	b.Queue(sqlSettings, s.settings()...).QueryRow(s.observe)
	return b
}

// send commits it.
func (s *sweep) send(ctx context.Context, b *pgx.Batch) error {
	b.Queue("COMMIT")
	return s.bounded(ctx, func(ctx context.Context) error { return s.pool.SendBatch(ctx, b).Close() })
}

// patience is what a server may take beyond its statement timeout, connecting
// included.
const patience = 15 * time.Second

// bounded runs one transaction with a deadline, in case the server no longer answers.
// The statement and lock timeouts are enforced by the server itself.
func (s *sweep) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	own, cancel := context.WithTimeout(ctx, s.StatementTimeout+patience)
	defer cancel()
	err := f(own)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer from the server in %v: %w", s.StatementTimeout+patience, err)
	}
	return err
}

func (s *sweep) settings() []any {
	wait := s.LockTimeout
	if s.hasty {
		wait /= hasteShare
	}
	scan := "off"
	if s.DryRun { // which may be about all there is
		scan = "on"
	}
	return []any{milliseconds(s.StatementTimeout), milliseconds(wait), scan}
}

// milliseconds is d as a setting. 0 would mean no limit.
func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }

func (s *sweep) graceMicros() float64 { return float64(s.Grace.Microseconds()) }

// countLeft looks at what there still is. After a full sweep that is one probe of
// the index.
func (s *sweep) countLeft(ctx context.Context) error {
	b := s.begin()
	var oldest pgtype.Timestamptz
	b.Queue(s.sql.left, s.graceMicros(), MaxLeft).QueryRow(func(r pgx.Row) error { return r.Scan(&s.Left, &oldest) })
	if err := s.send(ctx, b); err != nil {
		return explain(ctx, "count what is left", &s.Options, err)
	}
	s.OldestLeft, s.Counted = oldest.Time, true
	return nil
}

func (s *sweep) dryRun(ctx context.Context) error {
	b := s.begin()
	var oldest pgtype.Timestamptz
	b.Queue(s.sql.dryRun, s.graceMicros()).QueryRow(func(r pgx.Row) error {
		return r.Scan(&s.Expired, &s.SignedOut, &s.Revoked, &s.Evicted, &s.Renewed, &s.UserRows, &oldest)
	})
	if err := s.send(ctx, b); err != nil {
		return explain(ctx, "count sessions", &s.Options, err)
	}
	s.Left, s.OldestLeft, s.Counted = min(s.Rows(), MaxLeft), oldest.Time, true
	return nil
}

// String is for people: what went, in a line.
func (r Result) String() string {
	return fmt.Sprintf("%d sessions (%d expired, %d signed out, %d revoked, %d evicted, %d renewed) and %d user rows in %d batches and %v",
		r.Rows(), r.Expired, r.SignedOut, r.Revoked, r.Evicted, r.Renewed, r.UserRows, r.Batches, r.Duration.Round(time.Millisecond))
}
