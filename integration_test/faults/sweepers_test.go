//go:build linux

package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
)

// buildSweeper builds it as a release would.
func buildSweeper(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults-sweeper-")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Guard(t, "rm -r "+dir)
	program := filepath.Join(dir, "sweeper")
	cmd := exec.Command("go", "build", "-o", program, "../../cmd/sweeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// sweep starts a sweeper. It dies with us.
func sweep(t *testing.T, program string, s *server, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-quiet", "-pause", "1ns", "-batch", "50"}, args...)...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+s.DSN)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.GuardProcess(t, cmd, program)
	return cmd
}

// expire adds n sessions that expired long ago, of some of the clients' users and others.
func expire(t *testing.T, pool *pgxpool.Pool, n int, user string) {
	t.Helper()
	pgtest.Exec(t, pool, `WITH s AS (INSERT INTO scs_sessions (id, user_id, data, expiry)
			SELECT gen_random_uuid(), `+user+`, '\x0001', now() - interval '3 days' FROM generate_series(1, $1::int) n RETURNING user_id, id)
		INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM s`, n)
}

func expired(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE expiry < now() - interval '1 day'`)
}

// sweeperKilled kills a sweeper at its work, then the server under another, which goes on
// when that is back. A third one finds nothing left.
func sweeperKilled(t *testing.T, j *judgement) {
	const many = 40_000
	program, s := buildSweeper(t), newServer(t)
	b := newBed(t, j, s)
	pool := pgtest.PoolOn(t, s.DSN, "")
	expire(t, pool, many, `'gone' || n / 3`)
	pool.Close()
	b.run(t, nodeConfig{DSN: appDSN(t, s.DSN)})
	atWork := func() *exec.Cmd {
		pool := pgtest.PoolOn(t, s.DSN, "")
		defer pool.Close()
		before := expired(t, pool)
		cmd := sweep(t, program, s)
		pgtest.Eventually(t, "the sweeper is at work", func() bool { return expired(t, pool) < before })
		return cmd
	}
	first := atWork()
	_ = first.Process.Kill()
	_ = first.Wait()
	second := atWork()
	s.kill(t)
	b.healed()
	s.restart(t)
	if err := second.Wait(); err != nil {
		t.Errorf("a sweeper whose server was gone for a moment: %v", err)
	}
	pool = pgtest.PoolOn(t, s.DSN, "")
	if err := sweep(t, program, s).Wait(); err != nil {
		t.Error(err)
	}
	if n := expired(t, pool); n != 0 {
		t.Errorf("%d expired sessions are left in the end", n)
	}
	pool.Close()
	b.finish(t)
}

// twoSweepers has two of them delete old sessions of users who are signing in.
func twoSweepers(t *testing.T, j *judgement) {
	program, s := buildSweeper(t), newServer(t)
	b := onServer(t, j, s)
	sweepers := []*exec.Cmd{sweep(t, program, s, "-interval", "50ms"), sweep(t, program, s, "-interval", "50ms", "-orphans")}
	pool := pgtest.PoolOn(t, s.DSN, "")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		expire(t, pool, 30, `'user' || n % 3`)
	}
	b.healed()
	pgtest.Eventually(t, "all is swept", func() bool { return expired(t, pool) == 0 })
	for _, cmd := range sweepers {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	pool.Close()
	b.finish(t)
}
