package pgstore_test

import (
	"crypto/rand"
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
