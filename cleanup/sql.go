package cleanup

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// The statements. {due} is the one rule, with the grace period in microseconds as
// its parameter: sweep_at is the beginning of the hour of expiry, so the session
// expired before sweep_at + 1 hour. The comparison with expiry then holds by
// itself; it stands there so that no error in the arithmetic can cost a live
// session.
const (
	due = `sweep_at <= now() - interval '1 hour' - $1::float8 * interval '1 microsecond' AND expiry <= now()`

	// What a transaction of a sweep runs under, and the next transaction id: how many of
	// them others use is how busy the server is. Its deletions need not be durable: what
	// a crash brings back, the next sweep takes.
	sqlSettings = `SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
		set_config('synchronous_commit', 'off', true), pg_snapshot_xmax(pg_current_snapshot())::text::bigint`

	sqlPreflight = `SELECT to_regclass('pg_dist_partition') IS NOT NULL,
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool`
	// Whoever has locked a table for long, or lacks a privilege, is met here.
	sqlProbe       = `SELECT sweep_at FROM {sessions} LIMIT 0`
	sqlProbeUser   = `SELECT id FROM {user_sessions} LIMIT 0`
	sqlDistributed = `SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass($1))`

	// Where the rows stand that are due, oldest first. Within an hour, the index holds
	// them in the order of the heap. Read for many batches at once: the entries of rows
	// that are gone stay in the index until a vacuum, or for as long as anybody has an
	// old snapshot, and every reading passes over those of the hour it begins with.
	sqlList = `SELECT ctid::text, sweep_at FROM {sessions}
		WHERE {due} AND sweep_at >= $2::timestamptz ORDER BY sweep_at LIMIT $3`

	// The rows may have changed since: they are locked, those that somebody else has
	// locked are left alone, and the rule is checked on what is held. A row that has
	// moved is not found where it was.
	sqlDelete = `WITH held AS MATERIALIZED (
			SELECT ctid FROM {sessions} WHERE ctid = ANY($2::text::tid[]) AND {due} FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM {sessions} WHERE ctid = ANY(ARRAY(SELECT ctid FROM held)) AND {due}
			RETURNING id, user_id, end_reason
		), unindexed AS (
			DELETE FROM {user_sessions} u USING gone g WHERE u.user_id = g.user_id AND u.id = g.id RETURNING 1
		)
		SELECT ` + byReason + `, (SELECT count(*) FROM unindexed) FROM gone`

	byReason = `count(*) FILTER (WHERE end_reason IS NULL), count(*) FILTER (WHERE end_reason = 'signed_out'),
		count(*) FILTER (WHERE end_reason = 'revoked'), count(*) FILTER (WHERE end_reason = 'evicted'),
		count(*) FILTER (WHERE end_reason = 'renewed')`

	// The portable way, for distributed tables: no ctid, no FOR UPDATE, no join of
	// tables that are distributed by different columns.
	sqlListIDs = `SELECT id FROM {sessions} WHERE {due} AND sweep_at >= $2::timestamptz
		AND id <> ALL($3::uuid[]) ORDER BY sweep_at LIMIT $4`
	sqlDeleteIDs = `DELETE FROM {sessions} WHERE id = ANY($2::uuid[]) AND {due} RETURNING id, user_id, end_reason`
	sqlUnindex   = `DELETE FROM {user_sessions} WHERE user_id = ANY($1::text[]) AND (user_id, id) IN
		(SELECT g.user_id, g.id FROM unnest($1::text[], $2::uuid[]) AS g (user_id, id))`

	// What is left, and what a dry run would take.
	sqlLeft = `SELECT count(*), min(sweep_at) FROM
		(SELECT sweep_at FROM {sessions} WHERE {due} ORDER BY sweep_at LIMIT $2) AS rest`
	sqlDryRun = `SELECT ` + byReason + `, count(user_id), min(sweep_at) FROM {sessions} WHERE {due}`
	sqlByAge  = `SELECT coalesce(end_reason, 'expired'), date_trunc('day', expiry, 'UTC') AS day, count(*) FROM {sessions}
		WHERE {due} GROUP BY 1, 2 ORDER BY 2, 1`
	sqlRelations = `SELECT c.relname, c.relkind = 'i', pg_relation_size(c.oid),
			coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0)
		FROM pg_catalog.pg_class c
			LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
			LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = coalesce(i.indrelid, c.oid)
		WHERE coalesce(i.indrelid, c.oid) = ANY(ARRAY[to_regclass($1)::oid, to_regclass($2)::oid])
		ORDER BY coalesce(i.indrelid, c.oid), c.relkind = 'i', c.relname`
)

// statements are the texts above with the tables named.
type statements struct {
	sessions, userSessions string

	probe, probeUser, list, delete, listIDs, deleteIDs, unindex, left, dryRun, byAge string
}

func newStatements(schema string) statements {
	name := func(table string) string {
		if schema == "" {
			return table
		}
		return pgx.Identifier{schema, table}.Sanitize()
	}
	s := statements{sessions: name("scs_sessions"), userSessions: name("scs_user_sessions")}
	r := strings.NewReplacer("{due}", due, "{sessions}", s.sessions, "{user_sessions}", s.userSessions)
	s.probe, s.probeUser = r.Replace(sqlProbe), r.Replace(sqlProbeUser)
	s.list, s.delete = r.Replace(sqlList), r.Replace(sqlDelete)
	s.listIDs, s.deleteIDs, s.unindex = r.Replace(sqlListIDs), r.Replace(sqlDeleteIDs), r.Replace(sqlUnindex)
	s.left, s.dryRun, s.byAge = r.Replace(sqlLeft), r.Replace(sqlDryRun), r.Replace(sqlByAge)
	return s
}
