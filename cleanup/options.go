package cleanup

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// What Options are if they are 0.
	DefaultBatch            = 1000 // ten milliseconds' work or so: nobody waits for it, and round trips do not matter
	DefaultGrace            = 24 * time.Hour
	DefaultStatementTimeout = 30 * time.Second
	DefaultLockTimeout      = 5 * time.Second

	// What Options are at most.
	MaxBatch       = 100_000
	MaxTimeout     = math.MaxInt32 * time.Millisecond // PostgreSQL's own limit
	maxSchemaBytes = 63                               // PostgreSQL's NAMEDATALEN - 1
)

// Options configures a sweep. The zero value is usable. Negative values are refused
// with an error that names the field.
type Options struct {
	// Batch bounds the rows that a transaction deletes, up to MaxBatch. Default (0):
	// DefaultBatch.
	Batch int

	// Pause is how long the sweep waits between two batches. Default (0): automatic. While
	// nobody else writes to the server there is no pause; otherwise a batch has at most
	// 80 sessions, and the pause is four times as long as the batch took. For full speed
	// regardless of traffic, use time.Nanosecond.
	Pause time.Duration

	// Grace is how long the row of a session is kept after its expiry, rounded up to the
	// full hour; an ended session is kept until what would have been its expiry, and then
	// as long. Until then an app can tell why the session ended, and a request in flight
	// cannot revive it. Default (0): DefaultGrace. For none, use time.Nanosecond.
	Grace time.Duration

	// MaxDuration ends the sweep after the batch that exceeds it, and cuts a pause
	// short. Default (0): none.
	MaxDuration time.Duration

	// MaxRows bounds how many sessions and orphans go. Default (0): any number.
	MaxRows int64

	// Orphans makes the sweep delete, after the sessions, rows of the user index whose
	// session is gone, as TRUNCATE and DELETE by hand leave them, once they are older than a
	// minute, and users without a session whose fence is older than a day. It reads both
	// tables from end to end, in pages of Batch rows with Pause in between, and begins at the
	// first user each time: once a week will do, without a tight MaxDuration.
	Orphans bool

	// Stop, once closed, ends the sweep after the batch under way, with a nil error and
	// Result.OutOfBudget. (The end of ctx rolls that batch back.) Pass for instance the
	// Done channel of a signal.NotifyContext. Default (nil): never.
	Stop <-chan struct{}

	// StatementTimeout is PostgreSQL's statement_timeout for each statement, in whole
	// milliseconds, up to MaxTimeout. Default (0): DefaultStatementTimeout.
	StatementTimeout time.Duration

	// LockTimeout is PostgreSQL's lock_timeout, in whole milliseconds, up to MaxTimeout.
	// It is the wait for a whole table. For sessions that are locked it is a hundredth, and they
	// are skipped then. A locked row of the user index, and on Citus any, cannot be skipped: the
	// first batches that meet one wait as long as for a table, and are left. The sweep comes
	// back to what it has left, twice at most. Default (0): DefaultLockTimeout.
	LockTimeout time.Duration

	// Schema qualifies the table names. Default (""): the search_path decides.
	Schema string

	// Progress, if not nil, is called after each batch with the result so far, from
	// the goroutine that called Sweep.
	Progress func(Result)

	// Logger is where Every reports its sweeps. Default (nil): slog.Default().
	Logger *slog.Logger
}

// withDefaults fills o's zeros, or returns an error that names what is wrong.
func (o Options) withDefaults(pool *pgxpool.Pool) (Options, error) {
	for _, f := range []struct {
		name       string
		value, max time.Duration
	}{
		{"Pause", o.Pause, math.MaxInt64}, {"Grace", o.Grace, math.MaxInt64}, {"MaxDuration", o.MaxDuration, math.MaxInt64},
		{"StatementTimeout", o.StatementTimeout, MaxTimeout}, {"LockTimeout", o.LockTimeout, MaxTimeout},
	} {
		if f.value < 0 {
			return o, fmt.Errorf("cleanup: Options.%s is %v: it must not be negative", f.name, f.value)
		}
		if f.value > f.max {
			return o, fmt.Errorf("cleanup: Options.%s is %v: PostgreSQL allows at most %v", f.name, f.value, f.max)
		}
	}
	switch {
	case o.Batch < 0 || o.Batch > MaxBatch:
		return o, fmt.Errorf("cleanup: Options.Batch is %d: use 1 to %d (0 means %d)", o.Batch, MaxBatch, DefaultBatch)
	case o.MaxRows < 0:
		return o, fmt.Errorf("cleanup: Options.MaxRows is %d: it must not be negative (0 means no limit)", o.MaxRows)
	case len(o.Schema) > maxSchemaBytes:
		return o, fmt.Errorf("cleanup: Options.Schema has %d bytes: PostgreSQL names have at most %d", len(o.Schema), maxSchemaBytes)
	case strings.ContainsRune(o.Schema, 0):
		return o, errors.New("cleanup: Options.Schema contains a NUL byte")
	case pool == nil:
		return o, errors.New("cleanup: the pool is nil")
	}
	o.Batch = cmp.Or(o.Batch, DefaultBatch)
	o.Grace = cmp.Or(o.Grace, DefaultGrace)
	o.StatementTimeout = cmp.Or(o.StatementTimeout, DefaultStatementTimeout)
	o.LockTimeout = cmp.Or(o.LockTimeout, DefaultLockTimeout)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o, nil
}
