package cleanup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Report is what a sweep would find.
type Report struct {
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
	// Live and Dead are the table's rows as the statistics estimate them. Dead ones
	// take up space until a vacuum, and their space is then used again.
	Live int64 `json:"live"`
	Dead int64 `json:"dead"`
	// Bloat estimates from the statistics how many of Bytes the live rows do not need:
	// some of it is normal, as pages are not full. It is nil where there are no
	// statistics, or where the role may not read the columns that they are of.
	Bloat *int64 `json:"bloat_bytes,omitempty"`
}

// Inspect reads what a sweep with these options would delete, how large the tables and
// indexes are, and about how much of that is bloat. It changes nothing, and works on a
// standby. It counts every session that is due, within Options.StatementTimeout.
func Inspect(ctx context.Context, pool *pgxpool.Pool, o Options) (Report, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Report{}, err
	}
	o.DryRun = true
	s := &sweep{Options: o, sql: newStatements(o.Schema), pool: pool}
	if err := s.preflight(ctx); err != nil {
		return Report{}, err
	}
	var r Report
	b := s.begin()
	b.Queue(s.sql.byAge, s.graceMicros()).Query(func(rows pgx.Rows) (err error) {
		r.Due, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Due])
		return err
	})
	b.Queue(sqlRelations, s.sql.sessions, s.sql.userSessions).Query(func(rows pgx.Rows) (err error) {
		r.Relations, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Relation])
		return err
	})
	if err := s.send(ctx, b); err != nil {
		return Report{}, explain(ctx, "inspect the tables", &o, err)
	}
	return r, nil
}
