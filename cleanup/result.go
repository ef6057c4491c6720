package cleanup

import (
	"log/slog"
	"time"
)

// Result is what a sweep has done. It is valid, as far as the sweep got, also where
// an error is returned with it.
type Result struct {
	// Deleted sessions: those that timed out, and tombstones by why they ended.
	Expired, SignedOut, Revoked, Evicted, Renewed int64
	// UserRows are the rows of the user index that went with them.
	UserRows int64

	Batches  int64
	Duration time.Duration
	// Longest is the longest transaction that deleted, as seen from here.
	Longest time.Duration

	// Left counts the sessions past their grace period that are still there, up to
	// MaxLeft: beyond the budget, locked by somebody, or due since the sweep began.
	Left int64
	// OldestLeft is the hour in which the oldest of them expired; zero if there is none.
	// Hours before 1970 are given as 1970.
	OldestLeft time.Time
	// Counted says that the sweep got as far as counting them: without it, Left and
	// OldestLeft say nothing.
	Counted bool
	// OutOfBudget says that MaxRows, MaxDuration or Stop ended the sweep, which may be
	// just when nothing was left.
	OutOfBudget bool
}

// MaxLeft is how far Result.Left counts: this many, or more, are left.
const MaxLeft = 100_000

// Rows is the number of sessions deleted.
func (r Result) Rows() int64 { return r.Expired + r.SignedOut + r.Revoked + r.Evicted + r.Renewed }

// add takes the counts of a batch.
func (r *Result) add(b Result) {
	r.Expired += b.Expired
	r.SignedOut += b.SignedOut
	r.Revoked += b.Revoked
	r.Evicted += b.Evicted
	r.Renewed += b.Renewed
	r.UserRows += b.UserRows
}

// LogValue makes a Result a group of attributes.
func (r Result) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.Int64("rows", r.Rows()), slog.Int64("expired", r.Expired), slog.Int64("signed_out", r.SignedOut),
		slog.Int64("revoked", r.Revoked), slog.Int64("evicted", r.Evicted), slog.Int64("renewed", r.Renewed),
		slog.Int64("user_rows", r.UserRows), slog.Int64("batches", r.Batches),
		slog.Duration("duration", r.Duration), slog.Duration("longest", r.Longest),
	}
	if r.Counted {
		attrs = append(attrs, slog.Int64("left", r.Left))
	}
	if r.Counted && !r.OldestLeft.IsZero() {
		attrs = append(attrs, slog.Time("oldest_left", r.OldestLeft))
	}
	if r.OutOfBudget {
		attrs = append(attrs, slog.Bool("out_of_budget", true))
	}
	return slog.GroupValue(attrs...)
}
