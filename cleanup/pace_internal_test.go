package cleanup

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// serverless is a sweep that has no server, and knows of traffic or of none.
func serverless(o Options, traffic bool) *sweep {
	s := newSweep(nil, o)
	s.tempo.traffic = traffic
	return s
}

// fakePath has so many rows.
type fakePath struct {
	s     *sweep
	there int
	asked []int // for how many rows
}

func (p *fakePath) list(_ context.Context, n int) ([]row[int], error) {
	p.asked = append(p.asked, n)
	n = min(n, p.there)
	p.there -= n
	return make([]row[int], n), nil
}

func (p *fakePath) remove(_ context.Context, rows []row[int]) error {
	p.s.done(kinds{"expired": int64(len(rows))}, 0, 0)
	return nil
}

// A list is as long as it need be: a snapshot is held while it is read.
func TestInBatchesListsNoMoreThanTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		options  Options
		there    int
		asked    []int
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
		s := serverless(c.options, false)
		s.started = s.started.Add(-time.Second)
		p := &fakePath{s: s, there: c.there}
		err := inBatches(t.Context(), s, p)
		if !slices.Equal(p.asked, c.asked) || s.result.Rows() != c.deleted || errors.Is(err, errBudget) != c.exceeded || err != nil && !c.exceeded {
			t.Errorf("%s: asked for %v, deleted %d, %v", name, p.asked, s.result.Rows(), err)
		}
	}
}

func TestPauseEndsWithTheBudget(t *testing.T) {
	for name, o := range map[string]Options{
		"a pause":    {Batch: 1000, Pause: 24 * time.Hour, MaxDuration: 20 * time.Millisecond},
		"politeness": {Batch: 1000, MaxDuration: 20 * time.Millisecond},
	} {
		s := serverless(o, true)
		s.tempo.last = 24 * time.Hour
		if n, err := s.pauseBefore(t.Context(), 1000); !errors.Is(err, errBudget) || n != 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestPauseSaysWhatEndedIt(t *testing.T) {
	s := serverless(Options{Batch: 1000, Pause: 24 * time.Hour}, false)
	s.tempo.last = 1
	why := errors.New("the app is shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.pauseBefore(ctx, 1000); !errors.Is(err, ctx.Err()) || !errors.Is(err, why) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	if err := contextError(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := s.pauseBefore(ctx, 1000); !errors.Is(err, context.Canceled) || err.Error() != "context canceled" {
		t.Error(err)
	}
}

func TestBatchIsWhatTrafficAndBudgetLeave(t *testing.T) {
	stop := make(chan struct{})
	close(stop)
	for name, c := range map[string]struct {
		options  Options
		traffic  bool
		deleted  int64
		want     int
		exceeded bool
	}{
		"beside others":          {Options{}, true, 0, politeBatch, false},
		"a pause of its own":     {Options{Pause: time.Nanosecond}, true, 0, 1000, false},
		"what the budget leaves": {Options{MaxRows: 1500}, false, 900, 600, false},
		"nothing is left":        {Options{MaxRows: 1500}, false, 1500, 0, true},
		"stopped":                {Options{Stop: stop}, false, 0, 0, true},
	} {
		s := serverless(c.options, c.traffic)
		s.result.Expired = c.deleted
		if n, err := s.pauseBefore(t.Context(), 1000); n != c.want || errors.Is(err, errBudget) != c.exceeded || err != nil && !c.exceeded {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// settingsRow is what the settings of a transaction answer.
type settingsRow int64

func (r settingsRow) Scan(dest ...any) error {
	*dest[0].(*int64) = int64(r)
	return nil
}

func TestTempoSeesTheTrafficOfOthers(t *testing.T) {
	tempo := newSweep(nil, Options{}).tempo
	see := func(xid, own int64, elapsed time.Duration) bool {
		tempo.own = own
		tempo.seen = tempo.seen.Add(-elapsed)
		if err := tempo.observe(settingsRow(xid)); err != nil {
			t.Fatal(err)
		}
		return tempo.traffic
	}
	if !see(1000, 0, 0) {
		t.Error("nothing is known yet: there could be traffic")
	}
	if see(1050, 50, time.Second) {
		t.Error("all of these transactions were our own")
	}
	if !see(2050, 50, time.Second) {
		t.Error("others had a thousand transactions")
	}
	if !see(2050, 0, time.Millisecond) {
		t.Error("a millisecond says nothing")
	}
	if see(2060, 0, time.Second) {
		t.Error("ten a second is quiet")
	}
}

// The first ones wait as long as they were told; those after them would make it hours.
func TestSettingsMakeWaitsForLocksShort(t *testing.T) {
	s := newSweep(nil, Options{StatementTimeout: time.Minute, LockTimeout: 5 * time.Second})
	settings := func() []any { return s.begin().QueuedQueries[1].Arguments[:2] }
	if got := settings(); !slices.Equal(got, []any{"60000", "5000"}) {
		t.Errorf("%v", got)
	}
	s.shortLockWait = true
	if got := settings(); !slices.Equal(got, []any{"60000", "50"}) {
		t.Errorf("%v", got)
	}
}

func TestSettingsAreNeverUnlimited(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1", time.Nanosecond: "1", time.Second: "1000", 1500 * time.Microsecond: "1"} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

// A server that takes the connection and says nothing is waited for no longer than the
// statement may take, and a while.
func TestBoundedEndsWithoutAnAnswer(t *testing.T) {
	s := newSweep(nil, Options{StatementTimeout: time.Nanosecond - replyGrace})
	lost, err := s.bounded(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if !lost || !errors.Is(err, context.DeadlineExceeded) || err.Error() != "no answer from the server in 1ns: context deadline exceeded" {
		t.Error(err)
	}
}
