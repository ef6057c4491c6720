// Package pgfault says what an error of PostgreSQL means and what to do about it.
package pgfault

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs, https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	OutdatedPlan          = "0A000" // feature_not_supported: "cached plan must not change result type"
	UniqueViolation       = "23505"
	ReadOnly              = "25006"
	IdleInTransaction     = "25P03"
	TransactionTimeout    = "25P04"
	NoSuchStatement       = "26000"
	InvalidSchema         = "3F000"
	SerializationFailure  = "40001"
	DeadlockDetected      = "40P01"
	InsufficientPrivilege = "42501"
	UndefinedColumn       = "42703"
	UndefinedTable        = "42P01"
	StatementExists       = "42P05"
	TooManyConnections    = "53300"
	LockNotAvailable      = "55P03"
	QueryCanceled         = "57014"
	AdminShutdown         = "57P01"
	CrashShutdown         = "57P02"
	CannotConnectNow      = "57P03"
	IdleSession           = "57P05"
)

// Code returns the SQLSTATE of err, or "" if the server did not report it.
func Code(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// IsConflict reports whether the transaction was rolled back because it crossed others:
// it may work now, on the same connection.
func IsConflict(err error) bool {
	code := Code(err)
	return code == SerializationFailure || code == DeadlockDetected
}

// IsConnection reports whether the connection broke or could not be made. The end of a
// context breaks a connection too, but does not count.
func IsConnection(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	switch code := Code(err); code {
	case "":
	case AdminShutdown, CrashShutdown, CannotConnectNow, IdleSession, IdleInTransaction, TransactionTimeout, TooManyConnections:
		return true
	default:
		return strings.HasPrefix(code, "08") // connection exceptions
	}
	var netErr net.Error
	var connectErr *pgconn.ConnectError
	return pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &connectErr) || errors.As(err, &netErr)
}

// IsTransient reports whether another attempt may succeed. A unique violation is not
// transient in general: the caller knows whether a second attempt would find the row.
func IsTransient(err error) bool {
	switch Code(err) {
	case ReadOnly, // if a pooled connection leads to what was the primary
		NoSuchStatement, OutdatedPlan: // if a migration or DEALLOCATE ALL came in between: pgx prepares anew
		return true
	}
	return IsConflict(err) || IsConnection(err)
}

// ErrNoSchema is for a search_path that leads nowhere.
var ErrNoSchema = errors.New("no schema of the search_path exists, or the role lacks USAGE on it: create one, grant that, or name one by Schema")

// Goose is the command that migrates. The files are where the go command has put the module.
const Goose = `goose -dir "$(go list -m -f '{{.Dir}}' github.com/scspg/scspg)/migrations" ` +
	`-table scspg_goose_db_version postgres "$DATABASE_URL" up`

// Advice returns what is wrong and what to do about it, or "" if that is not known.
func Advice(err error) string {
	switch Code(err) {
	case UndefinedTable, UndefinedColumn:
		return "the session tables are missing or out of date, or the schema that Schema or the search_path names does not have them, or does not exist: " +
			"run migrations.Up (with migrations.Schema, if Schema is set) or, where your app's go.mod is, " + Goose
	case InvalidSchema:
		return ErrNoSchema.Error()
	case InsufficientPrivilege:
		return "the database role lacks a privilege on the session tables or their schema: grant what cmd/sweeper/deploy/roles.sql does"
	case ReadOnly:
		return "the server is read-only (a standby?): connect to the primary, for instance with target_session_attrs=read-write"
	case NoSuchStatement, StatementExists:
		return "a pooler on the way to the server does not keep prepared statements: set default_query_exec_mode=cache_describe in the DSN"
	}
	return ""
}
