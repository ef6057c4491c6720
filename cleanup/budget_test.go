package cleanup_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestSweepKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 100, "-3 days", "")
		insertSessions(t, pool, 100, 50, "-4 days", "")
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxRows: 70})
		if err != nil || r.Rows() != 70 || !r.OutOfBudget || r.Left != 80 || r.OldestLeft.Before(time.Now().Add(-3*24*time.Hour-2*time.Hour)) {
			t.Errorf("rows: %+v, %v", r, err) // the oldest ones went first
		}
		r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxDuration: time.Nanosecond})
		if err != nil || !r.OutOfBudget || r.Left != 80 {
			t.Errorf("time: %+v, %v", r, err)
		}
		r, err = cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 20, MaxRows: 80})
		if err != nil || r.Rows() != 80 || r.Left != 0 {
			t.Errorf("just enough: %+v, %v", r, err)
		}
	})
}

func TestSweepStopsWithItsContext(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 100, "-3 days", "")
		ctx, cancel := context.WithCancel(t.Context())
		r, err := cleanup.Sweep(ctx, pool, cleanup.Options{Batch: 10, Pause: time.Hour, Progress: func(cleanup.Result) { cancel() }})
		if !errors.Is(err, context.Canceled) || r.Rows() != 10 || r.Batches != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if sessions, _ := left(t, pool); sessions != 90 {
			t.Errorf("%d sessions are left", sessions)
		}
	})
}

func TestEverySweepsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		ended <- cleanup.Every(ctx, pool, time.Millisecond, cleanup.Options{Logger: slog.New(slog.DiscardHandler)})
	}()
	for i := range 3 {
		insertSessions(t, pool, i*100, 10, "-3 days", "")
		pgtest.Eventually(t, "they are swept", func() bool { sessions, _ := left(t, pool); return sessions == 0 })
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
