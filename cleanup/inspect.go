package cleanup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

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
	// Live and Dead are the table's rows as the statistics estimate them. The space of dead
	// ones is used again after a vacuum. For exact numbers, and the free space, see
	// pgstattuple_approx of PostgreSQL's extension pgstattuple.
	Live int64 `json:"live"`
	Dead int64 `json:"dead"`
}

// Inspect reads what a sweep with these options would delete, and how large the tables
// and indexes are: it is the dry run. It changes nothing, and works on a standby. It
// counts every session that is due, within Options.StatementTimeout, whatever the budget.
func Inspect(ctx context.Context, pool *pgxpool.Pool, o Options) (Report, error) {
	o, err := o.withDefaults(pool)
	if err != nil {
		return Report{}, err
	}
	start := time.Now()
	db := newDatabase(pool, o)
	db.readOnly = true
	if _, err := db.probe(ctx); err != nil {
		return Report{}, err
	}
	var r Report
	due, err := query[struct {
		Due
		UserRows int64
		Oldest   time.Time
	}](ctx, db, sqlDue, db.graceMicros())
	for _, d := range due {
		r.Due = append(r.Due, d.Due)
		r.Total.add(kinds{d.Kind: d.Rows}, d.UserRows)
		r.Total.OldestLeft = d.Oldest
	}
	if err == nil {
		r.Relations, err = query[Relation](ctx, db, sqlRelations, db.q("{sessions}"), db.q("{user_sessions}"))
	}
	if err != nil {
		return Report{}, explain(ctx, "inspect the tables", &o, err)
	}
	r.Total.Left, r.Total.Counted, r.Total.Duration = min(r.Total.Rows(), MaxLeft), true, time.Since(start)
	return r, nil
}
