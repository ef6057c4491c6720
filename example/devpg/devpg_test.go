package devpg_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/example/devpg"
)

func answer(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var one int
	return conn.QueryRow(ctx, "SELECT 1").Scan(&one)
}

// anyServer starts a server by whatever works here.
func anyServer(t *testing.T) *devpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server, err := devpg.Start(ctx, devpg.Local(devpg.Set("max_connections", "17")), devpg.Container(devpg.Set("max_connections", "17")), devpg.Download())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestStartStopLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	// The folders above must let the server's user through, too.
	for dir := filepath.Dir(tmp); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", tmp)
	server := anyServer(t)
	if err := answer(t.Context(), server.DSN); err != nil {
		t.Fatal(err)
	}
	if server.Source == "" {
		t.Error("the server does not say where it comes from")
	}
	for range 2 { // the second time is harmless
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := answer(t.Context(), server.DSN); err == nil {
		t.Error("the server still answers")
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSetReachesTheServer(t *testing.T) {
	server := anyServer(t)
	conn, err := pgx.Connect(t.Context(), server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var got string
	if err := conn.QueryRow(t.Context(), "SHOW max_connections").Scan(&got); err != nil || got != "17" {
		t.Errorf("max_connections is %q, %v", got, err)
	}
}

func TestKillAndRestartKeepTheData(t *testing.T) {
	server := anyServer(t)
	conn, err := pgx.Connect(t.Context(), server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	err = server.Kill(t.Context())
	if errors.Is(err, devpg.ErrUnsupported) {
		t.Logf("not on %s", server.Source)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := answer(t.Context(), server.DSN); err == nil {
		t.Error("a killed server answers")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err = pgx.Connect(t.Context(), server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SELECT n FROM kept"); err != nil {
		t.Error(err)
	}
}

func TestStartUsesTheFirstSourceThatWorks(t *testing.T) {
	server := anyServer(t)
	t.Setenv("DEVPG_TEST_EMPTY", "")
	t.Setenv("DEVPG_TEST_DSN", server.DSN)
	again, err := devpg.Start(t.Context(), devpg.Env("DEVPG_TEST_EMPTY"), devpg.Env("DEVPG_TEST_DSN"), devpg.Local())
	if err != nil {
		t.Fatal(err)
	}
	if again.DSN != server.DSN || !strings.Contains(again.Source, "DEVPG_TEST_DSN") {
		t.Errorf("it took %q", again.Source)
	}
	// A server that was there before stays.
	if err := again.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := answer(t.Context(), server.DSN); err != nil {
		t.Error(err)
	}
}

func TestStartSaysWhatWasTriedAndTheWaysOut(t *testing.T) {
	t.Setenv("DEVPG_TEST_EMPTY", "")
	t.Setenv("DEVPG_TEST_DEAD", "postgres://u:verysecret@127.0.0.1:1/db")
	_, err := devpg.Start(t.Context(), devpg.Env("DEVPG_TEST_EMPTY"), devpg.Env("DEVPG_TEST_DEAD"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"DEVPG_TEST_EMPTY: it is not set", "DEVPG_TEST_DEAD", "way out: set DEVPG_TEST_DEAD="} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not contain %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "verysecret") {
		t.Error("the error holds the password")
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := devpg.Start(ctx, devpg.Local(), devpg.Container()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEnvDoesNotShowAMalformedDSN(t *testing.T) {
	for _, dsn := range []string{"host=h password = s3cr3t foo", "postgres://u:s3cr3t:5432/x"} {
		t.Setenv("DEVPG_TEST_DSN", dsn)
		_, err := devpg.Start(t.Context(), devpg.Env("DEVPG_TEST_DSN"))
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("error %v", err)
		}
	}
}
