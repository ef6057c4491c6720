package integration_test

import (
	"context"
	"crypto/rand"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// as lets a pool sign in as somebody else.
func as(user, password string) pgtest.Option {
	return func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = user, password }
}

// grantRoles makes the two roles, and grants them what a file says.
func grantRoles(t *testing.T, file, schema string) (app, sweeper pgtest.Option) {
	t.Helper()
	admin, password := pgtest.PoolIn(t, ""), rand.Text()
	names := []string{"app_" + strings.ToLower(rand.Text()), "sweeper_" + strings.ToLower(rand.Text())}
	for _, name := range names {
		pgtest.Exec(t, admin, "CREATE ROLE "+name+" LOGIN PASSWORD '"+password+"'")
		t.Cleanup(func() {
			pgtest.Exec(t, admin, "DROP OWNED BY "+name)
			pgtest.Exec(t, admin, "DROP ROLE "+name)
		})
	}
	// What psql does with its variables.
	sql := strings.NewReplacer(`:"schema"`, pgx.Identifier{schema}.Sanitize(), `:"app"`, names[0], `:"sweeper"`, names[1]).Replace(deployFile(t, file))
	sql = regexp.MustCompile(`(?ms)^\\if .*?^\\endif$`).ReplaceAllString(sql, "") // they are set
	sql = regexp.MustCompile(`(?m)^\\.*$`).ReplaceAllString(sql, "")
	pgtest.Exec(t, admin, sql)
	return as(names[0], password), as(names[1], password)
}

// refused checks that a role may not do something.
func refused(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		_, err := pool.Exec(context.WithoutCancel(t.Context()), sql)
		if err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestRolesHaveJustWhatTheyNeed(t *testing.T) {
	t.Parallel()
	owner := migrated(t)
	schema := schemaOf(t, owner)
	app, sweeper := grantRoles(t, "roles.sql", schema)
	pool := pgtest.PoolIn(t, schema, app)

	// All that the store does.
	store := newStore(t, pool, pgstore.Config{UserLimit: 2})
	b, c := newDevice(t, store), newDevice(t, store)
	b.signIn("alice")
	b.put("k", "v")
	b.must(b.sm.RenewToken)
	for range 3 {
		c.signIn("alice")
	}
	c.must(c.sm.Destroy)
	newDevice(t, store).put("k", "v")
	sessions, err := store.Sessions(t.Context(), "alice")
	if err != nil || len(sessions) == 0 {
		t.Fatalf("%v, %v", sessions, err)
	}
	if ok, err := store.Revoke(t.Context(), "alice", sessions[0].ID); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if _, err := store.Forget(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if _, err := store.Overview(t.Context()); err != nil {
		t.Error(err)
	}
	for _, err := range store.Each(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := store.AllCtx(t.Context()); err != nil {
		t.Error(err)
	}
	if err := store.Check(t.Context()); err != nil {
		t.Error(err)
	}
	refused(t, pool, `DELETE FROM scs_sessions`, `TRUNCATE scs_sessions`, `DROP TABLE scs_users`,
		`ALTER TABLE scs_sessions ADD COLUMN x int`, `CREATE TABLE x (y int)`, `SELECT * FROM scspg_goose_db_version`)

	// All that the sweeper does, on both paths.
	pool = pgtest.PoolIn(t, schema, sweeper)
	for _, path := range []string{"fast", "portable"} {
		insertSessions(t, owner, 0, 100, "-3 days", "")
		leaveOrphans(t, owner)
		if path == "portable" {
			pgtest.Exec(t, owner, `CREATE TABLE pg_dist_partition AS SELECT 'scs_sessions'::regclass AS logicalrelid`)
			pgtest.Exec(t, owner, `GRANT SELECT ON pg_dist_partition TO PUBLIC`)
		}
		report, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{Orphans: true})
		if err != nil || report.Total.OrphanUserRows != 1 || len(report.Relations) != 5 {
			t.Errorf("%s: %+v, %v", path, report, err)
		}
		if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 30}); err != nil || r.Rows() != 100 || r.UserRows != 75 {
			t.Errorf("%s: %+v, %v", path, r, err)
		}
		if path == "portable" {
			continue // there, orphans go a minute after they were found
		}
		if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Orphans: true}); err != nil || r.OrphanUserRows != 1 || r.OrphanUsers != 1 {
			t.Errorf("%s: %+v, %v", path, r, err)
		}
	}
	refused(t, pool, `SELECT data FROM scs_sessions`, `SELECT * FROM scs_sessions`, `SELECT ip FROM scs_user_sessions`,
		`INSERT INTO scs_users VALUES ('x')`, `UPDATE scs_users SET fence = '-infinity'`, `UPDATE scs_sessions SET expiry = now()`, `UPDATE scs_sessions SET user_id = 'x'`,
		`INSERT INTO scs_sessions (id) VALUES (NULL)`, `UPDATE scs_user_sessions SET ip = NULL`,
		`TRUNCATE scs_sessions`, `TRUNCATE scs_users`)

	// Without its rights, the sweep says so.
	pgtest.Exec(t, owner, `REVOKE ALL ON ALL TABLES IN SCHEMA `+schema+` FROM `+pool.Config().ConnConfig.User)
	if _, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{}); err == nil || !strings.Contains(err.Error(), "lacks a privilege") {
		t.Error(err)
	}
}

func TestRolesOfCitusLetTheSweeperSweep(t *testing.T) {
	t.Parallel()
	owner := migrated(t)
	schema := schemaOf(t, owner)
	pgtest.Exec(t, owner, `CREATE TABLE pg_dist_partition AS SELECT 'scs_sessions'::regclass AS logicalrelid`)
	pgtest.Exec(t, owner, `GRANT SELECT ON pg_dist_partition TO PUBLIC`)
	_, sweeper := grantRoles(t, "roles_citus.sql", schema)
	pool := pgtest.PoolIn(t, schema, sweeper)
	insertSessions(t, owner, 0, 100, "-3 days", "")
	leaveOrphans(t, owner)
	if report, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{Orphans: true}); err != nil || report.Total.OrphanUserRows != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 30}); err != nil || r.Rows() != 100 || r.UserRows != 75 {
		t.Errorf("%+v, %v", r, err)
	}
	refused(t, pool, `INSERT INTO scs_users VALUES ('x')`, `UPDATE scs_users SET fence = '-infinity'`, `UPDATE scs_sessions SET expiry = now()`,
		`INSERT INTO scs_sessions (id) VALUES (NULL)`, `UPDATE scs_user_sessions SET ip = NULL`, `TRUNCATE scs_sessions`, `SELECT * FROM scspg_goose_db_version`)
}
