package cleanup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scspg/scspg/internal/pgfault"
)

var (
	// ErrNotMigrated is returned if the session tables are not there.
	ErrNotMigrated = errors.New("cleanup: " + pgfault.Advice(&pgconn.PgError{Code: pgfault.UndefinedTable}))

	// ErrReadOnly is returned if the server does not let us delete: it is a standby, or
	// the role or database is set to read-only.
	ErrReadOnly = errors.New("cleanup: " + pgfault.Advice(&pgconn.PgError{Code: pgfault.ReadOnly}))
)

// isContention reports whether others were in the way.
func isContention(err error) bool {
	return pgfault.Code(err) == pgfault.LockNotAvailable || pgfault.IsConflict(err)
}

// contextError returns nil while ctx lasts, and then an error that matches ctx.Err() and
// context.Cause(ctx).
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

const opDelete = "delete sessions"

// explain says which operation failed, if one has, and what to do if that is known. The
// cause stays for errors.Is and errors.As.
func explain(ctx context.Context, op string, o *Options, err error) error {
	if err == nil {
		return nil
	}
	if e := contextError(ctx); e != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", e, err)
	}
	advice := pgfault.Advice(err)
	switch code := pgfault.Code(err); {
	case code == pgfault.UndefinedTable || code == pgfault.UndefinedColumn:
		return fmt.Errorf("%w: %w", ErrNotMigrated, err)
	case code == pgfault.ReadOnly:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case code == pgfault.LockNotAvailable:
		advice = fmt.Sprintf("a lock was not granted within Options.LockTimeout (%v)", o.LockTimeout)
	case code == pgfault.QueryCanceled && ctx.Err() == nil:
		advice = fmt.Sprintf("not done within Options.StatementTimeout (%v)", o.StatementTimeout)
		if op == opDelete {
			advice += ": try a smaller Options.Batch"
		}
	}
	if advice != "" {
		advice += ": "
	}
	return fmt.Errorf("cleanup: %s: %s%w", op, advice, err)
}
