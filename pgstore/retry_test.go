package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestPassing(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: c}) }
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{code("40001"), true}, {code("40P01"), true}, {code("57P01"), true}, {code("08006"), true}, {code("23505"), true},
		{code("42P01"), false}, {code("42501"), false}, {code("22001"), false}, {code("57014"), false},
		{io.ErrUnexpectedEOF, true}, {io.EOF, true}, {net.ErrClosed, true},
		{&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, true},
		{context.DeadlineExceeded, false}, {context.Canceled, false},
		{ErrUserLimit, false}, {errors.New("anything else"), false},
	} {
		if got := isTransient(tt.err); got != tt.want {
			t.Errorf("isTransient(%v) = %t, want %t", tt.err, got, tt.want)
		}
	}
}

func TestOpErrorSaysWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&pgconn.PgError{Code: "42P01"}, "run migrations.Up"},
		{&pgconn.PgError{Code: "42501"}, "privilege"},
		{&pgconn.PgError{Code: "25006"}, "primary"},
		{context.DeadlineExceeded, "Config.Timeout (5s)"},
		{errors.New("boom"), "pgstore: find session: boom"},
	} {
		err := opError("find session", 5*time.Second, tt.err)
		if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "pgstore: find session: ") {
			t.Errorf("%q: want it to contain %q and to unwrap to its cause", err, tt.want)
		}
	}
	if opError("x", 0, nil) != nil || !errors.Is(opError("x", 0, ErrUserLimit), ErrUserLimit) {
		t.Error("nil and sentinels must pass through")
	}
}

func TestDoOutlivesTheCallerAndStops(t *testing.T) {
	s := &Store{cfg: Config{Timeout: time.Minute}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := 0
	err := s.do(ctx, "test", func(ctx context.Context) error {
		calls++
		if ctx.Err() != nil {
			t.Error("the operation was cancelled with its caller")
		}
		return io.EOF
	})
	if !errors.Is(err, io.EOF) || calls != maxAttempts || s.Stat().Retries() != maxAttempts-1 {
		t.Errorf("error %v after %d calls, %d retries counted", err, calls, s.Stat().Retries())
	}
	calls = 0
	boom := errors.New("boom")
	if err := s.do(ctx, "test", func(context.Context) error { calls++; return boom }); !errors.Is(err, boom) || calls != 1 {
		t.Errorf("error %v after %d calls: want no retry", err, calls)
	}
}
