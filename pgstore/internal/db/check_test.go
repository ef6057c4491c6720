package db_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
)

// columns are those of the tables, as table.column.
func columns(t *testing.T, x *tables) []string {
	return pgtest.Query[[]string](t, x.pool, `SELECT array_agg(table_name || '.' || column_name ORDER BY table_name, ordinal_position)
		FROM information_schema.columns WHERE table_schema = current_schema() AND table_name IN ('scs_sessions', 'scs_user_sessions', 'scs_users')`)
}

func TestCheckFindsNothingWhereAllIsWell(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		schema := pgtest.Query[string](t, x.pool, `SELECT current_schema()`)
		for _, d := range []*db.DB{x.DB, db.New(x.pool, schema, time.Minute, 1, func() {})} {
			if f, err := d.Check(t.Context()); err != nil || fmt.Sprint(f) != fmt.Sprint(db.Faults{}) {
				t.Errorf("%+v, %v", f, err)
			}
		}
	})
}

func TestCheckMissesEachTableAndColumn(t *testing.T) {
	t.Parallel()
	x := open(t)
	all := columns(t, x)
	if len(all) != 16 {
		t.Fatalf("the test knows of 16 columns: %q", all)
	}
	for _, column := range all {
		table, name, _ := strings.Cut(column, ".")
		pgtest.Exec(t, x.pool, `ALTER TABLE `+table+` RENAME COLUMN `+name+` TO other`)
		if f, err := x.Check(t.Context()); err != nil || fmt.Sprint(f.Missing, f.Grants) != "["+column+"] []" {
			t.Errorf("%s: %+v, %v", column, f, err)
		}
		pgtest.Exec(t, x.pool, `ALTER TABLE `+table+` RENAME COLUMN other TO `+name)
	}
	pgtest.Exec(t, x.pool, `ALTER TABLE scs_user_sessions DROP COLUMN label`) // which leaves a trace in the catalog
	pgtest.Exec(t, x.pool, `DROP TABLE scs_users`)
	if f, err := x.Check(t.Context()); err != nil || fmt.Sprint(f.Missing) != "[scs_user_sessions.label scs_users]" {
		t.Errorf("%+v, %v", f, err)
	}
}

// The privileges that Check asks for are those that the statements need: with just these they
// all run, and without any one of them, one does not.
func TestCheckAsksForJustThePrivilegesThatAreUsed(t *testing.T) {
	t.Parallel()
	x := open(t)
	schema := pgtest.Query[string](t, x.pool, `SELECT current_schema()`)
	role := "r_" + schema
	pgtest.Exec(t, x.pool, `CREATE ROLE `+role+` LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		pgtest.Exec(t, x.pool, `DROP OWNED BY `+role)
		pgtest.Exec(t, x.pool, `DROP ROLE `+role)
	})
	pgtest.Exec(t, x.pool, `GRANT USAGE ON SCHEMA "`+schema+`" TO `+role)
	as := func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "secret" }
	d := db.New(pgtest.PoolIn(t, schema, as), "", time.Minute, 1, func() {})
	lacks := func() string {
		t.Helper()
		f, err := d.Check(t.Context())
		if err != nil || len(f.Missing) > 0 {
			t.Fatalf("%+v, %v", f, err)
		}
		return strings.Join(f.Grants, "; ")
	}

	if got, want := lacks(), fmt.Sprintf(`GRANT INSERT, SELECT, UPDATE ON %[1]s.scs_sessions TO %[2]s; `+
		`GRANT DELETE, INSERT, SELECT, UPDATE ON %[1]s.scs_user_sessions TO %[2]s; `+
		`GRANT DELETE, INSERT, SELECT, UPDATE ON %[1]s.scs_users TO %[2]s`, schema, role); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	type privilege struct{ what, on string }
	var used []privilege
	for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
		if table != "scs_sessions" {
			pgtest.Exec(t, x.pool, `GRANT DELETE ON `+table+` TO `+role)
			used = append(used, privilege{"DELETE", table})
		}
	}
	for _, column := range columns(t, x) {
		table, name, _ := strings.Cut(column, ".")
		for _, what := range []string{"SELECT", "INSERT", "UPDATE"} {
			p := privilege{what + " (" + name + ")", table}
			pgtest.Exec(t, x.pool, `GRANT `+p.what+` ON `+p.on+` TO `+role)
			used = append(used, p)
		}
	}
	if got := lacks(); got != "" {
		t.Fatalf("with every column of every table it lacks %s", got)
	}
	if err := everything(t, d); err != nil {
		t.Fatal(err)
	}
	for _, p := range used {
		pgtest.Exec(t, x.pool, `REVOKE `+p.what+` ON `+p.on+` FROM `+role)
		pgtest.Exec(t, x.pool, `TRUNCATE scs_sessions, scs_user_sessions, scs_users`)
		err := everything(t, d)
		if code := pgfault.Code(err); err != nil && code != pgfault.InsufficientPrivilege {
			t.Fatalf("without %v: %v", p, err)
		}
		if got := lacks(); (got != "") != (err != nil) {
			t.Errorf("without %v: Check asks for %q, and the statements say %v", p, got, err)
		}
		if err != nil { // else it stays without
			pgtest.Exec(t, x.pool, `GRANT `+p.what+` ON `+p.on+` TO `+role)
		}
	}
}
