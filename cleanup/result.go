package cleanup

import (
	"fmt"
	"log/slog"
	"time"
)

// Result is what a sweep has done. If an error is returned with it, it is valid as far as
// the sweep got.
type Result struct {
	// Deleted sessions: those that timed out, and tombstones by why they ended. One that a
	// sign-in or a revocation met past its expiry counts as Expired.
	Expired, SignedOut, Revoked, Evicted, Renewed int64

	UserRows int64 // rows of the user index that went with them
	Batches  int64
	Duration time.Duration
	Longest  time.Duration // of the transactions that deleted, as seen from here

	// Left counts the sessions past their grace period that are still there, up to
	// MaxLeft: beyond the budget, locked by somebody, or due since the sweep began.
	Left int64
	// OldestLeft is the hour in which the oldest of them expired; zero if there is none.
	// Hours before 1970 are given as 1970.
	OldestLeft time.Time
	// Counted says that the sweep got as far as counting them: else, Left and OldestLeft
	// say nothing.
	Counted bool
	// OutOfBudget says that MaxRows, MaxDuration or Stop ended the sweep, which may be
	// just when nothing was left.
	OutOfBudget bool
}

// MaxLeft is how far Result.Left counts: this many, or more, are left.
const MaxLeft = 100_000

// Rows is the number of sessions deleted.
func (r Result) Rows() int64 { return r.Expired + r.SignedOut + r.Revoked + r.Evicted + r.Renewed }

// String is for people: what went, in a line.
func (r Result) String() string {
	return fmt.Sprintf("%d sessions (%d expired, %d signed out, %d revoked, %d evicted, %d renewed) and %d user rows in %d batches and %v",
		r.Rows(), r.Expired, r.SignedOut, r.Revoked, r.Evicted, r.Renewed, r.UserRows, r.Batches, r.Duration.Round(time.Millisecond))
}

// kinds counts sessions by their kind.
type kinds map[string]int64

// add takes the counts of a batch.
func (r *Result) add(n kinds, userRows int64) {
	r.Expired += n["expired"]
	r.SignedOut += n["signed_out"]
	r.Revoked += n["revoked"]
	r.Evicted += n["evicted"]
	r.Renewed += n["renewed"]
	r.UserRows += userRows
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
