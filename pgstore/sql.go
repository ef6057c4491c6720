package pgstore

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// All SQL of the package. It also has to work on Citus and behind PgBouncer, so:
//
//   - no join of tables that are distributed by different columns,
//   - nothing that outlives its transaction,
//   - in a write, no function whose value may differ between servers. now() is
//     allowed, but only where the Citus coordinator can replace it by its value: not in
//     RETURNING, CASE or COALESCE, and not in arithmetic with a column.
//
// A session is alive while end_reason IS NULL AND expiry > now(). now() is the start of
// the transaction, so it is earlier than any lock that the transaction waits for. A
// write whose decision needed a lock reads the row again once it holds it.
const (
	rowColumns = `data, coalesce(user_id, ''), version, coalesce(end_reason, ''), expiry, last_seen_at, now()`

	sqlFind = `SELECT ` + rowColumns + ` FROM {sessions} WHERE id = $1`
	sqlLock = sqlFind + ` FOR UPDATE`

	// What a write returns. last_seen_at stands for its now(), as Citus allows no function
	// in RETURNING.
	stampColumns = `version, expiry, last_seen_at`

	// Anonymous sessions only: signed-in ones are inserted by sqlAdmit.
	sqlInsert = `INSERT INTO {sessions} (id, data, expiry, last_seen_at)
		VALUES ($1, $2, now() + $3::float8 * interval '1 microsecond', now())
		ON CONFLICT (id) DO NOTHING
		RETURNING ` + stampColumns

	// $5 is the version to expect (0: any).
	sqlUpdate = `UPDATE {sessions} SET data = $2, version = version + 1,
			expiry = now() + $3::float8 * interval '1 microsecond', last_seen_at = now()
		` + sqlUpdateIf
	// The same for a request that must not extend its session.
	sqlUpdateOnly = `UPDATE {sessions} SET data = $2, version = version + 1,
			expiry = least(expiry, now() + $3::float8 * interval '1 microsecond')
		` + sqlUpdateIf
	sqlUpdateIf = `WHERE id = $1 AND end_reason IS NULL AND expiry > now()
			AND user_id IS NOT DISTINCT FROM $4::text AND ($5::bigint = 0 OR version = $5::bigint)
		RETURNING ` + stampColumns

	// A touch may be lost in a crash of the server: the session then times out a
	// little early, and nothing else is affected.
	sqlAsync = `SELECT set_config('synchronous_commit', 'off', true)`
	sqlTouch = `UPDATE {sessions} SET
			expiry = greatest(expiry, now() + $2::float8 * interval '1 microsecond'), last_seen_at = now()
		WHERE id = $1 AND end_reason IS NULL AND expiry > now()
			AND user_id IS NOT DISTINCT FROM $3::text AND version = $4
		RETURNING ` + stampColumns

	// Ends sessions: on sign-out, revocation and eviction, and the old row of a renewal.
	// $3 is the reason to replace (NULL for live sessions), $4 the user or NULL for any.
	// $5 goes to version, which a tombstone does not need otherwise; see newMark.
	//
	// One session has a statement of its own: for an array parameter the generic plan
	// assumes ten elements, so PostgreSQL finds a custom plan for one element cheaper
	// and plans anew at each execution, which costs more than the update.
	sqlEnd    = sqlEndSet + `id = $1` + sqlEndIf
	sqlEndAll = sqlEndSet + `id = ANY($1::uuid[])` + sqlEndIf
	sqlEndSet = `UPDATE {sessions} SET end_reason = $2, data = '', version = $5 WHERE `
	sqlEndIf  = ` AND end_reason IS NOT DISTINCT FROM $3::text AND (expiry > now() OR $3::text IS NOT NULL)
			AND ($4::text IS NULL OR user_id = $4::text)
		RETURNING id`
	sqlMarked = `SELECT count(*) FROM {sessions} WHERE id = ANY($1::uuid[]) AND version = $2`

	// Makes sure that sessions which have just timed out cannot be extended any more. A
	// write that began before they timed out may still be waiting for the row, and would
	// find it alive by its own, earlier now(). So expiry is moved back by $2, which is
	// longer than any write takes. If that write was first, the session is alive, and
	// the ending that follows ends it.
	sqlLapse = `UPDATE {sessions} SET expiry = least(expiry, now() - $2::float8 * interval '1 microsecond')
		WHERE id = ANY($1::uuid[]) AND end_reason IS NULL AND expiry <= now()
			AND expiry > now() - $2::float8 * interval '1 microsecond' AND ($3::text IS NULL OR user_id = $3::text)`

	// The sign-in transaction, see admit.go.
	sqlBegin    = `BEGIN ISOLATION LEVEL READ COMMITTED`
	sqlCommit   = `COMMIT`
	sqlRollback = `ROLLBACK`
	sqlClock    = `SELECT clock_timestamp()`
	sqlLockUser = `INSERT INTO {users} (user_id) VALUES ($1)
		ON CONFLICT (user_id) DO UPDATE SET fence = {users}.fence
		RETURNING fence`
	sqlUserIDs  = `SELECT id, created_at FROM {user_sessions} WHERE user_id = $1`
	sqlAnID     = sqlUserIDs + ` AND id = $2`
	sqlUserRows = `SELECT id, last_seen_at, expiry > now(), end_reason IS NOT NULL OR user_id IS DISTINCT FROM $1
		FROM {sessions} WHERE id = ANY(ARRAY(SELECT id FROM {user_sessions} WHERE user_id = $1))`
	sqlAdmit = `INSERT INTO {sessions} (id, user_id, data, expiry, last_seen_at)
		VALUES ($1, $2, $3, now() + $4::float8 * interval '1 microsecond', now())
		RETURNING ` + stampColumns
	sqlSwitch = `UPDATE {sessions} SET user_id = $2, data = $3, version = version + 1,
			expiry = now() + $4::float8 * interval '1 microsecond', last_seen_at = now()
		WHERE id = $1 AND end_reason IS NULL AND expiry > now()
		RETURNING ` + stampColumns
	sqlIndex = `INSERT INTO {user_sessions} (user_id, id, created_at, ip, user_agent)
		VALUES ($1, $2, coalesce($3::timestamptz, now()), $4::text::inet, $5)
		ON CONFLICT (user_id, id) DO UPDATE SET
			created_at = excluded.created_at, ip = excluded.ip, user_agent = excluded.user_agent`
	sqlUnindex    = `DELETE FROM {user_sessions} WHERE user_id = $1 AND id = $2`
	sqlUnindexAll = `DELETE FROM {user_sessions} WHERE user_id = $1 AND id = ANY($2::uuid[])`

	sqlFence = `UPDATE {users} SET fence = greatest(fence, $2::timestamptz) WHERE user_id = $1 RETURNING fence`

	// The data of a user's sessions, to find those that cannot be read.
	sqlDataOf = `SELECT id, data FROM {sessions} WHERE id = ANY($1::uuid[])`

	// For sessions that have timed out and leave the user's index: Forget will not find
	// them any more.
	sqlEmpty = `UPDATE {sessions} SET data = ''
		WHERE id = ANY($1::uuid[]) AND end_reason IS NULL AND expiry <= now() AND user_id = $2`

	// For Forget.
	sqlAnonymize = `UPDATE {sessions} SET user_id = NULL, data = ''
		WHERE id = ANY($1::uuid[]) AND (end_reason IS NOT NULL OR expiry <= now()) AND user_id = $2`
	sqlForget = `DELETE FROM {users} WHERE user_id = $1`

	// A listing reads both tables in one snapshot.
	sqlBeginRead = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
	sqlIndexRows = `SELECT id, created_at, coalesce(host(ip), ''), coalesce(user_agent, '')
		FROM {user_sessions} WHERE user_id = $1`
	sqlLiveRows = `SELECT id, expiry, last_seen_at FROM {sessions}
		WHERE id = ANY(ARRAY(SELECT id FROM {user_sessions} WHERE user_id = $1))
			AND user_id = $1 AND end_reason IS NULL AND expiry > now()`
	sqlCount = `SELECT count(*) FROM {sessions}
		WHERE id = ANY(ARRAY(SELECT id FROM {user_sessions} WHERE user_id = $1))
			AND user_id = $1 AND end_reason IS NULL AND expiry > now()`

	// Keyset pages over every live session.
	sqlPage = `SELECT id, coalesce(user_id, ''), expiry, last_seen_at FROM {sessions}
		WHERE id > $1 AND end_reason IS NULL AND expiry > now() ORDER BY id LIMIT $2`
	sqlPageData = `SELECT id, data FROM {sessions}
		WHERE id > $1 AND end_reason IS NULL AND expiry > now() ORDER BY id LIMIT $2`
	sqlPageIndex = `SELECT user_id, id, created_at, coalesce(host(ip), ''), coalesce(user_agent, '')
		FROM {user_sessions} WHERE user_id = ANY($1::text[]) AND id = ANY($2::uuid[])`

	// Overview.
	sqlEstimate = `SELECT coalesce(reltuples, -1)::float8 FROM pg_class WHERE oid = $1::text::regclass`
	sqlTotals   = `SELECT
			count(*) FILTER (WHERE end_reason IS NULL AND expiry > now()),
			count(user_id) FILTER (WHERE end_reason IS NULL AND expiry > now()),
			count(DISTINCT user_id) FILTER (WHERE end_reason IS NULL AND expiry > now()),
			count(*) FILTER (WHERE expiry <= now()),
			count(*)
		FROM {sessions}`
	sqlSample = sqlTotals + ` TABLESAMPLE SYSTEM ($1::float4)`
	// Rows of the first hour of the index hold the oldest expiry.
	sqlOldest = `SELECT min(expiry) FROM {sessions}
		WHERE sweep_at = (SELECT min(sweep_at) FROM {sessions}) AND expiry <= now()`
)

