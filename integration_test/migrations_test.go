package integration_test

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// shape describes every table, index and constraint of a schema.
func shape(t testing.TB, pool *pgxpool.Pool, schema string) string {
	t.Helper()
	text := query[*string](t, pool, `SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT c.relname || ' ' || c.relkind::text || ' ' || coalesce(c.reloptions::text, '') AS line
			FROM pg_class c WHERE c.relnamespace = $1::text::regnamespace
		UNION ALL SELECT format('%s.%s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
				a.attgenerated, co.collname, pg_get_expr(d.adbin, d.adrelid))
			FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation co ON co.oid = a.attcollation
			LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r' AND a.attnum > 0
		UNION ALL SELECT replace(pg_get_indexdef(i.indexrelid), $2, '')
			FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = $1::text::regnamespace
		UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = $1::text::regnamespace
	) lines`, pgx.Identifier{schema}.Sanitize(), schema+".")
	if text == nil {
		return ""
	}
	return *text
}

func TestMigrateUpDownUp(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	pool := newPool(t, schema)
	version := func(want int64) {
		t.Helper()
		if v, err := migrations.Version(t.Context(), pool); v != want || err != nil {
			t.Errorf("version %d, %v, want %d", v, err, want)
		}
	}
	version(0)
	if got := shape(t, pool, schema); got != "" {
		t.Errorf("Version has made something: %s", got)
	}
	if err := migrations.Down(t.Context(), pool); !errors.Is(err, migrations.ErrNoneApplied) {
		t.Errorf("Down of nothing: %v", err)
	}
	migrate(t, pool)
	version(1)
	first := shape(t, pool, schema)
	migrate(t, pool) // nothing to do
	list, err := migrations.Status(t.Context(), pool)
	if err != nil || len(list) != 1 || !list[0].Applied || list[0].AppliedAt.IsZero() || list[0].Name != "00001_create_sessions.sql" {
		t.Errorf("status %+v, %v", list, err)
	}
	if err := migrations.Down(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	version(0)
	if got := shape(t, pool, schema); strings.Contains(got, "scs_") {
		t.Errorf("Down has left %s", got)
	}
	migrate(t, pool)
	if got := shape(t, pool, schema); got != first {
		t.Errorf("up again made\n%s\ninstead of\n%s", got, first)
	}
}

// Many instances of an app start at once, some with a pool of one connection.
func TestMigrateFromManyProcessesAtOnce(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	var wg sync.WaitGroup
	for i := range 20 {
		pool := newPool(t, schema, maxConns(int32(1+i%2)))
		wg.Go(func() {
			if err := migrations.Up(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	pool := newPool(t, schema)
	if n := query[int](t, pool, `SELECT count(*) FROM `+migrations.VersionTable+` WHERE version_id = 1`); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
}

// Another schema of the database, in the search_path or not, makes no difference.
func TestMigrateIsNotFooledByOtherSchemas(t *testing.T) {
	t.Parallel()
	has, lacks := newSchema(t), newSchema(t)
	migrate(t, newPool(t, has))
	pool := newPool(t, "", param("search_path", lacks+", "+has))
	migrate(t, pool)
	if a, b := shape(t, pool, has), shape(t, pool, lacks); strings.ReplaceAll(a, has, "") != strings.ReplaceAll(b, lacks, "") {
		t.Errorf("%s\ndiffers from\n%s", b, a)
	}
}

func TestMigrateIntoANamedSchema(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"My-Schema " + rand.Text(), `we"ird ` + rand.Text()} {
		pool := newPool(t, newSchema(t), maxConns(1))
		migrate(t, pool, migrations.Schema(name))
		t.Cleanup(func() { dropSchema(t, name) })
		migrate(t, pool, migrations.Schema(name))
		if v, err := migrations.Version(t.Context(), pool, migrations.Schema(name)); v != 1 || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		if n := query[int](t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = $1`, name); n != 4 {
			t.Errorf("%d tables in it", n)
		}
		// A pooled connection keeps its own search_path.
		if n := query[int](t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()`); n != 0 {
			t.Errorf("%d tables outside", n)
		}
		a := newApp(t, pool, pgstore.Config{Schema: name, UserLimit: 1}, true)
		b := a.browser(t)
		b.must("/login", "user", "alice")
		a.browser(t).must("/login", "user", "alice")
		if b.user() != "" {
			t.Error("the limit did not hold")
		}
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if _, err := a.store.Overview(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if err := migrations.Down(t.Context(), pool, migrations.Schema(name)); err != nil {
			t.Error(err)
		}
	}
}

func TestMigrateSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	admin := newPool(t, schema)
	role := strings.ReplaceAll(schema, "t_", "r_")
	mustExec(t, admin, `CREATE ROLE `+role+` LOGIN PASSWORD 'verysecret'`)
	mustExec(t, admin, `GRANT USAGE ON SCHEMA `+schema+` TO `+role)
	t.Cleanup(func() {
		mustExec(t, adminPool(t), `DROP OWNED BY `+role)
		mustExec(t, adminPool(t), `DROP ROLE `+role)
	})
	asRole := func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "verysecret" }
	wrong := map[string]*pgxpool.Pool{
		"may not do this":              newPool(t, schema, asRole),
		"read-only":                    newPool(t, schema, param("default_transaction_read_only", "on")),
		"no schema of the search_path": newPool(t, "no_such_schema"),
		"failed to connect":            newPoolOn(t, "postgres://u:verysecret@127.0.0.1:1/db", ""),
	}
	if admin.Config().ConnConfig.Password != "" { // else the server takes any
		wrong["password authentication failed"] = newPool(t, schema, func(c *pgxpool.Config) { c.ConnConfig.Password = "verysecret" })
	}
	for name, pool := range wrong {
		err := migrations.Up(t.Context(), pool)
		if err == nil || !strings.HasPrefix(err.Error(), "migrations: up: ") || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		} else if strings.Contains(err.Error(), "verysecret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

// goose's own command, on the files as they are, makes the same schema.
func TestGooseCommandMakesTheSameSchema(t *testing.T) {
	t.Parallel()
	goose := filepath.Join(t.TempDir(), "goose")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_turso no_vertica no_ydb no_duckdb no_spanner no_starrocks", "-o", goose, "github.com/pressly/goose/v3/cmd/goose")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	build.Dir = gooseModule(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	byCommand, byCall := newSchema(t), newSchema(t)
	pool := newPool(t, byCall)
	migrate(t, pool)
	separator := "?"
	if strings.Contains(server.DSN, "?") {
		separator = "&"
	}
	run := exec.CommandContext(t.Context(), goose, "-dir", "../migrations", "-table", migrations.VersionTable,
		"postgres", server.DSN+separator+"search_path="+byCommand, "up")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if a, b := shape(t, pool, byCall), shape(t, pool, byCommand); a != b || a == "" {
		t.Errorf("the command made\n%s\ninstead of\n%s", b, a)
	}
	if dump, err := exec.LookPath("pg_dump"); err == nil {
		a, errA := dumpSchema(t, dump, byCall)
		b, errB := dumpSchema(t, dump, byCommand)
		if errA != nil || errB != nil {
			t.Logf("pg_dump does not suit this server: %v", errors.Join(errA, errB))
		} else if a != b {
			t.Errorf("pg_dump -s differs:\n%s\n%s", a, b)
		}
	}
}

// gooseModule is a module in which goose's command can be built: what it needs must
// not get into ours.
func gooseModule(t *testing.T) string {
	dir := t.TempDir()
	mod := "module gooseonly\n\ngo 1.26.0\n\nrequire github.com/pressly/goose/v3 v3.29.0\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func dumpSchema(t *testing.T, dump, schema string) (string, error) {
	out, err := exec.CommandContext(t.Context(), dump, "--schema-only", "--schema", schema, "--dbname", server.DSN).Output()
	text := strings.ReplaceAll(string(out), schema, "schema")
	// Newer releases guard each dump with a random key.
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(text, ""), err
}
