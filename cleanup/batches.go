package cleanup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// listSize is how many rows are listed at once, unless a batch is larger: few enough to
// read in some tens of milliseconds, so that no snapshot is held for long. Listing each
// batch by itself would be slow: until a vacuum, every listing passes over the index
// entries of the rows that earlier batches have deleted.
const listSize = 20_000

// inBatches calls remove on what list finds, in batches, oldest first. Each call of list
// returns the keys of the next n rows that are due. It does not return to rows that
// remove has left: they are locked, or another sweep has them.
func inBatches[K any](ctx context.Context, s *sweep, list func(ctx context.Context, n int) ([]K, error),
	remove func(context.Context, []K) error) error {
	for {
		size, err := s.allowed(max(s.Batch, listSize))
		if err != nil {
			return err
		}
		keys, err := list(ctx, size)
		if err != nil {
			return err
		}
		full := len(keys) == size
		for len(keys) > 0 {
			n, err := s.next(ctx, min(s.Batch, len(keys)))
			if err != nil {
				return err
			}
			if err := remove(ctx, keys[:n]); err != nil {
				return err
			}
			keys = keys[n:]
		}
		if !full {
			return nil
		}
	}
}

// allowed returns how many of n rows the budget allows; if none, errBudget.
func (s *sweep) allowed(n int) (int, error) {
	if s.MaxRows > 0 {
		n = int(min(int64(n), s.MaxRows-s.Rows()))
	}
	if n <= 0 || s.MaxDuration > 0 && time.Since(s.started) >= s.MaxDuration {
		return 0, errBudget
	}
	select {
	case <-s.Stop:
		return 0, errBudget
	default:
		return n, nil
	}
}

// next is called before each batch, with the number of rows at hand. It pauses as
// Options.Pause says, and returns how many rows the batch may have.
func (s *sweep) next(ctx context.Context, n int) (int, error) {
	pause := s.Pause
	if s.Pause == 0 && s.busy {
		n, pause = min(n, politeBatch), politePause*s.last
	}
	if s.MaxDuration > 0 {
		pause = min(pause, s.MaxDuration-time.Since(s.started))
	}
	if s.Batches == 0 {
		pause = 0
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-s.Stop:
	case <-ctx.Done():
	case <-timer.C:
	}
	n, err := s.allowed(n) // Stop may have been ready together with the timer
	if err != nil {
		return 0, err
	}
	return n, ended(ctx)
}

// ended returns nil while ctx lasts, and then an error that matches ctx.Err() and
// context.Cause(ctx).
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
