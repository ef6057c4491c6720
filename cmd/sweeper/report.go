package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/schollz/progressbar/v3"

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
	Batches     int64      `json:"batches"`
	Seconds     float64    `json:"seconds"`
	Longest     float64    `json:"longest_batch_seconds"`
	Left        int64      `json:"left"`
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
		UserRows: r.UserRows, Batches: r.Batches, Seconds: r.Duration.Seconds(), Longest: r.Longest.Seconds(),
		Left: r.Left, OutOfBudget: r.OutOfBudget,
	}
	if !r.OldestLeft.IsZero() {
		s.OldestLeft = &r.OldestLeft
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

// report says what a sweep did: as JSON, to a person at a terminal, or as a log line.
func (p *program) report(r cleanup.Result, err error) {
	switch {
	case p.json:
		p.printJSON(summarize(r, err))
	case p.quiet, err != nil && r.Rows() == 0:
	case p.terminal:
		fmt.Fprintf(p.stderr, "Deleted %v.\n", r)
		if r.Left > 0 {
			fmt.Fprintf(p.stderr, "%s past the grace period are left, the oldest expired about %s.\n",
				atMost(r.Left), r.OldestLeft.Format(time.RFC3339))
		}
	default:
		p.logger().Info("swept", "result", r)
	}
}

func (p *program) printJSON(s summary) {
	if err := json.NewEncoder(p.stdout).Encode(s); err != nil {
		fmt.Fprintln(p.stderr, "sweeper:", err)
	}
}

func atMost(n int64) string {
	if n >= cleanup.MaxLeft {
		return fmt.Sprintf("%d or more sessions", n)
	}
	return fmt.Sprintf("%d sessions", n)
}

func (p *program) dryRun(ctx context.Context, pool *pgxpool.Pool) int {
	result, err := cleanup.Sweep(ctx, pool, p.Options)
	if err != nil {
		return p.fail(err)
	}
	report, err := cleanup.Inspect(ctx, pool, p.Options)
	if err != nil {
		return p.fail(err)
	}
	if p.json {
		s := summarize(result, nil)
		s.DryRun, s.Due, s.Relations = true, report.Due, report.Relations
		p.printJSON(s)
		return swept
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d sessions would be deleted, %d of them signed in once.\n", result.Rows(), result.UserRows)
	if len(report.Due) > 0 {
		fmt.Fprint(w, "\nexpired on\tkind\tsessions\t\n")
		for _, d := range report.Due {
			fmt.Fprintf(w, "%s\t%s\t%d\t\n", d.Day.UTC().Format(time.DateOnly), d.Kind, d.Rows)
		}
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
	if err := w.Flush(); err != nil {
		return p.fail(err)
	}
	return swept
}

// bar shows progress on a terminal.
type bar struct{ *progressbar.ProgressBar }

// newBar asks how much there is to do. Without a terminal, or an answer, there is
// no bar.
func (p *program) newBar(ctx context.Context, pool *pgxpool.Pool) bar {
	if !p.terminal || p.quiet || p.json {
		return bar{}
	}
	o := p.Options
	o.DryRun = true
	due, err := cleanup.Sweep(ctx, pool, o)
	if err != nil || due.Rows() == 0 {
		return bar{}
	}
	total := due.Rows()
	if o.MaxRows > 0 {
		total = min(total, o.MaxRows)
	}
	return bar{progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.stderr), progressbar.OptionSetDescription("sweeping"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("sessions"),
		progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (b bar) show(r cleanup.Result) {
	if b.ProgressBar != nil {
		_ = b.Set64(min(r.Rows(), b.GetMax64()))
	}
}

func (b bar) done() {
	if b.ProgressBar != nil {
		_ = b.Clear()
	}
}
