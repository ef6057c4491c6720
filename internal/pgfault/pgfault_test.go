package pgfault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// of is an error with a code, as callers meet it.
func of(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }

func TestCodeIsThatOfTheServerOrNone(t *testing.T) {
	if got := Code(of(UniqueViolation)); got != "23505" {
		t.Errorf("got %q", got)
	}
	for _, err := range []error{nil, io.EOF} {
		if got := Code(err); got != "" {
			t.Errorf("%v has the code %q", err, got)
		}
	}
}

func TestFaultsAreToldApart(t *testing.T) {
	const conflict, connection, transient = 1, 2, 4
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{of(SerializationFailure), conflict | transient}, {of(DeadlockDetected), conflict | transient},

		{of(AdminShutdown), connection | transient}, {of(CrashShutdown), connection | transient},
		{of(CannotConnectNow), connection | transient}, {of(IdleSession), connection | transient},
		{of(IdleInTransaction), connection | transient}, {of(TransactionTimeout), connection | transient}, {of(TooManyConnections), connection | transient},
		{of("08006"), connection | transient}, {io.EOF, connection | transient},
		{io.ErrUnexpectedEOF, connection | transient}, {net.ErrClosed, connection | transient},
		{refused, connection | transient}, {fmt.Errorf("wrapped: %w", refused), connection | transient},
		{&pgconn.ConnectError{}, connection | transient}, {safeToRetry{}, connection | transient},

		{of(ReadOnly), transient}, {of(NoSuchStatement), transient}, {of(OutdatedPlan), transient},

		{nil, 0}, {errors.New("anything else"), 0}, {context.Canceled, 0}, {context.DeadlineExceeded, 0},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, refused), 0},
		{of(UniqueViolation), 0}, {of(UndefinedTable), 0}, {of(InsufficientPrivilege), 0}, {of(StatementExists), 0},
		{of(LockNotAvailable), 0}, {of(QueryCanceled), 0}, {of("28P01"), 0}, {of("8"), 0},
	} {
		got := 0
		for bit, is := range map[int]func(error) bool{conflict: IsConflict, connection: IsConnection, transient: IsTransient} {
			if is(tt.err) {
				got |= bit
			}
		}
		if got != tt.want {
			t.Errorf("%v: got %03b, want %03b", tt.err, got, tt.want)
		}
	}
}

type safeToRetry struct{}

func (safeToRetry) Error() string     { return "nothing was sent" }
func (safeToRetry) SafeToRetry() bool { return true }

func TestAdviceSaysWhatToDo(t *testing.T) {
	for code, want := range map[string]string{
		UndefinedTable: `goose -dir "$(go list -m -f '{{.Dir}}' github.com/scspg/scspg)/migrations" ` +
			`-table scspg_goose_db_version postgres "$DATABASE_URL" up`,
		UndefinedColumn:       "run migrations.Up",
		InvalidSchema:         "create one",
		InsufficientPrivilege: "grant what cmd/sweeper/deploy/roles.sql",
		ReadOnly:              "target_session_attrs=read-write",
		NoSuchStatement:       "default_query_exec_mode=cache_describe",
		StatementExists:       "default_query_exec_mode=cache_describe",
	} {
		if got := Advice(of(code)); !strings.Contains(got, want) || strings.HasSuffix(got, ":") {
			t.Errorf("%s: %q", code, got)
		}
	}
	for _, err := range []error{nil, io.EOF, of(QueryCanceled)} {
		if got := Advice(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}
