package cleanup_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestSweepWorksInEveryQueryMode(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for i, mode := range modes {
			insertSessions(t, pool, i*100, 40, "-3 days", "revoked")
			own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.ExecMode(mode))
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Batch: 15})
			if err != nil || r.Revoked != 40 || r.UserRows != 30 {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
			if _, err := cleanup.Inspect(t.Context(), own, cleanup.Options{}); err != nil {
				t.Errorf("%v: %v", mode, err)
			}
		}
	})
}
