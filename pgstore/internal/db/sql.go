package db

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// All SQL of the store. It can be pasted into psql as it stands: if the tables are in a
// named schema, DB.q qualifies their names. It also has to work on Citus and behind
// PgBouncer, so:
//
//   - no join of tables that are distributed by different columns,
//   - nothing that outlives its transaction,
//   - in a write, no function whose value may differ between servers. now() is
//     allowed, but only where the Citus coordinator can replace it by its value: not in
//     RETURNING, CASE or COALESCE, and not in arithmetic with a column.
const (
	// now() is the start of the transaction, so it is earlier than any lock that the
	// transaction waits for. A write whose decision needed a lock reads the row again
	// once it holds it.
	alive = `end_reason IS NULL AND expiry > now()`
	// Renewed, and without a successor yet.
	pending = `end_reason = 'renewed' AND version > 0`

	sqlFind = `SELECT ` + found + ` FROM scs_sessions WHERE id = $1`
	sqlLock = sqlFind + ` FOR UPDATE`
	found   = `data, coalesce(user_id, ''), version, coalesce(end_reason, ''), expiry, last_seen_at, now()`
	// With as many parameters as there are sessions: an array as one parameter is planned
	// anew at each execution.
	sqlFindMany = `SELECT id, ` + found + ` FROM scs_sessions WHERE id = ANY(ARRAY[$1]::uuid[])`

	// What a write returns. last_seen_at stands for its now(), as Citus allows no function
	// in RETURNING.
	stamp = ` RETURNING version, expiry, last_seen_at`

	// Anonymous sessions only: signed-in ones are inserted by sqlSignIn.
	sqlInsert = `INSERT INTO scs_sessions (id, data, expiry, last_seen_at)
		VALUES ($1, $2, now() + $3::float8 * interval '1 microsecond', now())
		ON CONFLICT (id) DO NOTHING` + stamp

	// $5 is the version to expect (0: any).
	sqlUpdate = `UPDATE scs_sessions SET data = $2, version = version + 1,
			expiry = now() + $3::float8 * interval '1 microsecond', last_seen_at = now()` + updateIf
	// The same for a request that must not extend its session.
	sqlUpdateUnseen = `UPDATE scs_sessions SET data = $2, version = version + 1,
			expiry = least(expiry, now() + $3::float8 * interval '1 microsecond')` + updateIf
	updateIf = `
		WHERE id = $1 AND ` + alive + ` AND user_id IS NOT DISTINCT FROM $4::text
			AND ($5::bigint = 0 OR version = $5::bigint)` + stamp

	// What is sealed anew stays the same to everybody who reads it, so the version stays.
	sqlReseal = `UPDATE scs_sessions SET data = $2 WHERE id = $1 AND ` + alive + ` AND version = $3`

	// A touch may be lost in a crash of the server: the session then times out a
	// little early, and nothing else is affected.
	sqlAsync = `SELECT set_config('synchronous_commit', 'off', true)`
	// Who shares a round trip does not wait for a row that is locked for longer.
	sqlImpatient      = `SELECT set_config('lock_timeout', '50ms', true)`
	sqlAsyncImpatient = `SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '50ms', true)`
	sqlTouch          = `UPDATE scs_sessions SET
			expiry = greatest(expiry, now() + $2::float8 * interval '1 microsecond'), last_seen_at = now()
		WHERE id = $1 AND ` + alive + ` AND user_id IS NOT DISTINCT FROM $3::text AND version = $4` + stamp

	// Ends sessions: on sign-out, revocation and eviction. $3 is the reason to replace
	// (NULL for live sessions; 'renewed' for those that have no successor yet), $4 the
	// user they must have ('' for nobody), or NULL.
	//
	// One session has a statement of its own: for an array parameter the generic plan
	// assumes ten elements, so PostgreSQL finds a custom plan for one element cheaper
	// and plans anew at each execution, which costs more than the update.
	sqlEnd    = end + `id = $1` + endIf
	sqlEndAll = end + `id = ANY($1::uuid[])` + endIf
	end       = `UPDATE scs_sessions SET end_reason = $2, data = '' WHERE `
	endIf     = ` AND end_reason IS NOT DISTINCT FROM $3::text AND (expiry > now() OR $3::text IS NOT NULL)
			AND version > 0 AND ($4::text IS NULL OR coalesce(user_id, '') = $4::text) RETURNING id`
	// A renewal leaves the data where it is, until the session that goes on is stored.
	sqlRenew = `UPDATE scs_sessions SET end_reason = 'renewed' WHERE id = $1 AND ` + alive + ` RETURNING id`
	// Under the lock of the row, which says that it may be done.
	sqlLink = `UPDATE scs_sessions SET end_reason = $2, data = $3, version = 0 WHERE id = $1`

	// Ends sessions that have timed out, by now() or by a later reading of the clock. A
	// write that began before they did may be waiting for the row, and would find it alive
	// by its own, earlier now(). If that write was first, the session is alive, and the
	// ending that follows ends it.
	sqlTimeOut = `UPDATE scs_sessions SET end_reason = 'timed_out', data = ''
		WHERE id = ANY($1::uuid[]) AND end_reason IS NULL AND (expiry <= now() OR expiry <= $3::timestamptz)
			AND ($2::text IS NULL OR user_id = $2::text)`

	sqlReadable = `SELECT set_config('bytea_output', 'hex', true), set_config('DateStyle', 'ISO', true)`

	// The sign-in transaction; see pgstore's signin_tx.go.
	sqlBegin = `BEGIN ISOLATION LEVEL READ COMMITTED`
	// Bounds how long the transaction may wait for the app, and from PostgreSQL 17 on how long
	// it may last, unless the role's own bounds are tighter. (The first does not count while
	// the server has but a part of a batch; nothing but the second and TCP's keepalive does.
	// It is longer than the timeout, which so comes first and says what it is.)
	sqlBound = `SELECT set_config(name, ms::text, true)
		FROM (VALUES ('idle_in_transaction_session_timeout', $1::int), ('transaction_timeout', 3 * $1::int)) bound (name, ms)
		WHERE current_setting(name, true)::interval NOT BETWEEN '1 ms' AND ms * interval '1 ms'`
	sqlCommit   = `COMMIT`
	sqlRollback = `ROLLBACK`
	sqlClock    = `SELECT clock_timestamp()`
	sqlLockUser = `INSERT INTO scs_users (user_id) VALUES ($1)
		ON CONFLICT (user_id) DO UPDATE SET fence = scs_users.fence RETURNING fence`
	sqlPlace     = `SELECT created_at, coalesce(label, '') FROM scs_user_sessions WHERE user_id = $1 AND id = $2`
	sqlUserIndex = `SELECT id, created_at FROM scs_user_sessions WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3`
	// By id, not by user: the rows of a user's sessions are wherever their ids put them.
	sqlUserRows = `SELECT id, last_seen_at, expiry,
			end_reason IS NOT NULL AND (NOT (` + pending + `) OR user_id IS DISTINCT FROM $1),
			end_reason IS NOT NULL AND ` + pending + `, end_reason IS NULL AND user_id IS DISTINCT FROM $1
		FROM scs_sessions WHERE id = ANY(ARRAY(SELECT id FROM scs_user_sessions WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3))`
	sqlSignIn = `INSERT INTO scs_sessions (id, user_id, data, expiry, last_seen_at)
		VALUES ($1, $2, $3, now() + $4::float8 * interval '1 microsecond', now())` + stamp
	sqlSwitchUser = `UPDATE scs_sessions SET user_id = $2, data = $3, version = version + 1,
			expiry = now() + $4::float8 * interval '1 microsecond', last_seen_at = now()
		WHERE id = $1 AND ` + alive + stamp
	sqlEnlist = `INSERT INTO scs_user_sessions (user_id, id, created_at, ip, user_agent, label)
		VALUES ($1, $2, coalesce($3::timestamptz, now()), $4::text::inet, $5, $6)
		ON CONFLICT (user_id, id) DO UPDATE SET created_at = excluded.created_at,
			ip = excluded.ip, user_agent = excluded.user_agent, label = excluded.label`
	sqlRelabel   = `UPDATE scs_user_sessions SET label = $3 WHERE user_id = $1 AND id = $2`
	sqlDelist    = `DELETE FROM scs_user_sessions WHERE user_id = $1 AND id = $2`
	sqlDelistAll = `DELETE FROM scs_user_sessions WHERE user_id = $1 AND id = ANY($2::uuid[])`

	// For Import and Reindex. Not from scs's own table, which has a name of its own.
	sqlOldPage  = `SELECT token, data, expiry, now() FROM old_table WHERE token > $1 AND expiry > now() ORDER BY token LIMIT $2`
	sqlTakeOver = `INSERT INTO scs_sessions AS s (id, user_id, data, version, expiry, last_seen_at)
		VALUES ($1, $2, $3, $4, $5, now())
		ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, data = excluded.data, version = excluded.version,
			expiry = greatest(s.expiry, excluded.expiry)
		WHERE s.version = $6::bigint AND s.end_reason IS NULL`

	sqlFence = `UPDATE scs_users SET fence = greatest(fence, $2::timestamptz) WHERE user_id = $1 RETURNING fence`

	// For Forget.
	sqlAnonymize = `UPDATE scs_sessions SET user_id = NULL, data = ''
		WHERE id = ANY($1::uuid[]) AND end_reason IS NOT NULL AND user_id = $2`
	sqlForget = `DELETE FROM scs_users WHERE user_id = $1`

	// One channel a schema: the search_path may differ from connection to connection.
	sqlChannel  = `SELECT ` + channelName + ofSchema
	sqlNotify   = `SELECT pg_notify(` + channelName + `, $1)` + ofSchema
	channelName = `'scs_ended_' || relnamespace`
	ofSchema    = ` FROM pg_class WHERE oid = 'scs_sessions'::regclass`

	// A listing reads both tables in one snapshot.
	sqlBeginRead = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
	sqlListed    = `SELECT user_id, id, created_at, ip, coalesce(user_agent, ''), coalesce(label, '') FROM scs_user_sessions `
	sqlListedOf  = sqlListed + `WHERE user_id = $1`
	sqlListedIn  = sqlListed + `WHERE user_id = ANY($1::text[]) AND id = ANY($2::uuid[])`
	ofUser       = `WHERE id = ANY(ARRAY(SELECT id FROM scs_user_sessions WHERE user_id = $1))
			AND user_id = $1 AND ` + alive
	sqlLive  = `SELECT id, expiry, last_seen_at FROM scs_sessions ` + ofUser
	sqlCount = `SELECT count(*) FROM scs_sessions ` + ofUser

	// Keyset pages over every live session, with their data or without.
	sqlPage = `SELECT id, coalesce(user_id, ''), expiry, last_seen_at, version, CASE WHEN $3::bool THEN data END
		FROM scs_sessions WHERE id > $1 AND ` + alive + ` ORDER BY id LIMIT $2`

	sqlEstimate = `SELECT coalesce(reltuples, -1)::float8 FROM pg_class WHERE oid = 'scs_sessions'::regclass`
	sqlTotals   = `SELECT
			count(*) FILTER (WHERE ` + alive + `),
			count(user_id) FILTER (WHERE ` + alive + `),
			count(DISTINCT user_id) FILTER (WHERE ` + alive + `),
			count(*) FILTER (WHERE expiry <= now()),
			count(*)
		FROM scs_sessions`
	sqlSample = sqlTotals + ` TABLESAMPLE SYSTEM ($1::float4)`
	// Rows of the first hour of the index hold the oldest expiry.
	sqlOldest = `SELECT min(expiry) FROM scs_sessions
		WHERE sweep_at = (SELECT min(sweep_at) FROM scs_sessions) AND expiry <= now()`
)

