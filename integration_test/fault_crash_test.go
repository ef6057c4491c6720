package integration_test

import (
	"context"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

func TestStoreSurvivesACrashOfTheServer(t *testing.T) {
	t.Parallel()
	srv := pgtest.OwnServer(t)
	pool := pgtest.PoolOn(t, srv.DSN, "")
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, newStore(t, pool, pgstore.Config{}))
	d.signIn("alice")
	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	err := d.request(func(context.Context) error { return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "pgstore: find session: ") {
		t.Fatalf("while it is down: %v", err)
	}
	if text := err.Error(); strings.Contains(text, d.token) || strings.Contains(text, pool.Config().ConnConfig.Password) {
		t.Error("the error holds a secret")
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if user := d.user(); user != "alice" {
		t.Errorf("after the restart the user is %q", user)
	}
}
