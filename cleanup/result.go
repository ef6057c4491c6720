package cleanup

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Result is what a sweep has done. If an error is returned with it, it is valid as far as
// the sweep got. If a connection broke before the answer to a batch came, that batch is gone or
// not, and does not count. If the server crashed, the last batches before that, which count,
// may have come back: the sweep deletes and counts them once more, or ends with an error.
type Result struct {
	// Deleted sessions: those that timed out, and tombstones by why they ended. One that a
	// sign-in or a revocation met past its expiry counts as Expired.
	Expired, SignedOut, Revoked, Evicted, Renewed int64

	UserRows                    int64 // rows of the user index that went with them
	OrphanUserRows, OrphanUsers int64 // rows of the user index, and users, that had no session: see Options.Orphans

	Batches  int64
	Duration time.Duration
	Longest  time.Duration // of the transactions that deleted, as seen from here

	// Left counts the sessions past their grace period that are still there, up to
	// MaxLeft: beyond the budget, locked by somebody each time that the sweep came to them, or
	// due since it began.
	Left int64
	// OldestLeft is the hour in which the oldest of them expired, but 1970 for those before;
	// zero if there is none.
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
	orphans := ""
	if r.OrphanUserRows+r.OrphanUsers > 0 {
		orphans = fmt.Sprintf(", %d user rows and %d users without a session", r.OrphanUserRows, r.OrphanUsers)
	}
	return fmt.Sprintf("%d sessions (%d expired, %d signed out, %d revoked, %d evicted, %d renewed) and %d user rows%s in %d batches and %v",
		r.Rows(), r.Expired, r.SignedOut, r.Revoked, r.Evicted, r.Renewed, r.UserRows, orphans, r.Batches, r.Duration.Round(time.Millisecond))
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
		slog.Int64("user_rows", r.UserRows), slog.Int64("orphan_user_rows", r.OrphanUserRows),
		slog.Int64("orphan_users", r.OrphanUsers), slog.Int64("batches", r.Batches),
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

// Report is what a sweep would find.
type Report struct {
	// Total is what a sweep without a budget would delete, and, as Left and OldestLeft,
	// what is there now.
	Total Result
	// Due are the sessions past their grace period, by day of expiry and kind.
	Due []Due
	// Relations are the tables and their indexes.
	Relations []Relation
}

// Due counts sessions of one kind that expired on one day.
type Due struct {
	Kind string    `json:"kind"` // "expired", or why the session had ended
	Day  time.Time `json:"day"`  // in UTC; what expired before 1970 counts as 1970
	Rows int64     `json:"rows"`
}

// Relation is a table or an index.
type Relation struct {
	Name  string `json:"name"`
	Index bool   `json:"index"`
	Bytes int64  `json:"bytes"`
	// Live and Dead are the table's rows as the statistics estimate them.
	Live int64 `json:"live"`
	Dead int64 `json:"dead"`
}

// Inspect reads what a sweep with these options would delete, and how large the tables
// and indexes are: it is the dry run. It changes nothing, and works on a standby. It
// counts every session that is due, within Options.StatementTimeout, whatever the budget,
// but of the users without a session only those who are not in the index now.
func Inspect(ctx context.Context, pool *pgxpool.Pool, o Options) (Report, error) {
	o, err := o.withDefaults(pool)
	if err != nil {
		return Report{}, err
	}
	o.MaxRows, o.MaxDuration, o.Stop, o.Pause = 0, 0, nil, time.Nanosecond
	s := newSweep(pool, o)
	s.readOnly = true
	if err := s.probe(ctx); err != nil {
		return Report{}, err
	}
	var r Report
	due, err := query[struct {
		Due
		UserRows int64
		Oldest   time.Time
	}](ctx, s, sqlDue, s.graceMicros())
	for _, d := range due {
		r.Due = append(r.Due, d.Due)
		s.result.add(kinds{d.Kind: d.Rows}, d.UserRows)
		s.result.OldestLeft = d.Oldest
	}
	relations := sqlRelations
	if s.distributed && s.sized {
		relations = sqlCitusRelations
	}
	if err == nil {
		r.Relations, err = query[Relation](ctx, s, relations, s.q("{sessions}"), s.q("{user_sessions}"))
	}
	if err == nil && o.Orphans {
		err = s.sweepOrphans(ctx)
	}
	s.result.Left, s.result.Counted, s.result.Duration = min(s.result.Rows(), MaxLeft), true, time.Since(s.started)
	r.Total = s.result
	return r, explain(ctx, "inspect the tables", &o, err)
}
