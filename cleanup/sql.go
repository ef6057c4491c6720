package cleanup

import "github.com/jackc/pgx/v5/pgtype"

// The statements, in which database.q names the tables.
const (
	// The one rule, with the grace period in microseconds as its parameter: sweep_at is the
	// beginning of the hour of expiry, so the session expired before sweep_at + 1 hour. That
	// expiry <= now() follows; it is there so that no slip in the rest can cost a live session.
	due = `sweep_at <= now() - interval '1 hour' - $1::float8 * interval '1 microsecond' AND expiry <= now()`

	// The same, to check rows that are named. IS TRUE keeps the planner from finding them by
	// sweep_at, which reads all that are due: while its statistics are of a time when few
	// had expired, that looks cheap to it.
	check = `(` + due + `) IS TRUE`

	// What a transaction of a sweep runs under, and the next transaction id, for tempo. Its
	// deletions need not be durable one by one: sqlFlush makes them so. If the sweep vanishes
	// between two statements, the server ends the transaction, and its locks. Results may be
	// text, which pgx reads in ISO style only. One process reads an index in order, whatever
	// the statistics say, unless $4 is 'true', for a count.
	sqlSettings = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, ARRAY[
		set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
		set_config('idle_in_transaction_session_timeout', $3, true), set_config('datestyle', 'ISO', true),
		set_config('synchronous_commit', 'off', true), set_config('jit', 'off', true),
		set_config('enable_seqscan', $4, true), set_config('enable_sort', $4, true), set_config('max_parallel_workers_per_gather',
			CASE $4 WHEN 'true' THEN current_setting('max_parallel_workers_per_gather') ELSE '0' END, true)]`

	// Its commit waits for the disk, and so for all commits before it.
	sqlFlush = `SELECT pg_logical_emit_message(true, 'scspg', set_config('synchronous_commit', 'on', true))::text`

	// Whether this is Citus, whether it measures tables, and whether there is no schema to work in.
	sqlPlace = `SELECT to_regclass('pg_dist_partition') IS NOT NULL, to_regprocedure('citus_table_size(regclass)') IS NOT NULL,
		current_schema() IS NULL`
	sqlDistributed = `SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass($1))`

	// Where the rows stand that are due, oldest first, after the last one of the listing
	// before. The index on sweep_at has the rows of an hour in the order of their places.
	sqlList = `SELECT ctid::text, sweep_at FROM {sessions}
		WHERE ` + due + ` AND sweep_at >= $2::timestamptz AND (sweep_at > $2::timestamptz OR ctid > $3::text::tid)
		ORDER BY sweep_at LIMIT $4`

	// The rows may have changed since: the rule is checked again, on what the deletion
	// holds. A row that has moved is not found where it was.
	sqlDelete = `WITH gone AS (
			DELETE FROM {sessions} WHERE ctid = ANY($2::text::tid[]) AND ` + check + deleted
	// Beside others who hold some of them: these are left alone. To lock first
	// takes a sixth longer.
	sqlDeleteFree = `WITH held AS MATERIALIZED (
			SELECT ctid FROM {sessions} WHERE ctid = ANY($2::text::tid[]) AND ` + check + ` FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM {sessions} WHERE ctid = ANY(ARRAY(SELECT ctid FROM held)) AND ` + check + deleted
	deleted = ` RETURNING id, user_id, end_reason
		), unindexed AS (
			DELETE FROM {user_sessions} u USING gone g WHERE u.user_id = g.user_id AND u.id = g.id RETURNING 1
		)
		SELECT ` + kind + `, count(*), (SELECT count(*) FROM unindexed) FROM gone GROUP BY 1`

	// What a session counts as. 'timed_out' is that of one which a sign-in or a revocation
	// met past its expiry: it counts as if nobody had.
	kind = `CASE WHEN end_reason IN ('signed_out', 'revoked', 'evicted', 'renewed') THEN end_reason ELSE 'expired' END`

	// The portable way, for distributed tables: no ctid, no FOR UPDATE, no join of
	// tables that are distributed by different columns.
	sqlListIDs = `SELECT id, sweep_at FROM {sessions} WHERE ` + due + ` AND sweep_at >= $2::timestamptz
		AND id <> ALL($4::uuid[]) ORDER BY sweep_at LIMIT $3`
	sqlDeleteIDs = `DELETE FROM {sessions} WHERE id = ANY($2::uuid[]) AND ` + check + ` RETURNING coalesce(user_id, ''), id, ` + kind
	sqlUnindex   = `DELETE FROM {user_sessions} WHERE user_id = ANY(@users::text[]) AND (user_id, id) IN
		(SELECT g.user_id, g.id FROM unnest(@users::text[], @ids::uuid[]) AS g (user_id, id))`

	// Orphans, as portable: the next rows of a table, which of them are none, and the deletion.
	// The session of a young row may not be visible yet.
	sqlPageIndex   = `SELECT user_id, id FROM {user_sessions} WHERE (user_id, id) > (@user::text, @id::uuid) ORDER BY user_id, id LIMIT @n`
	sqlKeptIndex   = `SELECT ''::text, id FROM {sessions} WHERE id = ANY(@ids::uuid[])`
	sqlDeleteIndex = sqlUnindex + ` AND created_at < now() - interval '1 minute'`
	sqlPageUsers   = `SELECT user_id, NULL::uuid FROM {users} WHERE user_id > @user::text AND ` + lapsed + ` ORDER BY user_id LIMIT @n`
	sqlKeptUsers   = `SELECT DISTINCT user_id, NULL::uuid FROM {user_sessions} WHERE user_id = ANY(@users::text[])`
	sqlDeleteUsers = `DELETE FROM {users} WHERE user_id = ANY(@users::text[]) AND ` + lapsed
	lapsed         = `fence < now() - interval '1 day'`

	// What is left, and what Inspect finds. Not every time of PostgreSQL's is one of Go's
	// or of JSON's: what is before 1970, as -infinity is, counts as 1970.
	sqlLeft = `SELECT count(*), min(greatest(sweep_at, ` + epoch + `)) FROM
		(SELECT sweep_at FROM {sessions} WHERE ` + due + ` ORDER BY sweep_at LIMIT $2) AS rest`
	sqlDue = `SELECT ` + kind + `, date_trunc('day', greatest(expiry, ` + epoch + `), 'UTC') AS day,
			count(*), count(user_id), min(min(greatest(sweep_at, ` + epoch + `))) OVER ()
		FROM {sessions} WHERE ` + due + ` GROUP BY 1, 2 ORDER BY 2, 1`
	epoch = `timestamptz '1970-01-01 00:00:00+00'`

	// The tables and their indexes. A standby does not count rows: there, the live ones
	// are those of the last ANALYZE.
	sqlRelations = `SELECT c.relname, i.indexrelid IS NOT NULL AS is_index, pg_relation_size(c.oid),
			CASE WHEN pg_is_in_recovery() THEN greatest(t.reltuples, 0) ELSE coalesce(s.n_live_tup, 0) END::bigint,
			coalesce(s.n_dead_tup, 0)
		FROM pg_catalog.pg_class c
			LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
			JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
			LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = t.oid
		WHERE t.oid = ANY(ARRAY[to_regclass($1)::oid, to_regclass($2)::oid])
		ORDER BY t.oid, is_index, c.relname`
	// The same on Citus, whose coordinator has neither the rows nor statistics of them, and which
	// measures the indexes of a table together.
	sqlCitusRelations = `SELECT CASE WHEN is_index THEN 'indexes of ' ELSE '' END || c.relname, is_index,
			CASE WHEN is_index THEN citus_total_relation_size(c.oid::regclass) - citus_table_size(c.oid::regclass)
				ELSE citus_table_size(c.oid::regclass) END, 0::bigint, 0::bigint
		FROM pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
			CROSS JOIN (VALUES (false), (true)) AS kinds (is_index)
		WHERE c.oid = ANY(ARRAY[to_regclass($1)::oid, to_regclass($2)::oid])
		ORDER BY c.relname, is_index`
)

// probes are columns and tables that are to find out, before any work, whether somebody else
// has locked a table, a privilege is missing, or the server is read-only. The DELETEs take
// the lock mode of the real ones: a table under CREATE INDEX, for one, can still be read.
var probes = [...][2]string{{"sweep_at", "{sessions}"}, {"id", "{user_sessions}"}, {"fence", "{users}"}} // the last for orphans only

var longAgo = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true} // before all that can be due
