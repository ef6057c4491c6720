package db_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
)

func coded(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }

// idlePool is a pool that never makes a connection.
func idlePool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.WithoutCancel(t.Context()), "postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// What may succeed at another attempt is tried four times, within a second; anything else once.
func TestDoRepeatsWhatMaySucceed(t *testing.T) {
	t.Parallel()
	idle := idlePool(t)
	for _, tt := range []struct {
		err      error
		attempts int
	}{
		{nil, 1},
		{coded(pgfault.SerializationFailure), 4}, {coded(pgfault.DeadlockDetected), 4}, {coded(pgfault.OutdatedPlan), 4},
		{coded(pgfault.NoSuchStatement), 4}, {coded(pgfault.ReadOnly), 4}, {coded(pgfault.AdminShutdown), 4}, {io.EOF, 4},
		// Two writers of one new token: another attempt finds the row.
		{coded(pgfault.UniqueViolation), 4},
		{coded(pgfault.UndefinedTable), 1}, {coded(pgfault.InsufficientPrivilege), 1}, {coded(pgfault.QueryCanceled), 1},
		{errors.New("anything else"), 1}, {context.Canceled, 1},
	} {
		// Each in turn, failing for good or until the last attempt.
		for _, failures := range []int{tt.attempts, tt.attempts - 1} {
			synctest.Test(t, func(t *testing.T) {
				retries, attempts, began := 0, 0, time.Now()
				d := db.New(idle, "", time.Minute, 1, func() { retries++ })
				err := d.Do(t.Context(), func(context.Context) error {
					if attempts++; attempts > failures {
						return nil
					}
					return tt.err
				})
				want := tt.err
				if failures < tt.attempts {
					want = nil
				}
				if took := time.Since(began); !errors.Is(err, want) || attempts != tt.attempts || retries != attempts-1 || took >= time.Second {
					t.Errorf("%v, %d times: error %v after %d attempts, %d retries, %v", tt.err, failures, err, attempts, retries, took)
				}
			})
		}
	}
}

// What is not visible yet is looked for again within whatever time there is, and takes no
// attempt from faults.
func TestDoLooksAgainForWhatIsUnsettled(t *testing.T) {
	t.Parallel()
	idle := idlePool(t)
	for timeout, faults := range map[time.Duration]int{time.Minute: 3, 10 * time.Millisecond: 0} {
		synctest.Test(t, func(t *testing.T) {
			attempts := 0
			d := db.New(idle, "", timeout, 1, func() {})
			err := d.Do(t.Context(), func(context.Context) error {
				switch attempts++; {
				case attempts <= 3:
					return fmt.Errorf("wrapped: %w", db.ErrUnsettled)
				case attempts <= 3+faults:
					return coded(pgfault.DeadlockDetected)
				}
				return nil
			})
			if err != nil || attempts != 4+faults {
				t.Errorf("%v: error %v after %d attempts", timeout, err, attempts)
			}
			err = d.Do(t.Context(), func(context.Context) error { return db.ErrUnsettled })
			if !errors.Is(err, db.ErrUnsettled) {
				t.Errorf("%v: error %v", timeout, err)
			}
		})
	}
}

// An operation has a timeout of its own, instead of its caller's: a client that goes away
// does not leave it half done.
func TestDoEndsByItsOwnTimeout(t *testing.T) {
	t.Parallel()
	idle := idlePool(t)
	synctest.Test(t, func(t *testing.T) {
		d := db.New(idle, "", 3*time.Second, 1, func() {})
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		cancel()
		began := time.Now()
		err := d.Do(ctx, func(ctx context.Context) error {
			if ctx.Err() != nil || ctx.Value(key{}) != "value" {
				t.Errorf("the context has ended, or lost its values: %v", ctx.Err())
			}
			<-ctx.Done()
			return fmt.Errorf("waiting: %w", ctx.Err())
		})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Config.Timeout (3s)") || time.Since(began) != 3*time.Second {
			t.Errorf("error %v after %v", err, time.Since(began))
		}

		// A deadline that was not ours is not called so.
		err = d.Do(t.Context(), func(context.Context) error { return context.DeadlineExceeded })
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "Config.Timeout") {
			t.Errorf("error %v", err)
		}
	})
}

// If the timeout comes between two attempts, the fault is reported.
func TestDoReportsTheFaultIfTheTimeIsUp(t *testing.T) {
	t.Parallel()
	idle := idlePool(t)
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		err := db.New(idle, "", 5*time.Millisecond, 1, func() {}).Do(t.Context(), func(context.Context) error {
			attempts++
			return coded(pgfault.DeadlockDetected)
		})
		if pgfault.Code(err) != pgfault.DeadlockDetected || attempts != 1 {
			t.Errorf("error %v after %d attempts", err, attempts)
		}
	})
}

// A restart breaks every connection of a pool, and there are more than attempts.
func TestDoDiscardsBrokenConnections(t *testing.T) {
	t.Parallel()
	pgtest.NotThroughPgBouncer(t, "it ends server connections, and clients keep theirs")
	x := open(t, pgtest.MaxConns(8))
	admin, retries := pgtest.PoolIn(t, ""), 0
	d := db.New(x.pool, "", time.Minute, 1, func() { retries++ })
	var wg sync.WaitGroup
	pids := make([]uint32, 8)
	barrier := make(chan struct{})
	for i := range pids { // each on a connection of its own; pgx asks those that have idled for a second itself
		wg.Go(func() {
			conn, err := x.pool.Acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Release()
			pids[i] = conn.Conn().PgConn().PID()
			<-barrier
		})
	}
	pgtest.Eventually(t, "all are acquired", func() bool { return x.pool.Stat().AcquiredConns() == 8 })
	close(barrier)
	wg.Wait()
	pgtest.Exec(t, admin, `SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid`, pids)
	pgtest.Eventually(t, "they are gone", func() bool {
		return pgtest.Query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)`, pids) == 0
	})
	err := d.Do(t.Context(), func(ctx context.Context) error { _, err := d.Find(ctx, id(1)); return err })
	if err != nil || retries > 1 { // none if pgx has found out by itself
		t.Errorf("error %v after %d retries", err, retries)
	}
}

func TestDoKeepsConnectionsThatWork(t *testing.T) {
	t.Parallel()
	x := open(t)
	d := db.New(x.pool, "", time.Minute, 1, func() {})
	pid := pgtest.Query[int](t, x.pool, `SELECT pg_backend_pid()`)
	failed := false
	err := d.Do(t.Context(), func(context.Context) error {
		if failed {
			return nil
		}
		failed = true
		return io.EOF
	})
	if now := pgtest.Query[int](t, x.pool, `SELECT pg_backend_pid()`); err != nil || now != pid {
		t.Errorf("error %v, another connection %t", err, now != pid)
	}
}

func TestDoWaitsForAConnectionNoLongerThanItsTimeout(t *testing.T) {
	t.Parallel()
	x := open(t, pgtest.MaxConns(1))
	conn, err := x.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	d := db.New(x.pool, "", 200*time.Millisecond, 1, func() {})
	attempts := 0
	err = d.Do(t.Context(), func(ctx context.Context) error {
		if attempts++; attempts == 1 {
			return io.EOF
		}
		return ctx.Err()
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "200ms") || attempts != 2 {
		t.Errorf("error %v after %d attempts", err, attempts)
	}
}
