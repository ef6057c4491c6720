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
	// DefaultTimeout is used if Config.Timeout is 0.
	DefaultTimeout = 5 * time.Second
	// DefaultMaxBatch is used if Config.MaxBatch is 0.
	DefaultMaxBatch = 64
	// defaultMaxTouchAfter caps the default of Config.TouchAfter.
	defaultMaxTouchAfter = time.Minute

	// touchesPerWindow is how many touches fit into the idle window by default.
	touchesPerWindow = 20

	maxSchemaBytes = 63 // NAMEDATALEN - 1 of PostgreSQL
)

// LimitPolicy says what happens when a sign-in finds the user at the limit.
type LimitPolicy int

const (
	// EvictOldest ends the session with the earliest sign-in. It is the default.
	EvictOldest LimitPolicy = iota
	// EvictLeastRecent ends the session with the earliest LastSeenAt.
	EvictLeastRecent
	// Reject refuses the sign-in with ErrUserLimit. Under Track a renewal is never
	// refused: if another sign-in has taken its place meanwhile, the user's newest other
	// session is ended instead.
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
	// and each renewal, before any lock or connection is taken, and again if the
	// operation is retried. Its context carries the request's values and ends with the
	// operation's Timeout. An error, or a negative limit, fails the sign-in. It must be
	// safe for concurrent use.
	UserLimitFunc func(ctx context.Context, userID string) (int, error)

	// LimitPolicy says what happens at the limit. Default: EvictOldest.
	LimitPolicy LimitPolicy

	// TouchAfter is how long an unchanged session may be used before its expiry and
	// last-seen time are written again. Larger values save writes, but a session may
	// then time out up to TouchAfter early. Values above half the idle timeout count as
	// half of it, so that a session in use cannot time out. Default (0): 5% of the
	// idle timeout, at most 1 minute. Negative values are refused. It has an effect
	// under Track only: without it every commit is written.
	TouchAfter time.Duration

	// Timeout is the deadline of one store operation, including the wait for a
	// connection and retries. It replaces the request's own cancellation, so that a
	// client that hangs up neither loses a write nor costs a connection.
	// Default (0): 5 seconds. Negative values are refused.
	Timeout time.Duration

	// MaxBatch is how many reads, touches or data writes may share a round trip: those that
	// come while others are in flight wait for the next one, which takes them all along.
	// Each still ends by its own Timeout, and by its own error. What they share carries no
	// request's context values, so a tracer of the pool sees it as nobody's. Larger values
	// cost memory more than they save; above 1024 they count as 1024. 1 turns sharing off:
	// set it on Citus, where a round trip would span shards. A pool with PrepareConn or
	// BeforeAcquire has 1 in any case, as its connections are prepared for one caller.
	// Default (0): 64. Negative values are refused.
	MaxBatch int

	// Notify announces the sessions that this Store ends, for Watch: by NOTIFY, in the
	// transaction that ends them. Set it on every node, or on none. Sign-outs, revocations and
	// sign-ins that evict then take one more round trip, and PostgreSQL commits transactions
	// that notify one after the other. With 16 clients on two cores, sign-outs came down
	// from 7,700 to 2,900 a second, and sign-ins that evict from 3,300 to 2,000; a single client
	// did 0.7 times as many. Nothing else is slower. Default (false): off.
	Notify bool

	// Schema qualifies the table names. Default (""): unqualified, the search_path
	// decides. Set it behind PgBouncer, which refuses search_path as a startup
	// parameter. Any name of at most 63 bytes; it is quoted, so case matters.
	Schema string

	// ClientIP returns the client's address for the user's session list. It is called at
	// sign-ins and renewals under Track, before any lock or connection is taken, and
	// must be safe for concurrent use. The zero netip.Addr means unknown. Behind proxies, use
	// TrustedProxies, or read the one header that your proxy sets and overwrites: clients can
	// forge every other. Default (nil): the address in the request's RemoteAddr.
	ClientIP func(*http.Request) netip.Addr

	// Seal, if not nil, encrypts the data of sessions before it is stored. The row's id and
	// its user stay readable, and are authenticated with the data; so do, without, its times.
	// Data that cannot be opened, because it was changed or its key is missing, counts as not
	// found; the row stays as it is, so that the session is back once the key is. Keys can be
	// rotated: see Reseal and package keyring. Default (nil): data is stored as Codec has it.
	Seal AEAD

	// AllowPlain lets sessions be read that were stored before Seal was set. They are sealed
	// when their data is next written, or by Reseal; then unset it, since who can write to
	// the table could put plain data there. It has no effect without Seal. Default: false.
	AllowPlain bool

	// Logger receives what cannot be returned as an error: unreadable rows, a misplaced
	// Track, signs of a mistyped UserKey, a touch that failed after the request. Tokens,
	// session data and DSNs are never logged. Default (nil): slog.Default(), as of the call
	// of New. Codec, which has no configuration, logs to slog.Default().
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
	case c.MaxBatch < 0:
		return c, fmt.Errorf("pgstore: Config.MaxBatch is %d: it must not be negative (0 means %d, and 1 turns sharing off)", c.MaxBatch, DefaultMaxBatch)
	case len(c.Schema) > maxSchemaBytes:
		return c, fmt.Errorf("pgstore: Config.Schema has %d bytes: PostgreSQL names have at most %d", len(c.Schema), maxSchemaBytes)
	case strings.ContainsRune(c.Schema, 0):
		return c, errors.New("pgstore: Config.Schema contains a NUL byte")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = DefaultMaxBatch
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
	return min(window/touchesPerWindow, defaultMaxTouchAfter)
}

// limited reports whether any user can have a limit.
func (c *Config) limited() bool { return c.UserLimit > 0 || c.UserLimitFunc != nil }

// limitError is an error of Config.UserLimitFunc.
type limitError struct{ err error }

func (e *limitError) Error() string { return "Config.UserLimitFunc: " + e.err.Error() }
func (e *limitError) Unwrap() error { return e.err }

// limitOf returns the limit of one user, 0 for none.
func (c *Config) limitOf(ctx context.Context, user string) (int, error) {
	if c.UserLimitFunc == nil {
		return c.UserLimit, nil
	}
	limit, err := c.UserLimitFunc(ctx, user)
	if err != nil {
		return 0, &limitError{err}
	}
	if limit < 0 {
		return 0, fmt.Errorf("Config.UserLimitFunc returned %d: a limit must not be negative (0 means no limit)", limit)
	}
	return limit, nil
}
