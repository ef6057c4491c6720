package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// everything uses every operation once.
func everything(t *testing.T, pool *pgxpool.Pool, cfg pgstore.Config) {
	t.Helper()
	cfg.UserLimit = 2
	store := newStore(t, pool, cfg)
	first, second, third := newDevice(t, store), newDevice(t, store), newDevice(t, store)
	first.put("cart", "1")
	for _, d := range []*device{first, second, third} {
		d.signIn("alice")
	}
	if first.user() != "" || second.user() != "alice" {
		t.Error("the limit did not hold")
	}
	second.must(second.sm.RenewToken)
	second.put(userKey, "bob")
	second.put(userKey, "alice")
	if n, err := store.RevokeOthers(t.Context(), "alice", second.token); n != 1 || err != nil {
		t.Errorf("%d revoked, %v", n, err)
	}
	// Where an answer is slow to arrive, a sign-in that begins soon after a fence is refused.
	users := pgx.Identifier{"scs_users"}
	if cfg.Schema != "" {
		users = pgx.Identifier{cfg.Schema, "scs_users"}
	}
	pgtest.Exec(t, pool, `UPDATE `+users.Sanitize()+` SET fence = fence - interval '1 hour'`)
	if list, err := store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || !list[0].IP.IsValid() {
		t.Errorf("%+v, %v", list, err)
	}
	if ok, err := store.Revoke(t.Context(), "alice", pgstore.IDOf(second.token)); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	third.signIn("alice")
	if o, err := store.Overview(t.Context()); err != nil || o.Live != 1 || o.SignedIn != 1 || o.Users != 1 || o.Estimated {
		t.Errorf("%+v, %v", o, err)
	}
	if err := store.Check(t.Context()); err != nil {
		t.Error(err)
	}
	n := 0
	for s, err := range store.Each(t.Context()) {
		if n++; err != nil || s.UserID != "alice" || s.CreatedAt.IsZero() {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if all, err := store.All(); err != nil || len(all) != n || n != 1 {
		t.Errorf("%d in all, %d seen, %v", len(all), n, err)
	}
	third.must(third.sm.Destroy)
	third.signIn("alice")
	if n, err := store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := store.Forget(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
}

// What the README says of each mode, and no more.
func TestStoreWorksBehindPgBouncerInTheModesThatTheReadmeNames(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	dsn, tracks := startPgBouncer(t)
	said := modesInReadme(t, tracks)
	if err := migrations.Up(t.Context(), pgtest.PoolIn(t, ""), migrations.Schema(schema)); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		pool := pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(mode))
		if !said[mode.String()] {
			// Its next transaction is on another server connection.
			_, _, err := newStore(t, pool, pgstore.Config{Schema: schema}).Find("token")
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "26000" && pgErr.Code != "08P01" {
				t.Errorf("%v: error %v, want one of a statement that is not there, or is another", mode, err)
			}
			continue
		}
		if err := migrations.Up(t.Context(), pool, migrations.Schema(schema)); err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
		everything(t, pool, pgstore.Config{Schema: schema})

		atOnce(t, schema, dsn, mode)

		before := pgtest.Query[int](t, pool, `SELECT count(*) FROM `+schema+`.scs_sessions`)
		pgtest.Exec(t, pool, `UPDATE `+schema+`.scs_sessions SET expiry = now() - interval '3 days'`)
		r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Schema: schema, Batch: 3})
		if err != nil || r.Rows() != int64(before) || before == 0 || r.Left != 0 {
			t.Errorf("%v: %+v of %d, %v", mode, r, before, err)
		}
	}
}

