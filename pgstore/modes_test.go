package pgstore_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// everything uses every operation once.
func everything(t *testing.T, pool *pgxpool.Pool, cfg pgstore.Config) {
	t.Helper()
	cfg.UserLimit = 2
	a := newApp(t, pool, cfg)
	first, second, third := a.browser(t), a.browser(t), a.browser(t)
	first.must("/put", "key", "cart", "value", "1")
	for _, b := range []*browser{first, second, third} {
		b.must("/login", "user", "alice")
	}
	if first.user() != "" || second.user() != "alice" {
		t.Error("the limit did not hold")
	}
	second.must("/renew")
	second.must("/put", "key", userKey, "value", "bob")
	second.must("/put", "key", userKey, "value", "alice")
	if got := second.must("/revoke-others"); got != "1" {
		t.Errorf("%s revoked", got)
	}
	// Where an answer is slow to arrive, a sign-in that begins soon after a fence is refused.
	users := pgx.Identifier{"scs_users"}
	if cfg.Schema != "" {
		users = pgx.Identifier{cfg.Schema, "scs_users"}
	}
	pgtest.Exec(t, pool, `UPDATE `+users.Sanitize()+` SET fence = now() - interval '1 hour'`)
	if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || !list[0].IP.IsLoopback() {
		t.Errorf("%+v, %v", list, err)
	}
	if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(second.token())); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	third.must("/login", "user", "alice")
	if o, err := a.store.Overview(t.Context()); err != nil || o.Live != 1 || o.SignedIn != 1 || o.Users != 1 || o.Estimated {
		t.Errorf("%+v, %v", o, err)
	}
	n := 0
	for s, err := range a.store.Each(t.Context()) {
		if n++; err != nil || s.UserID != "alice" || s.CreatedAt.IsZero() {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if all, err := a.store.All(); err != nil || len(all) != n || n != 1 {
		t.Errorf("%d in all, %d seen, %v", len(all), n, err)
	}
	third.must("/logout")
	third.must("/login", "user", "alice")
	if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
}

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// Touches may commit asynchronously, nothing else may, and the setting stays where
// it was made: a trigger notes it.
func TestStoreWorksInEveryQueryExecMode(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "it refuses triggers on distributed tables")
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			pool := migrated(t, pgtest.ExecMode(mode), pgtest.MaxConns(2))
			pgtest.Exec(t, pool, `CREATE TABLE noted (touch bool, setting text)`)
			pgtest.Exec(t, pool, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO noted VALUES (TG_OP = 'UPDATE' AND NEW.version = OLD.version AND NEW.last_seen_at > OLD.last_seen_at,
					current_setting('synchronous_commit'));
				RETURN NEW; END $$`)
			pgtest.Exec(t, pool, `CREATE TRIGGER note BEFORE INSERT OR UPDATE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION note()`)
			a := newApp(t, pool, pgstore.Config{TouchAfter: time.Nanosecond})
			b := a.browser(t)
			b.must("/login", "user", "bob")
			b.must("/me")
			b.must("/put", "key", "k", "value", "v")
			b.must("/logout")
			everything(t, pool, pgstore.Config{})
			if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM noted WHERE touch`); n == 0 {
				t.Error("no touch was noted")
			}
			if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM noted WHERE touch <> (setting = 'off')`); n != 0 {
				t.Errorf("%d writes with the wrong durability", n)
			}
			for range 4 {
				if got := pgtest.Query[string](t, pool, `SHOW synchronous_commit`); got != "on" {
					t.Errorf("synchronous_commit has leaked: %s", got)
				}
			}
		})
	}
}

func TestStoreWorksInANamedSchema(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"My-Schema " + rand.Text(), `we"ird ` + rand.Text()} {
		pool := pgtest.Pool(t)
		if err := migrations.Up(t.Context(), pool, migrations.Schema(name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pgtest.Exec(t, pool, "DROP SCHEMA "+pgx.Identifier{name}.Sanitize()+" CASCADE") })
		everything(t, pool, pgstore.Config{Schema: name})
	}
}

// What a database, a role or the DSN sets, the store must read all the same.
func TestStoreWorksWhateverDatesAndBytesLookLike(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "the coordinator writes times as the client sets DateStyle, and a worker reads them as ISO")
	for name, params := range map[string]map[string]string{
		"German dates":              {"DateStyle": "German, DMY"},
		"SQL dates":                 {"DateStyle": "SQL, DMY"},
		"Postgres dates and a zone": {"DateStyle": "Postgres, MDY", "TimeZone": "America/St_Johns"},
		"escaped bytes":             {"bytea_output": "escape"},
		"all at once":               {"DateStyle": "SQL, DMY", "bytea_output": "escape", "TimeZone": "Asia/Kathmandu", "IntervalStyle": "iso_8601", "extra_float_digits": "-15"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				t.Parallel()
				schema := pgtest.Schema(t)
				migrate(t, pgtest.PoolIn(t, schema))
				opts := []pgtest.Option{pgtest.ExecMode(mode)}
				for param, value := range params {
					opts = append(opts, pgtest.Param(param, value))
				}
				pool := pgtest.PoolIn(t, schema, opts...)
				everything(t, pool, pgstore.Config{})
				settingsChangeNothing(t, pool)
			})
		}
	}
}

// The client does not set them itself: the role has them.
func TestStoreWorksWhateverTheRoleSets(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "the coordinator writes times as the role sets DateStyle, and a worker reads them as ISO")
	schema, admin := pgtest.Schema(t), pgtest.PoolIn(t, "")
	migrate(t, pgtest.PoolIn(t, schema))
	role := strings.ReplaceAll(schema, "t_", "r_")
	for _, sql := range []string{
		`CREATE ROLE "` + role + `" LOGIN PASSWORD 'secret'`,
		`GRANT USAGE ON SCHEMA "` + schema + `" TO "` + role + `"`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "` + schema + `" TO "` + role + `"`,
		`ALTER ROLE "` + role + `" SET DateStyle = 'German, DMY'`,
		`ALTER ROLE "` + role + `" SET bytea_output = 'escape'`,
	} {
		pgtest.Exec(t, admin, sql)
	}
	t.Cleanup(func() {
		pgtest.Exec(t, admin, `DROP OWNED BY "`+role+`"`)
		pgtest.Exec(t, admin, `DROP ROLE "`+role+`"`)
	})
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			pool := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode), func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "secret" })
			if got := pgtest.Query[string](t, pool, `SHOW bytea_output`); got != "escape" {
				t.Fatal(got)
			}
			pgtest.Exec(t, admin, `DELETE FROM "`+schema+`".scs_sessions`)
			everything(t, pool, pgstore.Config{})
			settingsChangeNothing(t, pool)
		})
	}
}

// settingsChangeNothing checks that data and times come back as they were stored.
func settingsChangeNothing(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	store := newStore(t, pool, pgstore.Config{})
	data := make([]byte, 256) // of each byte one
	for i := range data {
		data[i] = byte(255 - i)
	}
	if err := store.Commit("bytes", data, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if got, found, err := store.Find("bytes"); !found || err != nil || !bytes.Equal(got, data) {
		t.Errorf("%t, %v, %x", found, err, got)
	}
	for s, err := range store.Each(t.Context()) {
		if left := time.Until(s.Expiry); err != nil || left < 59*time.Minute || left > 61*time.Minute {
			t.Errorf("it expires in %v, %v", left, err)
		}
	}
	if err := store.Delete("bytes"); err != nil {
		t.Error(err)
	}
}