// statements are the texts above with the tables named.
type statements struct {
	sessionsTable string

	find, lock, insert, update, updateOnly, touch                   string
	end, endAll, marked, lapse, dataOf                              string
	lockUser, userIDs, anID, userRows                               string
	admit, switchUser, index, unindex, unindexAll                   string
	fence, empty, anonymize, forget, indexRows, liveRows, countLive string
	page, pageData, pageIndex, totals, sample, oldest               string
}

// newStatements names the tables, qualified where schema is not empty.
func newStatements(schema string) statements {
	name := func(table string) string {
		if schema == "" {
			return table
		}
		return pgx.Identifier{schema, table}.Sanitize()
	}
	r := strings.NewReplacer(
		"{users}.fence", "scs_users.fence", // the row's alias is the bare name
		"{sessions}", name("scs_sessions"),
		"{user_sessions}", name("scs_user_sessions"),
		"{users}", name("scs_users"),
	)
	return statements{
		sessionsTable: name("scs_sessions"),

		find: r.Replace(sqlFind), lock: r.Replace(sqlLock), insert: r.Replace(sqlInsert),
		update: r.Replace(sqlUpdate), updateOnly: r.Replace(sqlUpdateOnly), touch: r.Replace(sqlTouch),
		end: r.Replace(sqlEnd), endAll: r.Replace(sqlEndAll), marked: r.Replace(sqlMarked), lapse: r.Replace(sqlLapse),
		dataOf: r.Replace(sqlDataOf),

		lockUser: r.Replace(sqlLockUser), userIDs: r.Replace(sqlUserIDs), anID: r.Replace(sqlAnID),
		userRows: r.Replace(sqlUserRows), admit: r.Replace(sqlAdmit), switchUser: r.Replace(sqlSwitch),
		index: r.Replace(sqlIndex), unindex: r.Replace(sqlUnindex), unindexAll: r.Replace(sqlUnindexAll),

		fence: r.Replace(sqlFence), empty: r.Replace(sqlEmpty), anonymize: r.Replace(sqlAnonymize), forget: r.Replace(sqlForget),
		indexRows: r.Replace(sqlIndexRows), liveRows: r.Replace(sqlLiveRows), countLive: r.Replace(sqlCount),

		page: r.Replace(sqlPage), pageData: r.Replace(sqlPageData), pageIndex: r.Replace(sqlPageIndex),
		totals: r.Replace(sqlTotals), sample: r.Replace(sqlSample), oldest: r.Replace(sqlOldest),
	}
}
