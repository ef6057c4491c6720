package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
)

// dsnOf is a DSN of the shared server, with a search_path.
func dsnOf(t testing.TB, schema string) string {
	t.Helper()
	u, err := url.Parse(pgtest.DSN(t))
	if err != nil || u.Scheme == "" {
		t.Fatal("PGSTORE_TEST_DSN has to be a URL here: postgres://user:password@host:5432/database")
	}
	q := u.Query()
	q.Set("search_path", schema)
	q.Set("application_name", schema) // for a test to tell its own connections
	u.RawQuery = q.Encode()
	return u.String()
}

// sweeperCommand is the program with no environment but the database.
func sweeperCommand(t testing.TB, pool *pgxpool.Pool, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sweeperBinary(t), args...)
	cmd.Env = []string{"DATABASE_URL=" + dsnOf(t, schemaOf(t, pool))}
	return cmd
}

// output runs a command and returns what it printed and its exit status.
func output(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestSweeperSweeps(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 3000, "-3 hours -1 minute", "")
	insertSessions(t, pool, 3000, 1000, "-2 days", "revoked")
	insertSessions(t, pool, 4000, 500, "1 hour", "")
	type summary struct {
		Rows, Expired, Revoked, Left, Batches int64
		UserRows                              int64 `json:"user_rows"`
		OrphanUserRows                        int64 `json:"orphan_user_rows"`
		OrphanUsers                           int64 `json:"orphan_users"`
		OutOfBudget                           bool  `json:"out_of_budget"`
		DryRun                                bool  `json:"dry_run"`
		Due                                   []struct {
			Kind string
			Rows int64
		}
		Relations []struct {
			Name  string
			Bytes int64
		}
	}
	run := func(status int, args ...string) (s summary) {
		t.Helper()
		stdout, stderr, got := output(t, sweeperCommand(t, pool, append(args, "-json")...))
		if got != status || stderr != "" {
			t.Fatalf("%q: status %d, %q", args, got, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), &s); err != nil {
			t.Fatalf("%v in %q", err, stdout)
		}
		return s
	}

	s := run(0, "-dry-run", "-grace", "1h")
	if s.Rows != 4000 || s.UserRows != 3000 || !s.DryRun || len(s.Due) < 2 || len(s.Relations) != 5 || s.Relations[0].Bytes == 0 {
		t.Errorf("dry run: %+v", s)
	}
	stdout, _, status := output(t, sweeperCommand(t, pool, "-dry-run", "-grace", "1h"))
	for _, want := range []string{"4000 sessions would be deleted", "revoked", "scs_sessions_sweep_at_idx", "dead rows"} {
		if !strings.Contains(stdout, want) || status != 0 {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if s := run(0); s.Rows != 1000 || s.Revoked != 1000 || s.Batches == 0 { // the default grace
		t.Errorf("%+v", s)
	}
	if s := run(3, "-grace", "1h", "-max-rows", "100", "-batch", "30"); s.Rows != 100 || s.Left != 2900 || !s.OutOfBudget {
		t.Errorf("a budget: %+v", s)
	}
	if s := run(3, "-grace", "1h", "-max-duration", "1ns"); s.Rows != 0 || s.Left != 2900 {
		t.Errorf("a budget of time: %+v", s)
	}

	// Without -json, it logs.
	stdout, stderr, status := output(t, sweeperCommand(t, pool, "-grace", "1h"))
	if status != 0 || stdout != "" || !strings.Contains(stderr, "result.rows=2900") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if sessions, userRows := left(t, pool); sessions != 500 || userRows != 375 {
		t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
	}
	leaveOrphans(t, pool)
	if s := run(0, "-orphans", "-dry-run"); s.OrphanUserRows != 1 {
		t.Errorf("a dry run for orphans: %+v", s)
	}
	if s := run(3, "-orphans", "-max-rows", "1"); s.OrphanUserRows != 1 || s.OrphanUsers != 0 || s.Left != 0 {
		t.Errorf("a budget for orphans: %+v", s)
	}
	if s := run(0, "-orphans"); s.OrphanUserRows != 0 || s.OrphanUsers != 1 {
		t.Errorf("orphans: %+v", s)
	}
	metrics := filepath.Join(t.TempDir(), "m.prom")
	stdout, stderr, status = output(t, sweeperCommand(t, pool, "-grace", "1h", "-quiet", "-metrics-file", metrics))
	if status != 0 || stdout != "" || stderr != "" {
		t.Errorf("again: status %d, %q, %q", status, stdout, stderr)
	}
	if text, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(text), "scspg_sweeper_backlog_sessions 0") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestSweeperErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	other := migrated(t)
	locked := schemaOf(t, other)
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `LOCK TABLE scs_user_sessions IN SHARE MODE`); err != nil { // as CREATE INDEX does
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		env    []string
		args   []string
		status int
		want   string
	}{
		"no database":      {nil, nil, 2, "DATABASE_URL"},
		"wrong port":       {[]string{"DATABASE_URL=postgres://app:s3cret@127.0.0.1:1/db"}, nil, 1, "connection refused"},
		"from PG*":         {[]string{"PGHOST=127.0.0.1", "PGPORT=1", "PGUSER=u", "PGPASSWORD=s3cret"}, nil, 1, "connection refused"},
		"malformed":        {nil, []string{"-dsn", "postgres://app:s3cret@127.0.0.1:port/db"}, 1, "malformed"},
		"not migrated":     {[]string{"DATABASE_URL=" + dsnOf(t, pgtest.Schema(t))}, nil, 1, "goose -dir \"$(go list -m -f '{{.Dir}}' github.com/scspg/scspg)/migrations\" -table scspg_goose_db_version postgres"},
		"no schema":        {[]string{"DATABASE_URL=" + dsnOf(t, "absent")}, nil, 1, "or name one by -schema"},
		"read-only":        {[]string{"DATABASE_URL=" + dsnOf(t, schemaOf(t, pool)) + "&default_transaction_read_only=on"}, nil, 1, "read-only"},
		"no such schema":   {[]string{"DATABASE_URL=" + pgtest.DSN(t)}, []string{"-schema", "absent"}, 1, "goose -dir \"$(go list -m -f '{{.Dir}}' github.com/scspg/scspg)/migrations\" -table scspg_goose_db_version postgres"},
		"unknown flag":     {nil, []string{"-purge"}, 2, "-purge"},
		"nowhere to write": {[]string{"DATABASE_URL=" + dsnOf(t, schemaOf(t, pool))}, []string{"-metrics-file", "/nonexistent/m"}, 2, "/nonexistent/m: no such"},
		"its own names":    {[]string{"DATABASE_URL=" + dsnOf(t, locked)}, []string{"-lock-timeout", "10ms"}, 1, "within -lock-timeout (10ms)"},
	} {
		cmd := exec.CommandContext(t.Context(), sweeperBinary(t), c.args...)
		cmd.Env = c.env
		if c.env == nil {
			cmd.Env = []string{} // else it would inherit ours
		}
		stdout, stderr, status := output(t, cmd)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "s3cret") {
			t.Errorf("%s: status %d, %q, %q", what, status, stdout, stderr)
		}
		if lines := strings.Count(stderr, "\n"); lines != c.status { // and where the flags are explained
			t.Errorf("%s: %d lines: %q", what, lines, stderr)
		}
	}
}

