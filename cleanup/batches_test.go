package cleanup

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// A list is as long as it need be: a snapshot is held while it is read.
func TestHowMuchIsListed(t *testing.T) {
	for name, c := range map[string]struct {
		options  Options
		there    int
		want     []int // is asked for
		deleted  int64
		exceeded bool
	}{
		"small batches":    {Options{Batch: 10}, listSize + 1, []int{listSize, listSize}, listSize + 1, false},
		"large batches":    {Options{Batch: MaxBatch}, 5, []int{MaxBatch}, 5, false},
		"nothing":          {Options{Batch: 10}, 0, []int{listSize}, 0, false},
		"few are wanted":   {Options{Batch: 10, MaxRows: 25}, 100, []int{25}, 25, true},
		"more than one":    {Options{Batch: 10, MaxRows: listSize + 7}, 2 * listSize, []int{listSize, 7}, listSize + 7, true},
		"no time":          {Options{Batch: 10, MaxDuration: 1}, 100, nil, 0, true},
		"just what is due": {Options{Batch: 10, MaxRows: 100}, 30, []int{100}, 30, false},
	} {
		s := &sweep{Options: c.options, started: time.Now().Add(-time.Second)}
		keys := make([]int, c.there)
		var asked []int
		err := inBatches(t.Context(), s, func(_ context.Context, n int) ([]int, error) {
			asked = append(asked, n)
			list := keys[:min(n, len(keys))]
			keys = keys[len(list):]
			return list, nil
		}, func(_ context.Context, batch []int) error {
			s.done(Result{Expired: int64(len(batch))}, 0)
			return nil
		})
		if !slices.Equal(asked, c.want) || s.Rows() != c.deleted || errors.Is(err, errBudget) != c.exceeded || err != nil && !c.exceeded {
			t.Errorf("%s: asked for %v, deleted %d, %v", name, asked, s.Rows(), err)
		}
	}
}

// A pause does not outlast the time that there is, and nothing is done after it.
func TestAPauseEndsWithTheBudget(t *testing.T) {
	for name, o := range map[string]Options{
		"a pause":    {Batch: 1000, Pause: 24 * time.Hour, MaxDuration: 20 * time.Millisecond},
		"politeness": {Batch: 1000, MaxDuration: 20 * time.Millisecond},
	} {
		s := &sweep{Options: o, started: time.Now(), tempo: tempo{busy: true, last: 24 * time.Hour}}
		s.Batches = 1
		if n, err := s.next(t.Context(), 1000); !errors.Is(err, errBudget) || n != 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestWhatEndedAPauseIsTold(t *testing.T) {
	s := &sweep{Options: Options{Batch: 1000, Pause: 24 * time.Hour}}
	s.Batches = 1
	why := errors.New("the app is shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.next(ctx, 1000); !errors.Is(err, ctx.Err()) || !errors.Is(err, why) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	if err := ended(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := s.next(ctx, 1000); !errors.Is(err, context.Canceled) || err.Error() != "context canceled" {
		t.Error(err)
	}
}
