package pgtest

import (
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestPoolWorksInASchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := Pool(t), Pool(t)
	Exec(t, a, "CREATE TABLE mine (n int)")
	if Query[*string](t, b, "SELECT to_regclass('mine')::text") != nil {
		t.Error("two tests share a schema")
	}
}

func TestSchemaIsDroppedWithTheTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("", func(t *testing.T) {
		name = Schema(t)
		Exec(t, PoolIn(t, name), "CREATE TABLE mine (n int)")
	})
	if Query[*string](t, PoolIn(t, ""), "SELECT to_regnamespace($1)::text", name) != nil {
		t.Error("the schema is still there")
	}
}

func TestOptionsReachThePool(t *testing.T) {
	t.Parallel()
	pool := PoolIn(t, "", MaxConns(3), Param("application_name", "pgtest"))
	if n := pool.Config().MaxConns; n != 3 {
		t.Errorf("at most %d connections", n)
	}
	if name := Query[string](t, pool, "SHOW application_name"); name != "pgtest" {
		t.Errorf("application_name is %q", name)
	}
}

// Main says whether it was left.
func TestOursFindsAGoroutine(t *testing.T) {
	ready, release := make(chan struct{}), make(chan struct{})
	go func() {
		close(ready)
		<-release
	}()
	<-ready
	if found := ours(); !strings.Contains(found, "TestOursFindsAGoroutine.func1") {
		t.Errorf("it found %q", found)
	}
	close(release)
}

func TestStartNamesTheWaysOut(t *testing.T) {
	t.Setenv("PGTZ", "Nowhere/Land") // as good as a machine without PostgreSQL
	for dsn, want := range map[string]string{
		"":                        "or set PGSTORE_TEST_DSN=",
		"postgres://127.0.0.1:1/": "the server that PGSTORE_TEST_DSN names",
	} {
		if _, err := start(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", dsn, err, want)
		}
	}
}
