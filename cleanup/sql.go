package cleanup

import (
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// The statements. {due} is the one rule, with the grace period in microseconds as
// its parameter: sweep_at is the beginning of the hour of expiry, so the session
// expired before sweep_at + 1 hour. The comparison with expiry then holds by
// itself; it stands there so that no error in the arithmetic can cost a live
// session.
const (
	due = `sweep_at <= now() - interval '1 hour' - $1::float8 * interval '1 microsecond' AND expiry <= now()`

	// The same, where rows are named and the rule is only checked. IS TRUE keeps the
	// planner from finding them by sweep_at instead, which looks cheap to it as long as
	// its statistics are of a time when few had expired, and reads all that are due.
	check = `(` + due + `) IS TRUE`

	// What a transaction of a sweep runs under, and the next transaction id: how many of
	// them others use is how busy the server is. Its deletions need not be durable: what
	// a crash brings back, the next sweep takes. Deletions read no table from end to end,
	// whatever the statistics say, and nothing is worth compiling.
	sqlSettings = `SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
		set_config('enable_seqscan', $3, true), set_config('jit', 'off', true),
		set_config('synchronous_commit', 'off', true), pg_snapshot_xmax(pg_current_snapshot())::text::bigint`

	sqlCitus = `SELECT to_regclass('pg_dist_partition') IS NOT NULL`
	// These find out, before any work, whether a table is locked by somebody else, a
	// privilege is missing, or the server is read-only. The DELETEs take the lock mode
	// that the real ones take: a table under CREATE INDEX, for one, can still be read.
	sqlProbe           = `SELECT sweep_at FROM {sessions} LIMIT 0`
	sqlProbeUser       = `SELECT id FROM {user_sessions} LIMIT 0`
	sqlProbeDelete     = `DELETE FROM {sessions} WHERE false`
	sqlProbeDeleteUser = `DELETE FROM {user_sessions} WHERE false`
	sqlDistributed     = `SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass($1))`

	// For a transaction that lists: the index on sweep_at is read, by one process, so
	// that the rows of an hour come in the order of their places, as the index has them.
	sqlByIndex = `SELECT set_config('enable_sort', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)`

	// Where the rows stand that are due, oldest first, after the last one of the listing
	// before. Read for many batches at once: the entries of rows that are gone stay in
	// the index until a vacuum, or for as long as anybody has an old snapshot, and every
	// reading passes over those of the hour it begins with.
	sqlList = `SELECT ctid::text, sweep_at FROM {sessions}
		WHERE {due} AND sweep_at >= $2::timestamptz AND (sweep_at > $2::timestamptz OR ctid > $3::text::tid)
		ORDER BY sweep_at LIMIT $4`

	// The rows may have changed since: the rule is checked again, on what the deletion
	// holds. A row that has moved is not found where it was.
	sqlDelete = `WITH gone AS (
			DELETE FROM {sessions} WHERE ctid = ANY($2::text::tid[]) AND {check}
			RETURNING id, user_id, end_reason
		), ` + sqlDeleted
	// Beside others who hold some of them: these are left alone. To lock first
	// takes a sixth longer.
	sqlDeleteFree = `WITH held AS MATERIALIZED (
			SELECT ctid FROM {sessions} WHERE ctid = ANY($2::text::tid[]) AND {check} FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM {sessions} WHERE ctid = ANY(ARRAY(SELECT ctid FROM held)) AND {check}
			RETURNING id, user_id, end_reason
		), ` + sqlDeleted
	sqlDeleted = `unindexed AS (
			DELETE FROM {user_sessions} u USING gone g WHERE u.user_id = g.user_id AND u.id = g.id RETURNING 1
		)
		SELECT ` + byReason + `, (SELECT count(*) FROM unindexed) FROM gone`

	byReason = `count(*) FILTER (WHERE end_reason IS NULL), count(*) FILTER (WHERE end_reason = 'signed_out'),
		count(*) FILTER (WHERE end_reason = 'revoked'), count(*) FILTER (WHERE end_reason = 'evicted'),
		count(*) FILTER (WHERE end_reason = 'renewed')`

	// The portable way, for distributed tables: no ctid, no FOR UPDATE, no join of
	// tables that are distributed by different columns.
	sqlListIDs = `SELECT id, sweep_at FROM {sessions} WHERE {due} AND sweep_at >= $2::timestamptz
		ORDER BY sweep_at LIMIT $3 OFFSET $4`
	sqlDeleteIDs = `DELETE FROM {sessions} WHERE id = ANY($2::uuid[]) AND {check} RETURNING id, user_id, end_reason`
	sqlUnindex   = `DELETE FROM {user_sessions} WHERE user_id = ANY($1::text[]) AND (user_id, id) IN
		(SELECT g.user_id, g.id FROM unnest($1::text[], $2::uuid[]) AS g (user_id, id))`

	// What is left, and what a dry run would take. Not every time of PostgreSQL's is one
	// of Go's or of JSON's: what is before 1970, as -infinity is, counts as 1970.
	sqlLeft = `SELECT count(*), min(greatest(sweep_at, ` + epoch + `)) FROM
		(SELECT sweep_at FROM {sessions} WHERE {due} ORDER BY sweep_at LIMIT $2) AS rest`
	sqlDryRun = `SELECT ` + byReason + `, count(user_id), min(greatest(sweep_at, ` + epoch + `)) FROM {sessions} WHERE {due}`
	sqlByAge  = `SELECT coalesce(end_reason, 'expired'), date_trunc('day', greatest(expiry, ` + epoch + `), 'UTC') AS day, count(*)
		FROM {sessions} WHERE {due} GROUP BY 1, 2 ORDER BY 2, 1`
	epoch = `timestamptz '1970-01-01 00:00:00+00'`
)

// longAgo is before everything that can be due.
var longAgo = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}

// sameTime compares two times of PostgreSQL's.
func sameTime(a, b pgtype.Timestamptz) bool {
	return a.InfinityModifier == b.InfinityModifier && a.Time.Equal(b.Time)
}

// statements are the texts above with the tables named.
type statements struct {
	sessions, userSessions string

	probes, deleteProbes [2]string

	list, delete, deleteFree, listIDs, deleteIDs, unindex, left, dryRun, byAge string
}

func newStatements(schema string) statements {
	name := func(table string) string {
		if schema == "" {
			return table
		}
		return pgx.Identifier{schema, table}.Sanitize()
	}
	s := statements{sessions: name("scs_sessions"), userSessions: name("scs_user_sessions")}
	r := strings.NewReplacer("{due}", due, "{check}", check, "{sessions}", s.sessions, "{user_sessions}", s.userSessions)
	s.probes = [2]string{r.Replace(sqlProbe), r.Replace(sqlProbeUser)}
	s.deleteProbes = [2]string{r.Replace(sqlProbeDelete), r.Replace(sqlProbeDeleteUser)}
	s.list, s.delete, s.deleteFree = r.Replace(sqlList), r.Replace(sqlDelete), r.Replace(sqlDeleteFree)
	s.listIDs, s.deleteIDs, s.unindex = r.Replace(sqlListIDs), r.Replace(sqlDeleteIDs), r.Replace(sqlUnindex)
	s.left, s.dryRun, s.byAge = r.Replace(sqlLeft), r.Replace(sqlDryRun), r.Replace(sqlByAge)
	return s
}
