package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Shape describes every table, index and constraint of a schema.
func Shape(t testing.TB, pool *pgxpool.Pool, schema string) string {
	t.Helper()
	text := Query[*string](t, pool, `SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT c.relname || ' ' || c.relkind::text || ' ' || coalesce(c.reloptions::text, '') AS line
			FROM pg_class c WHERE c.relnamespace = $1::text::regnamespace
		UNION ALL SELECT format('%s.%s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
				a.attgenerated, co.collname, pg_get_expr(d.adbin, d.adrelid))
			FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation co ON co.oid = a.attcollation
			LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r' AND a.attnum > 0
		UNION ALL SELECT replace(pg_get_indexdef(i.indexrelid), quote_ident($2) || '.', '')
			FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = $1::text::regnamespace
		UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = $1::text::regnamespace
	) lines`, pgx.Identifier{schema}.Sanitize(), schema)
	if text == nil {
		return ""
	}
	return *text
}
