package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
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
	s := newSweep(pool, o)
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

// sweep is one call of Sweep, or of Inspect.
type sweep struct {
	pool    *pgxpool.Pool
	opts    Options
	names   *strings.Replacer // of q
	started time.Time
	result  Result
	tempo   tempo

	distributed   bool // the sessions are distributed over servers
	sized         bool // a function measures what is distributed
	readOnly      bool // nothing will be deleted: a standby will do
	shortLockWait bool // wait for locks for a shortWaitShare-th of LockTimeout only
	met           int  // batches that met locks
}

func newSweep(pool *pgxpool.Pool, o Options) *sweep {
	schema := ""
	if o.Schema != "" {
		schema = pgx.Identifier{o.Schema}.Sanitize() + "."
	}
	names := strings.NewReplacer("{", schema+"scs_", "}", "")
	return &sweep{pool: pool, opts: o, names: names, started: time.Now(), tempo: tempo{traffic: true}}
}

func (s *sweep) run(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	err := s.sweepSessions(ctx)
	if err == nil && s.opts.Orphans {
		err = s.sweepOrphans(ctx)
	}
	if s.result.OutOfBudget = errors.Is(err, errBudget); err != nil && !s.result.OutOfBudget {
		return explain(ctx, opDelete, &s.opts, err)
	}
	if s.result.Batches > 0 {
		if _, err := query[struct{ Place string }](ctx, s, sqlFlush); err != nil {
			return explain(ctx, "make it durable", &s.opts, err)
		}
	}
	// After a full sweep, it is one probe of the index.
	left, err := query[row[int64]](ctx, s, sqlLeft, s.graceMicros(), MaxLeft)
	if err == nil {
		s.result.Left, s.result.OldestLeft, s.result.Counted = left[0].Key, left[0].Hour.Time, true
	}
	return explain(ctx, "count what is left", &s.opts, err)
}

// passes is how often a sweep goes over the sessions at most. It does so until it finds none:
// others may have held some, and a server that has crashed may have brought some back.
const passes = 3

func (s *sweep) sweepSessions(ctx context.Context) (err error) {
	for pass := 1; err == nil && pass <= passes; pass++ {
		met, batches := s.met, s.result.Batches
		if s.distributed {
			err = inBatches(ctx, s, &byID{s: s, hour: longAgo, passed: []pgtype.UUID{}, before: -1})
		} else {
			err = inBatches(ctx, s, &byPlace{s: s, last: row[string]{"(0,0)", longAgo}})
		}
		if s.met > met && pass < passes {
			s.rest(ctx, min(s.opts.LockTimeout, time.Second)) // sign-ins do not take as long
		} else if s.result.Batches == batches {
			break
		}
	}
	return err
}

func (s *sweep) graceMicros() float64 { return float64(s.opts.Grace.Microseconds()) }

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
	if n <= 0 || s.timeIsUp() {
		return 0, errBudget
	}
	return n, nil
}

// timeIsUp reports whether the sweep has to end, whatever it has done.
func (s *sweep) timeIsUp() bool {
	select {
	case <-s.opts.Stop:
		return true
	default:
		return s.opts.MaxDuration > 0 && time.Since(s.started) >= s.opts.MaxDuration
	}
}

// pauseBefore pauses before a batch of n rows, as Options.Pause says, and returns how many
// of them it may have.
func (s *sweep) pauseBefore(ctx context.Context, n int) (int, error) {
	pause := s.opts.Pause
	if s.opts.Pause == 0 && s.tempo.traffic {
		n, pause = min(n, politeBatch), politePause*s.tempo.last
	}
	if s.tempo.last > 0 { // there was one before
		s.rest(ctx, pause)
	}
	n, err := s.withinBudget(n) // Stop may have been ready together with the timer
	return n, cmp.Or(err, contextError(ctx))
}

// rest waits, at most until the sweep has to end, and reports whether it may go on.
func (s *sweep) rest(ctx context.Context, d time.Duration) bool {
	if s.opts.MaxDuration > 0 {
		d = min(d, s.opts.MaxDuration-time.Since(s.started))
	}
	select {
	case <-s.opts.Stop:
	case <-ctx.Done():
	case <-time.After(d):
	}
	return ctx.Err() == nil && !s.timeIsUp()
}

// done is called after each batch.
func (s *sweep) done(n kinds, userRows int64, took time.Duration) {
	s.tempo.last = took
	s.tempo.own++
	s.result.add(n, userRows)
	s.result.Batches++
	s.result.Longest = max(s.result.Longest, took)
	s.result.Duration = time.Since(s.started)
	if s.opts.Progress != nil {
		s.opts.Progress(s.result)
	}
}
