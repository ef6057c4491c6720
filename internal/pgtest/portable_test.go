package pgtest

import (
	"slices"
	"strings"
	"testing"
)

func TestRulesCatchWhatIsNotPortable(t *testing.T) {
	t.Parallel()
	for rule, statements := range map[string][]string{
		"a WHERE of a write": {
			`UPDATE scs_sessions SET data = '' WHERE expiry > clock_timestamp()`,
			`DELETE FROM "My ""Schema"".x"."scs_sessions"
				WHERE id = $1 AND now() - expiry > random() * interval '1 hour'`,
			`UPDATE scs_sessions SET data = '' WHERE id = ANY(ARRAY(SELECT gen_random_uuid())) RETURNING id`,
		},
		"RETURNING calls nothing": {
			`UPDATE scs_sessions SET data = '' WHERE id = $1 RETURNING expiry, now()`,
			`INSERT INTO scs_sessions (id) VALUES ($1) RETURNING coalesce(user_id, '')`,
		},
		"DO UPDATE": {
			`INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET fence = now()`,
			`INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET fence = 'x' WHERE scs_users.fence < now()`,
		},
		"hot and user tables": {
			`SELECT s.id FROM scs_sessions s JOIN scs_user_sessions u USING (id)`,
			`SELECT s.id FROM sessions.scs_sessions s, "sessions"."scs_users" u WHERE s.user_id = u.user_id`,
			`DELETE FROM scs_user_sessions u WHERE NOT EXISTS (SELECT FROM scs_sessions s WHERE s.id = u.id)`,
			`SELECT data FROM scs_sessions WHERE id IN (SELECT id FROM scs_user_sessions WHERE user_id = $1)`,
		},
		"FOR UPDATE": {
			`SELECT data FROM scs_sessions WHERE id = ANY($1) FOR UPDATE`,
			`SELECT data FROM scs_sessions WHERE id IN ($1, $2) ORDER BY id FOR NO KEY UPDATE`,
		},
		"DELETE has no USING": {`DELETE FROM scs_user_sessions u USING unnest($1::uuid[]) x WHERE u.id = x`},
		"nothing outlives": {
			`SET synchronous_commit = off`, `SET SESSION lock_timeout = 1`, `SELECT set_config('synchronous_commit', 'off', false)`,
			`SELECT set_config('lock_timeout', '1', true), set_config('DateStyle', 'ISO', $1)`,
			`UNLISTEN *`, `SELECT pg_advisory_lock(1)`, `SELECT pg_try_advisory_lock(1)`, `CREATE TEMP TABLE x (n int)`,
			`PREPARE x AS SELECT 1`, `DEALLOCATE ALL`, "-- all of it\n DISCARD ALL", `RESET ALL`,
		},
	} {
		for _, sql := range statements {
			if why := broken(sql); !slices.ContainsFunc(why, func(s string) bool { return strings.HasPrefix(s, rule) }) {
				t.Errorf("%q does not catch %s", rule, sql)
			}
		}
	}
}

func TestRulesLetPortableStatementsPass(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{
		`SELECT data, coalesce(user_id, ''), now() FROM scs_sessions WHERE id = $1 FOR UPDATE`,
		`UPDATE scs_sessions SET expiry = greatest(expiry, now() + $2::float8 * interval '1 microsecond') WHERE id = $1 AND expiry > now() RETURNING version, expiry`,
		`SELECT id FROM "s"."scs_sessions" WHERE id = ANY(ARRAY(SELECT id FROM "s"."scs_user_sessions" WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3))`,
		`INSERT INTO scs_users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET fence = greatest(scs_users.fence, excluded.fence) RETURNING fence`,
		`DELETE FROM scs_user_sessions WHERE user_id = $1 AND id IN (SELECT x FROM unnest($2::uuid[]) x)`,
		`SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '50ms', true)`,
		`SET LOCAL lock_timeout = '1s'`, `SET TRANSACTION READ ONLY`, `SELECT pg_advisory_xact_lock(1)`, `BEGIN ISOLATION LEVEL READ COMMITTED`, `COMMIT`,
		`UPDATE scs_sessions SET data = 'it lists random() RETURNING now()' WHERE id = $1`,
	} {
		if why := broken(sql); len(why) > 0 {
			t.Errorf("%s: %q", sql, why)
		}
	}
}

// It is no code of the store that sends this.
func TestStatementsAreNotThoseOfTests(t *testing.T) {
	t.Parallel()
	pool := Pool(t)
	const sql = `SELECT set_config('lock_timeout', '1s', false)`
	Exec(t, pool, sql)
	if slices.Contains(Statements(), sql) {
		t.Error("it was taken for the store's")
	}
}
