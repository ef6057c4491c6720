package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrUserLimit is returned by SignIn, and by the commit that signs a user in,
	// where the policy is Reject and the user has no session to spare.
	ErrUserLimit = errors.New("pgstore: the user has reached the limit of sessions")

	// ErrEnded is returned by SignIn when the session did not survive it: RevokeAll
	// or RevokeOthers ran after the request began, or somebody ended the session
	// that was being renewed. Nobody is signed in.
	ErrEnded = errors.New("pgstore: the session was ended while it was being signed in")

	// ErrNotLive is returned by RevokeOthers when the token to keep is not that of a
	// live session of the user, for instance because another device has just signed
	// this one out. Nothing was revoked.
	ErrNotLive = errors.New("pgstore: the token to keep is not that of a live session of this user; nothing was revoked")
)

// errUnkeyed keeps a user's sessions in the user's index, where RevokeAll finds them.
var errUnkeyed = errors.New("the session belongs to a user, and the data to store does not say whose it is: " +
	"set SessionManager.Codec to pgstore.Codec with the UserKey that the other apps on these tables have")

// SQLSTATEs, https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeUniqueViolation      = "23505"
	codeSerializationFailure = "40001"
	codeDeadlockDetected     = "40P01"
	codeUndefinedTable       = "42P01"
	codeUndefinedColumn      = "42703"
	codeInvalidSchema        = "3F000"
	codePrivilege            = "42501"
	codeReadOnly             = "25006"
)

// opError says which operation failed, and what to do where that is known. The
// cause stays for errors.Is and errors.As. timeout is Config.Timeout if it has passed,
// else 0.
func opError(op string, timeout time.Duration, err error) error {
	if err == nil || errors.Is(err, ErrUserLimit) || errors.Is(err, ErrNotLive) {
		return err
	}
	if _, ok := errors.AsType[*limitError](err); ok {
		return fmt.Errorf("pgstore: %s: %w", op, err) // the app's error, about the app's tables
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case codeUndefinedTable, codeUndefinedColumn, codeInvalidSchema:
			return fmt.Errorf("pgstore: %s: the session tables are missing or out of date, or not in the search_path: "+
				"run migrations.Up, or goose -dir migrations -table scspg_goose_db_version up, and see Config.Schema: %w", op, err)
		case codePrivilege:
			return fmt.Errorf("pgstore: %s: the database role lacks a privilege on the session tables: %w", op, err)
		case codeReadOnly:
			return fmt.Errorf("pgstore: %s: the server is read-only (a standby?): connect to the primary, "+
				"for instance with target_session_attrs=read-write: %w", op, err)
		}
	}
	if timeout > 0 && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("pgstore: %s: not done within Config.Timeout (%v): %w", op, timeout, err)
	}
	return fmt.Errorf("pgstore: %s: %w", op, err)
}
