package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scspg/scspg/internal/pgfault"
)

const (
	maxAttempts  = 4
	firstBackoff = 20 * time.Millisecond
	backoffGrows = 4 // about 20, 80 and 320 ms: a server that is down is reported within a second
)

// ErrUnsettled is for Do to repeat, as often as its caller returns it: something that another
// transaction has committed is not visible yet.
var ErrUnsettled = errors.New("what another server has just committed is not visible yet")

// Do runs f under the timeout instead of the caller's cancellation, and runs it again
// after a transient fault. f must be safe to run twice, also if its first run has
// committed and only the answer was lost: reads and touches are by nature, endings because
// they end only what is alive, data writes and sign-ins because they look first whether
// the row shows an earlier attempt.
//
// f must not change what a request knows: a run that fails would leave it half changed.
// Callers do that after Do has returned.
func (d *DB) Do(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
	defer cancel()
	err := d.Retry(ctx, f)
	if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not done within Config.Timeout (%v): %w", d.timeout, err)
	}
	return err
}

// Retry is Do without the timeout: it goes on until ctx ends.
func (d *DB) Retry(ctx context.Context, f func(context.Context) error) error {
	backoff := firstBackoff
	for attempt, outdated := 1, 0; ; attempt++ {
		err := f(ctx)
		if isOutdated(err) && outdated < int(d.pool.Stat().TotalConns()) {
			outdated++ // and so many connections are in order again
			attempt--
			d.onRetry()
			continue
		}
		if errors.Is(err, ErrUnsettled) && sleep(ctx, min(backoff, d.timeout/8)) { // three pauses leave time for the last attempt
			backoff *= backoffGrows
			attempt--
			d.onRetry()
			continue
		}
		if err == nil || attempt == maxAttempts || !mayRepeat(err) || !sleep(ctx, backoff) {
			return err
		}
		switch {
		case pgfault.IsConnection(err):
			d.findConnection(ctx)
		case pgfault.Code(err) == pgfault.ReadOnly && d.pool.Config().ConnConfig.ValidateConnect != nil:
			// target_session_attrs looked for a primary, and this one has been demoted: all
			// connections to it are to be made anew.
			d.pool.Reset()
		}
		backoff *= backoffGrows
		d.onRetry()
	}
}

// mayRepeat reports whether another attempt may succeed. After a unique violation, which
// two writers of one new token bring about, it finds the row.
func mayRepeat(err error) bool {
	return pgfault.IsTransient(err) || pgfault.Code(err) == pgfault.UniqueViolation
}

// isOutdated reports whether a connection had prepared the statement, in vain by now. All
// connections of the pool may have, and pgx learns it from each.
func isOutdated(err error) bool {
	code := pgfault.Code(err)
	return code == pgfault.NoSuchStatement || code == pgfault.OutdatedPlan
}

// Refused reports whether err says that the server has not carried out the statement.
// After other errors it may have: pgconn.SafeToRetry does not tell for a batch.
func Refused(err error) bool { return pgfault.Code(err) != "" && !pgfault.IsConnection(err) }

// findConnection discards broken connections of the pool until it meets one that works.
// What has broken one, such as a restart of the server, has often broken them all, and
// an attempt on each would be too many. The pool acquires next what it was given last.
func (d *DB) findConnection(ctx context.Context) {
	for range d.pool.Stat().TotalConns() {
		conn, err := d.pool.Acquire(ctx)
		if err != nil {
			return
		}
		err = conn.Ping(ctx)
		conn.Release()
		if err == nil {
			return
		}
	}
}

// sleep waits about d, and reports whether ctx was still alive at the end.
func sleep(ctx context.Context, d time.Duration) bool {
	// Jitter keeps the instances of an app from knocking together.
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