func TestSweeperFinishesItsBatchOnSIGTERM(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 1000, "-3 days", "")
	cmd := sweeperCommand(t, pool, "-batch", "10", "-pause", "1h", "-json")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "a batch is done", func() bool { n, _ := left(t, pool); return n < 1000 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 3 || !strings.Contains(out.String(), `"rows":10,`) || !strings.Contains(out.String(), `"left":990,`) {
		t.Errorf("status %d, %s", status, out.String())
	}
	if sessions, userRows := left(t, pool); sessions != 990 || userRows > 750 {
		t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
	}
}

// Whoever does not want to wait for the batch in hand sends another signal.
func TestASecondSignalEndsTheSweeperAtOnce(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 40, "-3 days", "")
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM scs_user_sessions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	cmd := sweeperCommand(t, pool, "-timeout", "1h", "-lock-timeout", "1h")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the sweep waits for us", func() bool {
		return pgtest.Query[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND $1::int = ANY(pg_blocking_pids(pid)))`,
			tx.Conn().PgConn().PID())
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	pgtest.Eventually(t, "it has ended", func() bool {
		select {
		case <-ended:
			return true
		default: // the first one may not have been seen yet
			_ = cmd.Process.Signal(syscall.SIGINT)
			return false
		}
	})
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
}

// Whoever looks at the status learns that rows are left.
func TestSweeperSaysThatOthersHoldRows(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 40, "-3 days", "")
	for _, table := range []string{"scs_user_sessions", "scs_sessions"} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), `SELECT FROM `+table+` WHERE user_id = 'user1' FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, status := output(t, sweeperCommand(t, pool, "-json", "-batch", "10", "-lock-timeout", "10ms"))
		if status != 3 || stderr != "" || !regexp.MustCompile(`"left":(2|10),`).MatchString(stdout) || !strings.Contains(stdout, `"out_of_budget":false`) {
			t.Errorf("%s: status %d, %s, %s", table, status, stdout, stderr)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if stdout, stderr, status := output(t, sweeperCommand(t, pool, "-json")); status != 0 || !strings.Contains(stdout, `"left":0`) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
}

// The settings of a role are nobody's mistake.
func TestSweeperReadsResultsUnderAnySettings(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 40, "-3 days", "")
	for _, args := range [][]string{{"-dry-run"}, {"-max-rows", "10"}, {"-orphans"}} {
		cmd := sweeperCommand(t, pool, append(args, "-json")...)
		cmd.Env[0] += "&" + url.Values{"datestyle": {"SQL, DMY"}, "bytea_output": {"escape"}, "intervalstyle": {"iso_8601"}, "timezone": {"Africa/Monrovia"}}.Encode()
		cmd.Env[0] = strings.ReplaceAll(cmd.Env[0], "+", "%20")
		stdout, stderr, status := output(t, cmd)
		if stderr != "" || status == 1 || !json.Valid([]byte(stdout)) {
			t.Errorf("%q: status %d, %s, %s", args, status, stdout, stderr)
		}
	}
	if n, _ := left(t, pool); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// With -interval it may be started before its database is.
