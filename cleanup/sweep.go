package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Sweep deletes the sessions that are past their grace period, oldest first, and orphans if
// Options.Orphans is set, in short transactions, until none is left or the budget is used
// up: then Result.OutOfBudget is set, which is not an error. It uses one connection at a
// time. Sweeps may overlap.
//
// When ctx ends, the batch under way is rolled back, and Sweep returns the result so
// far with an error that matches ctx.Err() and context.Cause(ctx). To let the batch finish,
// close Options.Stop instead. Other errors to match are ErrNotMigrated and ErrReadOnly.
func Sweep(ctx context.Context, pool *pgxpool.Pool, o Options) (Result, error) {
	o, err := o.withDefaults(pool)
	if err != nil {
		return Result{}, err
	}
	s := &sweep{opts: o, db: newDatabase(pool, o), started: time.Now()}
	err = s.run(ctx)
	s.result.Duration = time.Since(s.started)
	return s.result, err
}

// Every sweeps at once, and then an interval after the end of each sweep, plus or minus up
// to a tenth at random, so that the instances of an app do not sweep in step, until ctx
// ends or Options.Stop is closed. A sweep that fails is logged to Options.Logger.
//
// Every blocks, and starts no goroutine. It returns an error that matches ctx.Err() and
// context.Cause(ctx) once ctx has ended, nil once Stop is closed, and, before the first
// sweep, an error that names the argument that is wrong: interval must be positive.
func Every(ctx context.Context, pool *pgxpool.Pool, interval time.Duration, o Options) error {
	if interval <= 0 {
		return fmt.Errorf("cleanup: the interval is %v: it must be positive", interval)
	}
	o, err := o.withDefaults(pool)
	if err != nil {
		return err
	}
	for {
		result, err := Sweep(ctx, pool, o)
		switch {
		case ctx.Err() != nil:
			return contextError(ctx)
		case err != nil:
			o.Logger.ErrorContext(ctx, "cleanup: a sweep failed", "error", err, "result", result)
		default:
			o.Logger.InfoContext(ctx, "cleanup: swept", "result", result)
		}
		select {
		case <-ctx.Done():
			return contextError(ctx)
		case <-o.Stop:
			return nil
		case <-time.After(interval - interval/10 + rand.N(interval/5+1)):
		}
	}
}

// sweep is one call of Sweep.
type sweep struct {
	opts    Options
	db      *database
	started time.Time
	result  Result
	settle  time.Duration // between finding an orphan and its deletion
}

func (s *sweep) run(ctx context.Context) error {
	distributed, err := s.db.probe(ctx)
	if err != nil {
		return err
	}
	if distributed {
		s.settle = secondLook
		err = inBatches(ctx, s, &byID{s: s, hour: longAgo, before: -1})
	} else {
		err = inBatches(ctx, s, &byPlace{s: s, last: row[string]{"(0,0)", longAgo}})
	}
	if err == nil && s.opts.Orphans {
		err = s.sweepOrphans(ctx)
	}
	if err != nil && !errors.Is(err, errBudget) {
		return explain(ctx, opDelete, &s.opts, err)
	}
	s.result.OutOfBudget = err != nil
	// After a full sweep, it is one probe of the index.
	left, err := query[row[int64]](ctx, s.db, sqlLeft, s.db.graceMicros(), MaxLeft)
	if err == nil {
		s.result.Left, s.result.OldestLeft, s.result.Counted = left[0].Key, left[0].Hour.Time, true
	}
	return explain(ctx, "count what is left", &s.opts, err)
}

// listSize is how many rows are listed at once, unless a batch is larger: few enough to
// read in some tens of milliseconds. To list each batch by itself would be slow: until a
// vacuum, a listing passes over the index entries of the rows of its first hour that are gone.
const listSize = 20_000

// inBatches removes what p lists, until nothing is left or the budget is used up.
func inBatches[K any](ctx context.Context, s *sweep, p path[K]) error {
	for full := true; full; {
		size, err := s.withinBudget(max(s.opts.Batch, listSize))
		if err != nil {
			return err
		}
		rows, err := p.list(ctx, size)
		if err != nil {
			return err
		}
		full = len(rows) == size
		for len(rows) > 0 {
			n, err := s.pauseBefore(ctx, min(s.opts.Batch, len(rows)))
			if err != nil {
				return err
			}
			if err := p.remove(ctx, rows[:n]); err != nil {
				return err
			}
			rows = rows[n:]
		}
	}
	return nil
}

var errBudget = errors.New("cleanup: the budget is used up")

// withinBudget returns how many of n rows the budget allows; if none, errBudget.
func (s *sweep) withinBudget(n int) (int, error) {
	if s.opts.MaxRows > 0 {
		n = int(min(int64(n), s.opts.MaxRows-s.result.Rows()-s.result.OrphanUserRows-s.result.OrphanUsers))
	}
	if n <= 0 || s.opts.MaxDuration > 0 && time.Since(s.started) >= s.opts.MaxDuration {
		return 0, errBudget
	}
	select {
	case <-s.opts.Stop:
		return 0, errBudget
	default:
		return n, nil
	}
}

// pauseBefore pauses before a batch of n rows, as Options.Pause says, and returns how many
// of them it may have.
func (s *sweep) pauseBefore(ctx context.Context, n int) (int, error) {
	pause := s.opts.Pause
	if s.opts.Pause == 0 && s.db.tempo.traffic {
		n, pause = min(n, politeBatch), politePause*s.db.tempo.last
	}
	if s.db.tempo.last > 0 { // there was one before
		s.rest(ctx, pause)
	}
	n, err := s.withinBudget(n) // Stop may have been ready together with the timer
	return n, cmp.Or(err, contextError(ctx))
}

// rest waits, at most until the sweep has to end.
func (s *sweep) rest(ctx context.Context, d time.Duration) {
	if s.opts.MaxDuration > 0 {
		d = min(d, s.opts.MaxDuration-time.Since(s.started))
	}
	select {
	case <-s.opts.Stop:
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// done is called after each batch.
func (s *sweep) done(n kinds, userRows int64, took time.Duration) {
	s.db.tempo.last = took
	s.db.tempo.own++
	s.result.add(n, userRows)
	s.result.Batches++
	s.result.Longest = max(s.result.Longest, took)
	s.result.Duration = time.Since(s.started)
	if s.opts.Progress != nil {
		s.opts.Progress(s.result)
	}
}
