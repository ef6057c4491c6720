package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
)

// summary is a result as JSON. Durations are in seconds.
type summary struct {
	Rows        int64      `json:"rows"`
	Expired     int64      `json:"expired"`
	SignedOut   int64      `json:"signed_out"`
	Revoked     int64      `json:"revoked"`
	Evicted     int64      `json:"evicted"`
	Renewed     int64      `json:"renewed"`
	UserRows    int64      `json:"user_rows"`
	OrphanRows  int64      `json:"orphan_user_rows"`
	OrphanUsers int64      `json:"orphan_users"`
	Batches     int64      `json:"batches"`
	Seconds     float64    `json:"seconds"`
	Longest     float64    `json:"longest_batch_seconds"`
	Left        *int64     `json:"left,omitempty"` // absent where they were not counted
	OldestLeft  *time.Time `json:"oldest_left,omitempty"`
	OutOfBudget bool       `json:"out_of_budget"`
	DryRun      bool       `json:"dry_run,omitempty"`
	Error       string     `json:"error,omitempty"`

	Due       []cleanup.Due      `json:"due,omitempty"`
	Relations []cleanup.Relation `json:"relations,omitempty"`
}

func summarize(r cleanup.Result, err error) summary {
	s := summary{
		Rows: r.Rows(), Expired: r.Expired, SignedOut: r.SignedOut, Revoked: r.Revoked, Evicted: r.Evicted, Renewed: r.Renewed,
		UserRows: r.UserRows, OrphanRows: r.OrphanUserRows, OrphanUsers: r.OrphanUsers, Batches: r.Batches, Seconds: r.Duration.Seconds(), Longest: r.Longest.Seconds(),
		OutOfBudget: r.OutOfBudget,
	}
	if r.Counted {
		s.Left = &r.Left
	}
	if r.Counted && !r.OldestLeft.IsZero() {
		s.OldestLeft = &r.OldestLeft
	}
	if err != nil {
		s.Error = oneLine(err)
	}
	return s
}

// report says what a sweep did.
func (p *program) report(r cleanup.Result) { p.print(summarize(r, nil), r) }

// print is for a program, for a person at a terminal, or for a log.
func (p *program) print(s summary, r cleanup.Result) {
	switch {
	case p.json:
		s.DryRun = p.dryRun
		if err := json.NewEncoder(p.stdout).Encode(s); err != nil {
			fmt.Fprintln(p.stderr, "sweeper:", err)
		}
	case p.quiet:
	case p.terminal:
		fmt.Fprintf(p.stderr, "Deleted %v.\n", r)
		if r.Left > 0 {
			fmt.Fprintf(p.stderr, "%s past the grace period are left, the oldest expired %s.\n", atMost(r.Left), hour(r.OldestLeft))
		}
	default:
		p.logger().Info("swept", "result", r)
	}
}

// hour is when something expired. The library gives 1970 for all that was before.
func hour(t time.Time) string {
	if longAgo(t) {
		return "long ago"
	}
	return "about " + t.Format(time.RFC3339)
}

func longAgo(t time.Time) bool { return t.UTC().Year() <= 1970 }

func atMost(n int64) string {
	if n >= cleanup.MaxLeft {
		return fmt.Sprintf("%d or more sessions", n)
	}
	return fmt.Sprintf("%d sessions", n)
}

// inspect says what a sweep would do.
func (p *program) inspect(ctx context.Context, pool *pgxpool.Pool) int {
	var report cleanup.Report
	err := connect(ctx, pool)
	if err == nil {
		report, err = cleanup.Inspect(ctx, pool, p.Options)
	}
	switch {
	case err != nil:
		return p.fail(stopped(ctx, err))
	case p.json:
		s := summarize(report.Total, nil)
		s.Due, s.Relations = report.Due, report.Relations
		p.print(s, report.Total)
		return swept
	}
	if err := printReport(p.stdout, report); err != nil {
		return p.fail(err)
	}
	return swept
}

func printReport(out io.Writer, report cleanup.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d sessions would be deleted, %d of them signed in once.\n", report.Total.Rows(), report.Total.UserRows)
	if t := report.Total; t.OrphanUserRows+t.OrphanUsers > 0 {
		fmt.Fprintf(w, "%d rows of the user index and %d users have no session, and would go too.\n", t.OrphanUserRows, t.OrphanUsers)
	}
	if len(report.Due) > 0 {
		fmt.Fprint(w, "\nexpired on\tkind\tsessions\t\n")
	}
	for _, d := range report.Due {
		day := d.Day.UTC().Format(time.DateOnly)
		if longAgo(d.Day) {
			day = "long ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t\n", day, d.Kind, d.Rows)
	}
	fmt.Fprint(w, "\ntable or index\tMB\tlive rows\tdead rows\tdead\t\n")
	for _, r := range report.Relations {
		fmt.Fprintf(w, "%s\t%.1f\t", r.Name, float64(r.Bytes)/1e6)
		if r.Index {
			fmt.Fprint(w, "\t\t\t\n")
			continue
		}
		fmt.Fprintf(w, "%d\t%d\t%.1f%%\t\n", r.Live, r.Dead, 100*float64(r.Dead)/float64(max(1, r.Live+r.Dead)))
	}
	return w.Flush()
}
