package integration_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

func TestStoreWorksBehindPgBouncerInTransactionMode(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	dsn := startPgBouncer(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		pool := pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(mode))
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

// Who left pgx in its default mode learns which setting mends it.
func TestErrorsBehindPgBouncerNameTheQueryMode(t *testing.T) {
	t.Parallel()
	dsn, schema := startPgBouncer(t), pgtest.Schema(t)
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
	dsn, schema := startPgBouncer(t), pgtest.Schema(t)
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

// startPgBouncer runs one in transaction mode before the test server.
func startPgBouncer(t *testing.T) (dsn string) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			skip(t, "pgbouncer is not installed")
		}
	}
	target, err := pgx.ParseConfig(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := freePort(t)
	password := "" // where the server asks for none
	if target.Password != "" {
		password = " password=" + target.Password
	}
	config := fmt.Sprintf("[databases]\ntest = host=%s port=%d dbname=%s user=%s%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 5\nmax_client_conn = 200\nunix_socket_dir =\n",
		target.Host, target.Port, target.Database, target.User, password, port)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, file)
	cmd.SysProcAttr = notRoot(t)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	dsn = fmt.Sprintf("postgres://%s@127.0.0.1:%d/test?sslmode=disable", url.PathEscape(target.User), port)
	pgtest.Eventually(t, "pgbouncer answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("pgbouncer ended: %s", out.String())
		default:
		}
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return false
		}
		defer conn.Close(ctx)
		return conn.Ping(ctx) == nil
	})
	return dsn
}

// notRoot is how a program runs that refuses root.
func notRoot(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, errUID := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(nobody.Gid, 10, 32)
	if errUID != nil || errGID != nil {
		t.Fatal(errUID, errGID)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
