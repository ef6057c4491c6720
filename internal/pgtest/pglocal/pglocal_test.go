package pglocal_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Where this is set, the test program starts a server and waits to be killed.
const envVictim = "PGLOCAL_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) == "" {
		os.Exit(m.Run())
	}
	s, err := pglocal.Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.DSN)
	select {}
}

func start(t *testing.T, settings ...string) *pglocal.Server {
	t.Helper()
	s, err := pglocal.Start(t.Context(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStopLeavesNothing(t *testing.T) {
	tmp := openTemp(t)
	s := start(t)
	for range 2 { // the second time is harmless
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := pglocal.Ping(t.Context(), s.DSN); err == nil {
		t.Error("the server still answers")
	}
	if n := entries(t, tmp); n > 0 {
		t.Errorf("it left %d files", n)
	}
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	tmp := openTemp(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), envVictim+"=1"), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dsn, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dsn = strings.TrimSpace(dsn)
	if err := pglocal.Ping(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(time.Minute); entries(t, tmp) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it left files")
		}
	}
	if err := pglocal.Ping(t.Context(), dsn); err == nil {
		t.Error("the server still answers")
	}
}

func TestRestartAfterKillKeepsTheData(t *testing.T) {
	t.Parallel()
	s := start(t)
	exec := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), s.DSN)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE kept (n int)")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := pglocal.Ping(t.Context(), s.DSN); err == nil {
		t.Error("a killed server answers")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec("SELECT n FROM kept")
}

// openTemp makes a TMPDIR that the server's user gets through to.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pglocal-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	return dir
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	return len(left)
}
