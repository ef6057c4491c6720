package migrations_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(t testing.TB, pool *pgxpool.Pool, opts ...migrations.Option) {
	t.Helper()
	if err := migrations.Up(t.Context(), pool, opts...); err != nil {
		t.Fatal(err)
	}
}

// latest is the version of this release.
const latest = 2

func TestMigrateUpAfterDownMakesTheSame(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema)
	version := func(want int64) {
		t.Helper()
		if v, err := migrations.Version(t.Context(), pool); v != want || err != nil {
			t.Errorf("version %d, %v, want %d", v, err, want)
		}
	}
	version(0)
	if got := pgtest.Shape(t, pool, schema); got != "" {
		t.Errorf("Version has made something: %s", got)
	}
	if err := migrations.Down(t.Context(), pool); !errors.Is(err, migrations.ErrNoneApplied) {
		t.Errorf("Down of nothing: %v", err)
	}
	migrate(t, pool)
	version(latest)
	first := pgtest.Shape(t, pool, schema)
	migrate(t, pool) // nothing to do
	list, err := migrations.Status(t.Context(), pool)
	if err != nil || len(list) != latest || list[0].Name != "00001_create_sessions.sql" {
		t.Errorf("status %+v, %v", list, err)
	}
	for i, m := range list {
		if m.Version != int64(i+1) || !m.Applied || m.AppliedAt.IsZero() {
			t.Errorf("status %+v", m)
		}
	}
	for left := int64(latest - 1); left >= 0; left-- {
		if err := migrations.Down(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		version(left)
	}
	if got := pgtest.Shape(t, pool, schema); strings.Contains(got, "scs_") {
		t.Errorf("Down has left %s", got)
	}
	migrate(t, pool)
	if got := pgtest.Shape(t, pool, schema); got != first {
		t.Errorf("up again made\n%s\ninstead of\n%s", got, first)
	}
}

// A database that the first release has made and filled; and releases that do not know the
// column write beside those that do.
func TestMigrateLabelsKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	migrate(t, pool)
	insert := func() {
		t.Helper()
		pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions (user_id, id, created_at, ip, user_agent) VALUES ('alice', gen_random_uuid(), now(), NULL, 'agent')`)
	}
	down := func() {
		t.Helper()
		if err := migrations.Down(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
	}
	down()
	insert()
	migrate(t, pool)
	insert()
	pgtest.Exec(t, pool, `UPDATE scs_user_sessions SET label = 'laptop' WHERE id = (SELECT id FROM scs_user_sessions LIMIT 1)`)
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_user_sessions WHERE label IS NULL`); n != 1 {
		t.Errorf("%d rows without a label", n)
	}
	down()
	insert()
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_user_sessions WHERE user_agent = 'agent'`); n != 3 {
		t.Errorf("%d rows are left", n)
	}
}

// Many instances of an app start at once, some with a pool of one connection.
// Most tests have pgtest make the tables.
func TestMigrateOfPgtestMakesWhatUpMakes(t *testing.T) {
	t.Parallel()
	byUp, byPgtest := pgtest.Schema(t), pgtest.Schema(t)
	up, replayed := pgtest.PoolIn(t, byUp), pgtest.PoolIn(t, byPgtest)
	migrate(t, up)
	pgtest.Distribute(t, up)
	pgtest.Migrate(t, replayed, func(ctx context.Context, pool *pgxpool.Pool) error { return migrations.Up(ctx, pool) })
	if a, b := pgtest.Shape(t, up, byUp), pgtest.Shape(t, replayed, byPgtest); a != b || a == "" {
		t.Errorf("it made\n%s\ninstead of\n%s", b, a)
	}
	const applied = `SELECT string_agg(format('%s %s %s', id, version_id, is_applied), ', ' ORDER BY id) FROM ` + migrations.VersionTable
	if a, b := pgtest.Query[string](t, up, applied), pgtest.Query[string](t, replayed, applied); a != b {
		t.Errorf("versions %s, want %s", b, a)
	}
	migrate(t, replayed) // finds nothing to do
}

func TestMigrateInEveryQueryExecMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t, pgtest.ExecMode(mode), pgtest.MaxConns(2))
			migrate(t, pool)
			migrate(t, pool)
			if list, err := migrations.Status(t.Context(), pool); err != nil || len(list) == 0 || !list[0].Applied || list[0].AppliedAt.IsZero() {
				t.Errorf("%+v, %v", list, err)
			}
			if err := migrations.Down(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMigrateOnceFromManyProcesses(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	var wg sync.WaitGroup
	for i := range 20 {
		pool := pgtest.PoolIn(t, schema, pgtest.MaxConns(int32(1+i%2)))
		wg.Go(func() {
			if err := migrations.Up(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	pool := pgtest.PoolIn(t, schema)
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM `+migrations.VersionTable+` WHERE version_id = 1`); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
}

