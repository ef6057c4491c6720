package cleanup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// listSize is how many rows are listed at a time, where a batch does not need more:
// a few tens of milliseconds' reading, so that no snapshot is held for long. One batch
// by one, each listing would pass over the index entries of all that is gone, as long
// as no vacuum may remove them.
const listSize = 20_000

// inBatches deletes what list finds, oldest first. Each call of list returns the keys
// of the next n rows that are due: it does not come back to those that were left, which
// are locked, or somebody else's work.
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

// allowed is how many of n rows the budget leaves, or errBudget.
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

// next is called before each batch, with how many rows it could take. It pauses, and
// returns how many it may.
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
	n, err := s.allowed(n) // all three may have been ready
	if err != nil {
		return 0, err
	}
	return n, ended(ctx)
}

// ended is nil while ctx lasts, then its error, with the cause where there is another.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
