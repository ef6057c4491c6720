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
	killed := false
	r, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Batch: 100, Pause: time.Nanosecond, Progress: func(r cleanup.Result) {
		if r.Batches == 20 && !killed {
			killed = true
			if err := srv.Kill(); err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil || r.Rows() < 2000 {
		t.Errorf("while the server died: %+v, %v", r, err)
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	again, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{})
	// The commits were asynchronous: the crash may have brought some batches back.
	if err != nil || r.Rows()+again.Rows() < 20_000 {
		t.Errorf("%d and %d rows, %v", r.Rows(), again.Rows(), err)
	}
	if sessions, userRows := left(t, pool); sessions != 0 || userRows != 0 {
		t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
	}
}