// Another schema of the database, in the search_path or not, makes no difference.
func TestMigrateIsNotFooledByOtherSchemas(t *testing.T) {
	t.Parallel()
	has, lacks := pgtest.Schema(t), pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, has))
	pool := pgtest.PoolIn(t, "", pgtest.Param("search_path", `"`+lacks+`", "`+has+`"`))
	migrate(t, pool)
	if a, b := pgtest.Shape(t, pool, has), pgtest.Shape(t, pool, lacks); strings.ReplaceAll(a, has, "") != strings.ReplaceAll(b, lacks, "") {
		t.Errorf("%s\ndiffers from\n%s", b, a)
	}
}

func TestMigrateIntoANamedSchema(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"My-Schema " + rand.Text(), `we"ird ` + rand.Text()} {
		pool := pgtest.PoolIn(t, pgtest.Schema(t), pgtest.MaxConns(1))
		migrate(t, pool, migrations.Schema(name))
		t.Cleanup(func() { pgtest.Exec(t, pool, "DROP SCHEMA "+pgx.Identifier{name}.Sanitize()+" CASCADE") })
		migrate(t, pool, migrations.Schema(name))
		if v, err := migrations.Version(t.Context(), pool, migrations.Schema(name)); v != latest || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = $1`, name); n != 4 {
			t.Errorf("%d tables in it", n)
		}
		// A pooled connection keeps its own search_path.
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()`); n != 0 {
			t.Errorf("%d tables outside", n)
		}
		for range latest {
			if err := migrations.Down(t.Context(), pool, migrations.Schema(name)); err != nil {
				t.Error(err)
			}
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = $1`, name); n != 1 {
			t.Errorf("%d tables are left", n)
		}
	}
}

// newRole makes a role, and returns its name and the option to sign in as it.
func newRole(t *testing.T, admin *pgxpool.Pool) (role string, as pgtest.Option) {
	t.Helper()
	role = "r_" + strings.ToLower(rand.Text())
	pgtest.Exec(t, admin, `CREATE ROLE `+role+` LOGIN PASSWORD 'verysecret'`)
	t.Cleanup(func() {
		pgtest.Exec(t, admin, `DROP OWNED BY "`+role+`"`)
		pgtest.Exec(t, admin, `DROP ROLE "`+role+`"`)
	})
	return role, func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "verysecret" }
}

func TestMigrateSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	admin := pgtest.PoolIn(t, schema)
	wrong := map[string]*pgxpool.Pool{
		"read-only":                           pgtest.PoolIn(t, schema, pgtest.Param("default_transaction_read_only", "on")),
		"no schema of the search_path exists": pgtest.PoolIn(t, "no_such_schema"),
		"failed to connect":                   pgtest.PoolOn(t, "postgres://u:verysecret@127.0.0.1:1/db", ""),
	}
	if admin.Config().ConnConfig.Password != "" { // else the server takes any
		wrong["password authentication failed"] = pgtest.PoolIn(t, schema, func(c *pgxpool.Config) { c.ConnConfig.Password = "verysecret" })
	}
	for name, pool := range wrong {
		err := migrations.Up(t.Context(), pool)
		if err == nil || !strings.HasPrefix(err.Error(), "migrations: up: ") || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		} else if strings.Contains(err.Error(), "verysecret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	for _, op := range []func(context.Context, *pgxpool.Pool, ...migrations.Option) error{migrations.Up, migrations.Down} {
		if err := op(t.Context(), wrong["no schema of the search_path exists"], migrations.Schema(schema)); err != nil {
			t.Errorf("a named schema: %v", err)
		}
	}
}

// What one error lists is enough: there is no second one.
func TestMigrateListsEveryMissingPrivilege(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(t *testing.T, admin *pgxpool.Pool, schema, role string)
		run    func(ctx context.Context, pool *pgxpool.Pool, opts ...migrations.Option) error
		want   string // {} being the schema
	}{
		"nothing is there": {nil, migrations.Up, "lacks USAGE, CREATE ON SCHEMA {}: grant"},
		"a part is granted": {func(t *testing.T, admin *pgxpool.Pool, schema, role string) {
			pgtest.Exec(t, admin, `GRANT USAGE ON SCHEMA "`+schema+`" TO `+role)
		}, migrations.Up, "lacks CREATE ON SCHEMA {}: grant"},
		"another role has migrated": {func(t *testing.T, admin *pgxpool.Pool, _, _ string) { migrate(t, admin) }, migrations.Up,
			"lacks USAGE, CREATE ON SCHEMA {}; SELECT, INSERT ON {}.scspg_goose_db_version; ownership of {}.scs_sessions; " +
				"ownership of {}.scs_user_sessions; ownership of {}.scs_users: grant"},
		"another role has begun": {func(t *testing.T, admin *pgxpool.Pool, schema, role string) {
			migrate(t, admin)
			for err := error(nil); !errors.Is(err, migrations.ErrNoneApplied); {
				if err = migrations.Down(t.Context(), admin); err != nil && !errors.Is(err, migrations.ErrNoneApplied) {
					t.Fatal(err)
				}
			}
			pgtest.Exec(t, admin, `GRANT USAGE ON SCHEMA "`+schema+`" TO `+role)
		}, migrations.Up, "lacks CREATE ON SCHEMA {}; SELECT, INSERT ON {}.scspg_goose_db_version: grant"},
		"who only looks": {func(t *testing.T, admin *pgxpool.Pool, _, _ string) { migrate(t, admin) }, func(ctx context.Context, pool *pgxpool.Pool, opts ...migrations.Option) error {
			_, err := migrations.Version(ctx, pool, opts...)
			return err
		}, "lacks USAGE ON SCHEMA {}; SELECT ON {}.scspg_goose_db_version: grant"},
		"who rolls back": {func(t *testing.T, admin *pgxpool.Pool, _, _ string) { migrate(t, admin) }, migrations.Down,
			"lacks USAGE ON SCHEMA {}; SELECT, INSERT, DELETE ON {}.scspg_goose_db_version; ownership of {}.scs_sessions; " +
				"ownership of {}.scs_user_sessions; ownership of {}.scs_users: grant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, named := range [][]string{nil, {"named"}} {
				schema := pgtest.Schema(t)
				admin := pgtest.PoolIn(t, schema)
				role, as := newRole(t, admin)
				if c.before != nil {
					c.before(t, admin, schema, role)
				}
				pool, opts := pgtest.PoolIn(t, schema, as), []migrations.Option(nil)
				if named != nil {
					pool, opts = pgtest.PoolIn(t, "", as), []migrations.Option{migrations.Schema(schema)}
				}
				err := c.run(t.Context(), pool, opts...)
				want := strings.ReplaceAll("the role "+role+" "+c.want, "{}", pgtest.Query[string](t, admin, `SELECT quote_ident($1)`, schema))
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v,\nwant %s", err, want)
				}
				_, list, _ := strings.Cut(want, " lacks ")
				list, _, _ = strings.Cut(list, ": grant")
				for what := range strings.SplitSeq(list, "; ") {
					if table, ok := strings.CutPrefix(what, "ownership of "); ok {
						pgtest.Exec(t, admin, `ALTER TABLE `+table+` OWNER TO `+role)
					} else {
						pgtest.Exec(t, admin, `GRANT `+what+` TO `+role)
					}
				}
				if err := c.run(t.Context(), pool, opts...); err != nil {
					t.Errorf("with all that: %v", err)
				}
			}
		})
	}
}

func TestMigrateAsksForTheDatabaseIfTheSchemaIsMissing(t *testing.T) {
	t.Parallel()
	_, as := newRole(t, pgtest.PoolIn(t, ""))
	err := migrations.Up(t.Context(), pgtest.PoolIn(t, "", as), migrations.Schema("absent"))
	if err == nil || !strings.Contains(err.Error(), " lacks CREATE ON DATABASE postgres: grant") {
		t.Error(err)
	}
}
