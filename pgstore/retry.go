package pgstore

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	maxAttempts  = 4
	firstBackoff = 20 * time.Millisecond
	backoffGrows = 4 // about 20, 80 and 320 ms: a server that is down is reported within a second
)

// do runs f under Config.Timeout instead of the caller's cancellation, and runs it
// again after a transient fault. f must be safe to run twice, also if its first run
// has committed and only the answer was lost: reads and touches are by nature, data
// writes because they expect a version, endings because they end only what is alive,
// and a sign-in because it neither counts nor evicts its own session.
//
// f must not change the request's state: a run that fails would leave it half changed.
// Callers do that after do has returned.
func (s *Store) do(ctx context.Context, op string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		if err == nil || attempt == maxAttempts || !isTransient(err) || !sleep(ctx, backoff) {
			var timeout time.Duration
			if ctx.Err() != nil {
				timeout = s.cfg.Timeout
			}
			return opError(op, timeout, err)
		}
		if !isConflict(err) {
			s.findConnection(ctx)
		}
		backoff *= backoffGrows
		s.stat.retries.Add(1)
	}
}

// findConnection discards broken connections of the pool until it meets one that works.
// What has broken one, such as a restart of the server, has often broken them all, and
// an attempt on each would be too many. The pool acquires next what it was given last.
func (s *Store) findConnection(ctx context.Context) {
	if s.pool == nil {
		return // in tests
	}
	for range s.pool.Stat().TotalConns() {
		conn, err := s.pool.Acquire(ctx)
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

// isConflict reports whether err is the doing of another transaction: the connection is
// all right.
func isConflict(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == codeSerializationFailure || pgErr.Code == codeDeadlockDetected || pgErr.Code == codeUniqueViolation)
}

// isTransient reports whether another attempt may succeed.
func isTransient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case codeSerializationFailure, codeDeadlockDetected,
			codeUniqueViolation,       // two writers of one new token: the next attempt finds the row
			"57P01", "57P02", "57P03", // the server shuts down, crashed, or starts
			"57P05", "25P03", // the connection had idled for too long
			"53300", // no connection is free
			"25006": // read-only: a pooled connection to what was the primary
			return true
		}
		return strings.HasPrefix(pgErr.Code, "08") // connection exceptions
	}
	var netErr net.Error
	var connectErr *pgconn.ConnectError
	return pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &connectErr) || errors.As(err, &netErr)
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
