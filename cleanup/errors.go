package cleanup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrNotMigrated is returned where the session tables are not there.
	ErrNotMigrated = errors.New("cleanup: the session tables are missing, or not in the search_path: run migrations.Up, " +
		`or goose -dir migrations -table scspg_goose_db_version postgres "$DATABASE_URL" up`)

	// ErrReadOnly is returned where the server does not let us delete: it is a
	// standby, or the role or database is set to read-only.
	ErrReadOnly = errors.New("cleanup: the server is read-only (a standby?): connect to the primary, " +
		"for instance with target_session_attrs=read-write")
)

// SQLSTATEs, https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeReadOnly        = "25006"
	codePrivilege       = "42501"
	codeLockNotAvail    = "55P03"
	codeQueryCanceled   = "57014"
	codeSerialization   = "40001"
	codeDeadlock        = "40P01"
	codeUndefinedTable  = "42P01"
	codeUndefinedColumn = "42703"
	codeNoStatement     = "26000"
	codeStatementExists = "42P05"
)

func code(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// isConflict says that the transaction was rolled back because it crossed others,
// and may work now.
func isConflict(err error) bool {
	c := code(err)
	return c == codeDeadlock || c == codeSerialization
}

// isContention reports whether others were in the way.
func isContention(err error) bool { return code(err) == codeLockNotAvail || isConflict(err) }

// opDelete is the operation that deletes.
const opDelete = "delete sessions"

// explain says what failed and what to do about it. The cause stays for errors.Is
// and errors.As.
func explain(ctx context.Context, op string, o *Options, err error) error {
	if e := ended(ctx); e != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", e, err)
	}
	switch code(err) {
	case codeUndefinedTable, codeUndefinedColumn:
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	case codeReadOnly:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case codePrivilege:
		return fmt.Errorf("cleanup: %s: the database role lacks a privilege on the session tables: %w", op, err)
	case codeLockNotAvail:
		return fmt.Errorf("cleanup: %s: a lock was not granted within Options.LockTimeout (%v): %w", op, o.LockTimeout, err)
	case codeNoStatement, codeStatementExists:
		return fmt.Errorf("cleanup: %s: a pooler between us and the server does not keep prepared statements: "+
			"set default_query_exec_mode=exec in the DSN: %w", op, err)
	case codeQueryCanceled:
		hint := ""
		if op == opDelete {
			hint = "try a smaller Options.Batch: "
		}
		if ctx.Err() == nil {
			return fmt.Errorf("cleanup: %s: not done within Options.StatementTimeout (%v): %s%w", op, o.StatementTimeout, hint, err)
		}
	}
	return fmt.Errorf("cleanup: %s: %w", op, err)
}
