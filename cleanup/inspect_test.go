package cleanup_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

func TestInspectCountsWhatASweepWouldDelete(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 hours -1 minute", "")
		insertSessions(t, pool, 100, 12, "-30 days", "signed_out")
		insertSessions(t, pool, 200, 8, "-30 days", "revoked")
		insertSessions(t, pool, 300, 4, "-30 days", "evicted")
		insertSessions(t, pool, 400, 4, "-30 days", "renewed")
		insertSessions(t, pool, 500, 4, "-30 days", "timed_out")
		insertSessions(t, pool, 600, 20, "-59 minutes", "") // within the grace
		insertSessions(t, pool, 700, 20, "1 minute", "")    // alive
		oldest := pgtest.Query[time.Time](t, pool, `SELECT min(sweep_at) FROM scs_sessions`)

		// No budget counts.
		r, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{Grace: time.Hour, MaxRows: 1, MaxDuration: 1})
		if err != nil {
			t.Fatal(err)
		}
		if n := r.Total; n.Expired != 44 || n.SignedOut != 12 || n.Revoked != 8 || n.Evicted != 4 || n.Renewed != 4 || n.UserRows != 54 ||
			n.Batches != 0 || n.Left != 72 || !n.Counted || !n.OldestLeft.Equal(oldest) || n.OutOfBudget || n.Duration <= 0 {
			t.Errorf("%+v", n)
		}
		due := make(map[string]int64)
		for i, d := range r.Due {
			due[d.Kind] += d.Rows
			if i > 0 && d.Day.Before(r.Due[i-1].Day) || !d.Day.Equal(d.Day.UTC().Truncate(24*time.Hour)) {
				t.Errorf("%v is a day of %v", d.Day, r.Due)
			}
		}
		if want := map[string]int64{"expired": 44, "signed_out": 12, "revoked": 8, "evicted": 4, "renewed": 4}; !maps.Equal(due, want) {
			t.Errorf("got %v, want %v", due, want)
		}
		if sessions, userRows := left(t, pool); sessions != 112 || userRows != 84 {
			t.Errorf("it left %d sessions and %d user rows", sessions, userRows)
		}
		if swept, err := cleanup.Sweep(t.Context(), pool, cleanup.Options{Grace: time.Hour}); err != nil || swept.Rows() != r.Total.Rows() {
			t.Errorf("a sweep deleted %v, %v", swept, err)
		}
		if r, err = cleanup.Inspect(t.Context(), pool, cleanup.Options{Grace: time.Hour}); err != nil || len(r.Due) != 0 ||
			r.Total.Rows() != 0 || !r.Total.OldestLeft.IsZero() || !r.Total.Counted {
			t.Errorf("after a sweep: %+v, %v", r, err)
		}
	})
}

func TestInspectMeasuresTablesAndIndexes(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	for _, table := range []string{"scs_sessions", "scs_user_sessions"} {
		pgtest.Exec(t, pool, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.MaxConns(1))
	insertSessions(t, own, 0, 4000, "1 hour", "")
	pgtest.Exec(t, own, `DELETE FROM scs_sessions WHERE user_id IS NULL`)
	own.Close() // a server process reports what it has changed when it ends
	var report cleanup.Report
	pgtest.Eventually(t, "the rows are counted", func() (done bool) {
		var err error
		if report, err = cleanup.Inspect(t.Context(), pool, cleanup.Options{}); err != nil {
			t.Fatal(err)
		}
		return len(report.Relations) > 0 && report.Relations[0].Live == 3000
	})
	names := make([]string, len(report.Relations))
	for i, r := range report.Relations {
		names[i] = r.Name
		sessions := i < 3
		if r.Index != strings.HasSuffix(r.Name, "_idx") && r.Index != strings.HasSuffix(r.Name, "_pkey") || r.Bytes <= 0 ||
			r.Live != 3000 || (r.Dead == 1000) != sessions {
			t.Errorf("%+v", r)
		}
	}
	if got := strings.Join(names, " "); got != "scs_sessions scs_sessions_pkey scs_sessions_sweep_at_idx scs_user_sessions scs_user_sessions_pkey" {
		t.Error(got)
	}
}

// Citus has the rows on other servers, and functions that ask them.
func TestInspectMeasuresDistributedTables(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 40, "-3 days", "")
	pgtest.Exec(t, pool, `CREATE TABLE pg_dist_partition AS SELECT unnest(ARRAY['scs_sessions', 'scs_user_sessions', 'scs_users']::regclass[]) AS logicalrelid`)
	for function, size := range map[string]string{"citus_table_size(regclass)": "5000000", "citus_total_relation_size(regclass, fail_on_error boolean DEFAULT true)": "8000000"} {
		pgtest.Exec(t, pool, `CREATE FUNCTION `+function+` RETURNS bigint LANGUAGE sql AS 'SELECT `+size+`::bigint'`)
	}
	report, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{Schema: schemaOf(t, pool)})
	want := []cleanup.Relation{{Name: "scs_sessions", Bytes: 5e6}, {Name: "indexes of scs_sessions", Index: true, Bytes: 3e6},
		{Name: "scs_user_sessions", Bytes: 5e6}, {Name: "indexes of scs_user_sessions", Index: true, Bytes: 3e6}}
	if err != nil || !slices.Equal(report.Relations, want) {
		t.Errorf("%+v, %v", report.Relations, err)
	}
}

func TestInspectSaysThatTheTablesAreMissing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	if _, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{}); !errors.Is(err, cleanup.ErrNotMigrated) || !strings.Contains(err.Error(), "goose -dir") {
		t.Error(err)
	}
}

func TestInspectCountsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	insertSessions(t, pool, 0, 50_000, "-3 days", "")
	_, err := cleanup.Inspect(t.Context(), pool, cleanup.Options{StatementTimeout: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "Options.StatementTimeout (1ms)") || strings.Contains(err.Error(), "Options.Batch") {
		t.Error(err)
	}
}
