package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	// DefaultTimeout is the deadline of a store operation where Config.Timeout is 0.
	DefaultTimeout = 5 * time.Second
	// DefaultMaxTouchAfter caps the default of Config.TouchAfter.
	DefaultMaxTouchAfter = time.Minute

	// defaultTouchShare is the part of the idle window that may pass between two
	// touches by default: 1/20 of it.
	defaultTouchShare = 20

	maxSchemaBytes = 63 // NAMEDATALEN - 1 of PostgreSQL
)

// LimitPolicy says what happens when a sign-in finds the user at the limit.
type LimitPolicy int

const (
	// EvictOldest ends the session that was signed in longest ago. The default.
	EvictOldest LimitPolicy = iota
	// EvictLeastRecent ends the session that has gone unused longest.
	EvictLeastRecent
	// Reject refuses the sign-in with ErrUserLimit. A renewal is never refused: if
	// another sign-in took its place while it renewed, the newest session goes.
	Reject
)

// Config configures a Store. The zero value is usable: no limit, and the defaults
// below. New copies it, so later changes have no effect.
type Config struct {
	// UserLimit is how many live sessions a user may have, counting the one being
	// signed in. 0 means no limit; negative values are refused by New. A limit needs
	// a Codec with a UserKey: without one, commits fail rather than go uncounted.
	UserLimit int

	// UserLimitFunc, if not nil, gives the limit of one user and takes precedence
	// over UserLimit; 0 means no limit for that user. It is called at each sign-in
	// and each renewal, before any lock or connection is taken, possibly again when
	// the operation is retried, and must be safe for concurrent use. Its context
	// ends with the operation's Timeout. An error fails the sign-in.
	UserLimitFunc func(ctx context.Context, userID string) (int, error)

	// LimitPolicy says what happens at the limit. Default: EvictOldest.
	LimitPolicy LimitPolicy

	// TouchAfter is how long an unchanged session may go without its expiry and
	// last-seen time being moved on. Larger values save writes; a session then times
	// out up to TouchAfter early. Default (0): 5% of the idle window, at most 1
	// minute. It is never more than half of the idle window, so that an active
	// session cannot time out. Negative values are refused. Needs Track.
	TouchAfter time.Duration

	// Timeout is the deadline of one store operation, including the wait for a
	// connection and retries. It replaces the request's own cancellation, so that a
	// client that hangs up neither loses a write nor costs a connection.
	// Default (0): 5 seconds. Negative values are refused.
	Timeout time.Duration

	// Schema qualifies the table names. Default (""): unqualified, the search_path
	// decides. Set it behind PgBouncer, which refuses search_path as a startup
	// parameter. Any name of at most 63 bytes; it is quoted, so case matters.
	Schema string

	// ClientIP finds the client's address for the user's session list. Default
	// (nil): the request's RemoteAddr. Behind a proxy, read the header that your
	// proxy sets, and only that one: clients can send any other.
	ClientIP func(*http.Request) netip.Addr

	// Logger receives what has no caller to be returned to: unreadable rows, a
	// misplaced Track. Tokens, session data and DSNs are never logged.
	// Default (nil): slog.Default().
	Logger *slog.Logger
}

// withDefaults returns c with its zeros filled, or an error that names the field.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.UserLimit < 0:
		return c, fmt.Errorf("pgstore: Config.UserLimit is %d: it must not be negative (0 means no limit)", c.UserLimit)
	case c.LimitPolicy < EvictOldest || c.LimitPolicy > Reject:
		return c, fmt.Errorf("pgstore: Config.LimitPolicy is %d: use EvictOldest, EvictLeastRecent or Reject", c.LimitPolicy)
	case c.TouchAfter < 0:
		return c, fmt.Errorf("pgstore: Config.TouchAfter is %v: it must not be negative (0 means the default)", c.TouchAfter)
	case c.Timeout < 0:
		return c, fmt.Errorf("pgstore: Config.Timeout is %v: it must not be negative (0 means %v)", c.Timeout, DefaultTimeout)
	case len(c.Schema) > maxSchemaBytes:
		return c, fmt.Errorf("pgstore: Config.Schema has %d bytes: PostgreSQL names have at most %d", len(c.Schema), maxSchemaBytes)
	case strings.ContainsRune(c.Schema, 0):
		return c, errors.New("pgstore: Config.Schema contains a NUL byte")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.ClientIP == nil {
		c.ClientIP = remoteIP
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// touchAfter is how long a session with this idle window may go untouched.
func (c *Config) touchAfter(window time.Duration) time.Duration {
	if c.TouchAfter > 0 {
		return min(c.TouchAfter, window/2)
	}
	return min(window/defaultTouchShare, DefaultMaxTouchAfter)
}

// limited reports whether any user can have a limit.
func (c *Config) limited() bool { return c.UserLimit > 0 || c.UserLimitFunc != nil }

// limitOf returns the limit of one user, 0 for none.
func (c *Config) limitOf(ctx context.Context, user string) (int, error) {
	if c.UserLimitFunc == nil {
		return c.UserLimit, nil
	}
	limit, err := c.UserLimitFunc(ctx, user)
	if err != nil {
		return 0, fmt.Errorf("Config.UserLimitFunc: %w", err)
	}
	if limit < 0 {
		return 0, fmt.Errorf("Config.UserLimitFunc returned %d: a limit must not be negative (0 means no limit)", limit)
	}
	return limit, nil
}
