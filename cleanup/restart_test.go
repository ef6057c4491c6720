package cleanup_test

import (
	"testing"
	"time"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestSweepSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	srv := pgtest.OwnServer(t)
	pool := pgtest.PoolOn(t, srv.DSN, "")
	migrateIn(t, pool)
	insertSessions(t, pool, 0, 20_000, "-3 days", "")
	insertSessions(t, pool, 20_000, 1000, "1 hour", "")
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 100, Pause: time.Nanosecond, Progress: func(r cleanup.Result) {
		if r.Batches != 20 {
			return
		}
		if err := srv.Kill(); err != nil {
			t.Error(err)
		}
		if err := srv.Restart(t.Context()); err != nil {
			t.Error(err)
		}
	}})
	// The commits were asynchronous: the crash may have brought some batches back.
	if err != nil || r.Rows() < 20_000 || r.Left != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if sessions, userRows := left(t, pool); sessions != 1000 || userRows != 750 {
		t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
	}
	intact(t, pool)
}

// Batches commit asynchronously, but what a sweep has reported stays deleted.
func TestSweepIsDurableOnceItHasReported(t *testing.T) {
	t.Parallel()
	srv := pgtest.OwnServer(t)
	pool := pgtest.PoolOn(t, srv.DSN, "")
	migrateIn(t, pool)
	pgtest.Exec(t, pool, `ALTER SYSTEM SET wal_writer_delay = '10s'`) // which makes them durable otherwise
	pgtest.Exec(t, pool, `SELECT pg_reload_conf()`)
	insertSessions(t, pool, 0, 100, "-3 days", "")
	pgtest.Eventually(t, "the setting is read", func() bool { return pgtest.Query[string](t, pool, `SHOW wal_writer_delay`) == "10s" })
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{MaxRows: 90})
	if err != nil || r.Rows() != 90 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	if sessions, _ := left(t, pool); sessions != 10 {
		t.Errorf("%d sessions are left", sessions)
	}
}
