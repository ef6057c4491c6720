package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Faults are what keeps the statements of this package from working. The zero value is none.
type Faults struct {
	Standby  bool // the server is in recovery
	ReadOnly bool // transactions are, as those of a standby
	NoSchema bool // the schema is not there, or none of the search_path
	// Missing are tables, and columns of tables that are there.
	Missing []string
	// Grants are the statements that give the role what it lacks on those that are there.
	Grants []string
}

// Check reads from the catalog, in one round trip, whether the tables are there with all
// columns and whether the role may do with them what this package does.
func (d *DB) Check(ctx context.Context) (f Faults, err error) {
	err = d.queryRow(ctx, d.pool, func(r pgx.Row) error {
		return r.Scan(&f.Standby, &f.ReadOnly, &f.NoSchema, &f.Missing, &f.Grants)
	}, sqlCheck, d.schema)
	return f, err
}