func TestSweeperWaitsForItsDatabase(t *testing.T) {
	t.Parallel()
	srv := pgtest.OwnServer(t)
	pool := pgtest.PoolOn(t, srv.DSN, "")
	migrate(t, pool)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), sweeperBinary(t), "-interval", "20ms")
	cmd.Env = []string{"DATABASE_URL=" + srv.DSN}
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "it has tried", func() bool { return strings.Count(stderr.String(), "failed to connect") > 1 })
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	pgtest.Eventually(t, "they are swept", func() bool { n, _ := left(t, pool); return n == 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, stderr.String())
	}
}

// What nobody could have meant, as an expiry, is swept, and can be told.
func TestSweeperReportsWhatExpiredLongAgo(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 10, "-3 days", "")
	pgtest.Exec(t, pool, `UPDATE scs_sessions SET expiry = '-infinity'`)
	stdout, stderr, status := output(t, sweeperCommand(t, pool, "-dry-run"))
	if status != 0 || !strings.Contains(stdout, "long ago") || stderr != "" {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	stdout, stderr, status = output(t, sweeperCommand(t, pool, "-dry-run", "-json"))
	if status != 0 || !json.Valid([]byte(stdout)) || !strings.Contains(stdout, `"oldest_left":"1970-01-01T`) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	metrics := filepath.Join(t.TempDir(), "m.prom")
	if _, stderr, status := output(t, sweeperCommand(t, pool, "-max-rows", "4", "-metrics-file", metrics)); status != 3 {
		t.Errorf("status %d, %s", status, stderr)
	}
	text, err := os.ReadFile(metrics)
	if age := regexp.MustCompile(`(?m)^scspg_sweeper_oldest_expired_age_seconds (1|2)\.?\d*(e\+09|\d{9})$`); err != nil || !age.Match(text) {
		t.Errorf("%v\n%s", err, text)
	}
	if _, stderr, status := output(t, sweeperCommand(t, pool)); status != 0 || !strings.Contains(stderr, "rows=6 ") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

func TestSweeperKeepsSweeping(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	cmd := sweeperCommand(t, pool, "-interval", "20ms", "-json")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var printed sync.WaitGroup
	printed.Go(func() { _, _ = io.Copy(io.Discard, stdout) })
	for i := range 3 {
		insertSessions(t, pool, i*100, 10, "-3 days", "")
		pgtest.Eventually(t, "they are swept", func() bool { n, _ := left(t, pool); return n == 0 })
	}
	// A server that goes away is tried again.
	pgtest.Exec(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, schemaOf(t, pool))
	insertSessions(t, pool, 1000, 10, "-3 days", "")
	pgtest.Eventually(t, "they are swept", func() bool { n, _ := left(t, pool); return n == 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	printed.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Killed at any moment, it leaves no user row without its session, and no session of
// a user without its row.
func TestSweeperMayBeKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const expired, live = 25_000, 1000 // in batches of 5: many more than are swept between kills
	pool := migrated(t)
	insertSessions(t, pool, 0, expired, "-3 days", "")
	insertSessions(t, pool, expired, live, "1 hour", "")
	const orphans = `SELECT (SELECT count(*) FROM scs_user_sessions u WHERE NOT EXISTS (SELECT FROM scs_sessions s WHERE s.id = u.id)) +
		(SELECT count(*) FROM scs_sessions s WHERE user_id IS NOT NULL AND NOT EXISTS (SELECT FROM scs_user_sessions u WHERE u.id = s.id))`
	amid := 0
	last := expired + live
	for n := 0; n < 20 && last > live; n++ {
		cmd := sweeperCommand(t, pool, "-batch", "5")
		var stderr lockedBuffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		pgtest.Eventually(t, "it has begun", func() bool {
			n, _ := left(t, pool)
			select {
			case <-ended:
				if after, _ := left(t, pool); after == last {
					t.Fatalf("it has ended by itself, and left %d: %s", last, stderr.String())
				}
			default:
			}
			return n < last
		})
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		<-ended
		if n := pgtest.Query[int](t, pool, orphans); n != 0 {
			t.Fatalf("%d rows without the other", n)
		}
		n, _ := left(t, pool)
		if n < last && n > live {
			amid++
		}
		last = n
	}
	if amid < 10 {
		t.Errorf("only %d of 20 kills came in the middle of a sweep", amid)
	}
	stdout, stderr, status := output(t, sweeperCommand(t, pool, "-json"))
	if status != 0 || !strings.Contains(stdout, fmt.Sprintf(`{"rows":%d,`, last-live)) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	if n, _ := left(t, pool); n != live || pgtest.Query[int](t, pool, orphans) != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
