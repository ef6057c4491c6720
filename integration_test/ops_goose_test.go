package integration_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

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
	byCommand, byCall := pgtest.Schema(t), pgtest.Schema(t)
	pool := pgtest.PoolIn(t, byCall)
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	separator := "?"
	if strings.Contains(pgtest.DSN(t), "?") {
		separator = "&"
	}
	run := exec.CommandContext(t.Context(), goose, "-dir", "../migrations", "-table", migrations.VersionTable,
		"postgres", pgtest.DSN(t)+separator+"search_path="+byCommand, "up")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if a, b := pgtest.Shape(t, pool, byCall), pgtest.Shape(t, pool, byCommand); a != b || a == "" {
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
	out, err := exec.CommandContext(t.Context(), dump, "--schema-only", "--schema", schema, "--dbname", pgtest.DSN(t)).Output()
	text := strings.ReplaceAll(string(out), schema, "schema")
	// Newer releases guard each dump with a random key.
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(text, ""), err
}