// What the statements above need of each column, and of two tables as a whole. $1 is the
// schema, or ” for the search_path. The names of the tables are put together here, so that DB.q
// leaves them alone. Privileges that come by column are enough.
//
// A schema of the search_path that the role may not use is passed over by PostgreSQL, as if it
// were not there. Here it is looked into last, so as to say what is missing.
const sqlCheck = `WITH needs AS (
		SELECT 'scs_' || name AS name, col, privilege FROM (VALUES
			('sessions', 'id', 'SELECT,INSERT'),
			('sessions', 'user_id,data,expiry,last_seen_at', 'SELECT,INSERT,UPDATE'),
			('sessions', 'version,end_reason', 'SELECT,UPDATE'),
			('sessions', 'sweep_at', 'SELECT'),
			('user_sessions', 'user_id,id', 'SELECT,INSERT'),
			('user_sessions', 'created_at,ip,user_agent,label', 'SELECT,INSERT,UPDATE'),
			('users', 'user_id', 'SELECT,INSERT'),
			('users', 'fence', 'SELECT,UPDATE'),
			('user_sessions', '*', 'DELETE'), ('users', '*', 'DELETE')
		) AS needs (name, cols, privileges), unnest(string_to_array(cols, ',')) AS col, unnest(string_to_array(privileges, ',')) AS privilege
	), found AS (
		SELECT needs.*, rel.oid AS rel, nspname, ns.oid AS ns, attnum
		FROM needs
		LEFT JOIN pg_class rel ON rel.oid = CASE WHEN $1::text <> '' THEN
				(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = name)
			ELSE coalesce(to_regclass(name)::oid,
				(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = name AND NOT has_schema_privilege(n.oid, 'USAGE')
					AND n.nspname = ANY (string_to_array(translate(replace(current_setting('search_path'), '$user', current_user), '" ', ''), ',')) LIMIT 1))
			END
		LEFT JOIN pg_namespace ns ON ns.oid = rel.relnamespace
		LEFT JOIN pg_attribute ON attrelid = rel.oid AND attname = col AND NOT attisdropped
	)
	SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
		CASE WHEN $1::text <> '' THEN NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text)
			ELSE current_schema() IS NULL AND NOT EXISTS (SELECT FROM found WHERE rel IS NOT NULL) END,
		ARRAY(SELECT DISTINCT CASE WHEN rel IS NULL THEN name ELSE name || '.' || col END
			FROM found WHERE col <> '*' AND attnum IS NULL ORDER BY 1),
		ARRAY(SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user)
			FROM found WHERE NOT has_schema_privilege(ns, 'USAGE'))
		|| ARRAY(SELECT format('GRANT %s ON %I.%I TO %I', string_agg(DISTINCT privilege, ', '), nspname, name, current_user)
			FROM found WHERE NOT CASE WHEN col = '*' THEN has_table_privilege(rel, privilege) ELSE has_column_privilege(rel, attnum, privilege) END
			GROUP BY nspname, name ORDER BY name)`

// qualifier returns what puts schema before the names of the tables.
func qualifier(schema string) *strings.Replacer {
	name := func(table string) string { return pgx.Identifier{schema, table}.Sanitize() }
	return strings.NewReplacer(
		"scs_users.fence", "scs_users.fence", // the row's alias is the bare name
		"'scs_sessions'", "'"+strings.ReplaceAll(name("scs_sessions"), "'", "''")+"'",
		"scs_sessions", name("scs_sessions"),
		"scs_user_sessions", name("scs_user_sessions"),
		"scs_users", name("scs_users"),
	)
}

// q returns the statement with its tables qualified, if they are in a named schema.
func (d *DB) q(sql string) string {
	if d.schema == "" {
		return sql
	}
	if text, ok := d.qualified.Load(sql); ok {
		return text.(string)
	}
	text, _ := d.qualified.LoadOrStore(sql, qualifier(d.schema).Replace(sql))
	return text.(string)
}
