package integration_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

func TestWatchNeedsAConnectionPastPgBouncer(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	dsn, _ := startPgBouncer(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		pool := pgtest.PoolOn(t, dsn, "", pgtest.ExecMode(mode))
		if err := migrations.Up(t.Context(), pool, migrations.Schema(schema)); err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
		store := newStore(t, pool, pgstore.Config{Schema: schema, Notify: true, Timeout: time.Second})
		n := 0
		for event, err := range store.Watch(t.Context()) {
			if n++; n > 1 || err == nil || !strings.Contains(err.Error(), "make a second Store for Watch") {
				t.Fatalf("%v: %+v, %v", mode, event, err)
			}
		}
		if n == 0 {
			t.Errorf("%v: no error", mode)
		}

		// What is ended through the pooler is heard by a Store that goes past it.
		for event, err := range newStore(t, pgtest.PoolIn(t, "", pgtest.ExecMode(mode)), pgstore.Config{Schema: schema}).Watch(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Gap {
				d := newDevice(t, store)
				d.signIn("alice")
				d.must(d.sm.Destroy)
				continue
			}
			if event.UserID != "alice" || event.Reason != pgstore.SignedOut {
				t.Errorf("%+v", event)
			}
			break
		}
	}
}
