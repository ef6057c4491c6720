package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/scspg/scspg/internal/pgfault"
)

// sqlMissing finds out what a role lacks: where it works ($1, else the first schema of the
// search_path that exists, as current_schema() passes over those that it may not use), and
// what to grant. $2 and $3 are the privileges that it needs on the schema, if that exists,
// and on the version table, if that does; who changes tables must own them.
const sqlMissing = `WITH named AS (
		SELECT n.oid, n.nspname FROM regexp_split_to_table(current_setting('search_path'), '\s*,\s*') WITH ORDINALITY AS s (name, place)
			JOIN pg_catalog.pg_namespace n ON n.nspname = CASE WHEN s.name = '"$user"' THEN current_user ELSE replace(trim('"' FROM s.name), '""', '"') END
		WHERE $1::text IS NULL ORDER BY s.place LIMIT 1
	), place AS (
		SELECT oid, nspname FROM named UNION ALL SELECT oid, nspname FROM pg_catalog.pg_namespace WHERE nspname = $1
	), missing AS (
		SELECT 1 AS line, format('CREATE ON DATABASE %I', current_database()) AS what
			WHERE $1 IS NOT NULL AND NOT EXISTS (SELECT FROM place) AND NOT has_database_privilege(current_database(), 'CREATE')
		UNION ALL SELECT 2, format('%s ON SCHEMA %I', string_agg(p, ', '), nspname)
			FROM place, unnest($2::text[]) p WHERE NOT has_schema_privilege(oid, p) GROUP BY nspname
		UNION ALL SELECT 3, format('%s ON %I.%I', string_agg(p, ', '), nspname, relname)
			FROM place JOIN pg_catalog.pg_class c ON relnamespace = place.oid, unnest($3::text[]) p
			WHERE relname = $4 AND NOT has_table_privilege(c.oid, p) GROUP BY nspname, relname
		UNION ALL SELECT 4, format('ownership of %I.%I', nspname, relname)
			FROM place JOIN pg_catalog.pg_class c ON relnamespace = place.oid
			WHERE cardinality($3::text[]) > 1 AND relname IN ('scs_sessions', 'scs_user_sessions', 'scs_users') AND NOT pg_has_role(relowner, 'USAGE')
	)
	SELECT current_user::text, coalesce(string_agg(what, '; ' ORDER BY line, what), '') FROM missing`

// needs are the privileges on schema and version table that an operation takes.
var needs = map[string][2][]string{
	"up":      {{"USAGE", "CREATE"}, {"SELECT", "INSERT"}},
	"down":    {{"USAGE"}, {"SELECT", "INSERT", "DELETE"}},
	"version": {{"USAGE"}, {"SELECT"}},
	"status":  {{"USAGE"}, {"SELECT"}},
}

// missing says all that the role lacks, so that it need not be granted one by one, or "".
func (m *migrator) missing(ctx context.Context, op string) string {
	var role, what string
	err := m.pool.QueryRow(ctx, sqlMissing, m.schemaArg(), needs[op][0], needs[op][1], VersionTable).Scan(&role, &what)
	if err != nil || what == "" {
		return ""
	}
	text := fmt.Sprintf("the role %s lacks %s: grant it all of that, or migrate as the owner of the tables", role, what)
	if op == "up" {
		text += " (if nothing is to migrate, USAGE on the schema and SELECT on " + VersionTable + " will do)"
	}
	return text
}

// explain says which operation failed, and what to do if that is known.
func (m *migrator) explain(ctx context.Context, op string, err error) error {
	if err == nil || errors.Is(err, ErrNoneApplied) {
		return err
	}
	advice := ""
	switch code := pgfault.Code(err); {
	case code == pgfault.InsufficientPrivilege || errors.Is(err, pgfault.ErrNoSchema):
		advice = m.missing(ctx, op)
	case code == pgfault.UndefinedTable, code == pgfault.UndefinedColumn: // to migrate is not the way out of a migration that fails
	default:
		advice = pgfault.Advice(err)
	}
	if advice != "" {
		advice += ": "
	}
	return fmt.Errorf("migrations: %s: %s%w", op, advice, err)
}