// modesInReadme is which modes work, by the README's table.
func modesInReadme(t *testing.T, tracks bool) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	works := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`.*\\| (works|fails) \\| (works|fails) \\|$").FindAllSubmatch(text, -1) {
		works[strings.ReplaceAll(string(row[1]), "_", " ")] = string(row[2]) == "works" && !tracks || string(row[3]) == "works" && tracks
	}
	if len(works) != 5 {
		t.Fatalf("the README's table has %d modes", len(works))
	}
	return works
}

// Who left pgx in its default mode learns which setting mends it.
func TestErrorsBehindPgBouncerNameTheQueryMode(t *testing.T) {
	t.Parallel()
	dsn, tracks := startPgBouncer(t)
	if tracks {
		t.Skip("it tracks prepared statements: nothing is wrong")
	}
	schema := pgtest.Schema(t)
	if err := migrations.Up(t.Context(), pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(pgx.QueryExecModeExec)), migrations.Schema(schema)); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(pool *pgxpool.Pool) error{
		"migrations": func(pool *pgxpool.Pool) error {
			return migrations.Up(t.Context(), pool, migrations.Schema(schema))
		},
		"pgstore": func(pool *pgxpool.Pool) error {
			_, _, err := newStore(t, pool, pgstore.Config{Schema: schema}).FindCtx(t.Context(), "token")
			return err
		},
		"cleanup": func(pool *pgxpool.Pool) error {
			_, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Schema: schema})
			return err
		},
	} {
		// Each client prepares the same statements, on the same few connections.
		var err error
		for n := 0; n < 20 && err == nil; n++ {
			err = run(pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(pgx.QueryExecModeCacheStatement), pgtest.MaxConns(1)))
		}
		if err == nil || !strings.Contains(err.Error(), "set default_query_exec_mode=cache_describe in the DSN") {
			t.Errorf("%s: %v", name, err)
		}
	}
	sweep := exec.CommandContext(t.Context(), sweeperBinary(t), "-schema", schema, "-dry-run")
	sweep.Env = []string{"DATABASE_URL=" + dsn}
	if stdout, stderr, status := output(t, sweep); status != 0 {
		t.Errorf("the sweeper has a mode of its own: status %d, %s%s", status, stdout, stderr)
	}
}

// atOnce has requests of many browsers share round trips.
func atOnce(t *testing.T, schema, dsn string, mode pgx.QueryExecMode) {
	t.Helper()
	var gate pgtest.Gate
	pool := pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(mode), pgtest.MaxConns(3), gate.Option())
	store := newStore(t, pool, pgstore.Config{Schema: schema, TouchAfter: 1, MaxBatch: 64})
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			d, name := newDevice(t, store), fmt.Sprintf("user%d of %v", n, mode)
			d.signIn(name)
			for range 10 {
				d.put("k", fmt.Sprint(n))
				if got := d.user(); got != name {
					t.Errorf("%q, want %q", got, name)
				}
			}
		})
	}
	wg.Wait()
	for _, text := range []string{"ANY(ARRAY[$1, $2", "'synchronous_commit', 'off', true), set_config('lock_timeout'"} {
		if !slices.ContainsFunc(gate.Trips(), func(trip pgtest.Trip) bool { return strings.Contains(strings.Join(trip.SQL, "\n"), text) }) {
			t.Errorf("%v: no trip with %s", mode, text)
		}
	}
	if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM `+schema+`.scs_sessions WHERE user_id LIKE 'user%'`); n < 16 {
		t.Errorf("%d sessions", n)
	}
}

// Many instances start at once, and the pooler has fewer connections than they are.
func TestMigrateOnceFromManyProcessesBehindPgBouncer(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	dsn, _ := startPgBouncer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 20 {
		pool := pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(pgx.QueryExecModeExec))
		wg.Go(func() {
			if err := migrations.Up(ctx, pool, migrations.Schema(schema)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := pgtest.Query[int](t, pgtest.PoolIn(t, ""), `SELECT count(*) FROM `+schema+`.`+migrations.VersionTable+` WHERE version_id = 1`); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
}

// startPgBouncer runs one before the test server.
func startPgBouncer(t *testing.T) (dsn string, tracks bool) {
	t.Helper()
	b := pgtest.PgBouncer{Program: os.Getenv("PGSTORE_TEST_PGBOUNCER"), Servers: 5}
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil && b.Program == "" {
			b.Program = path
		}
	}
	if b.Program == "" {
		skip(t, "pgbouncer is not installed")
	}
	server, err := pgx.ParseConfig(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("host=%s port=%d user=test dbname=test", b.Start(t, server), pgtest.PgBouncerPort), b.Tracks(t)
}
