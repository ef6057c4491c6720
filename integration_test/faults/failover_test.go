//go:build linux

package faults

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
)

// pair is a primary and a standby that has all that the primary has acknowledged.
type pair struct{ primary, standby *server }

func newPair(t *testing.T, j *judgement) (*pair, *bed) {
	t.Helper()
	primary := newServer(t)
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{primary, own(t, standby)}
	p.primary.exec(t, `ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)
	b := newBed(t, j, primary)
	pool := pgtest.PoolOn(t, primary.DSN, "")
	defer pool.Close()
	pgtest.Eventually(t, "the standby is synchronous", func() bool {
		return pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'`) == 1
	})
	b.truth = p.dsn(t, primary.DSN)
	return p, b.run(t, nodeConfig{DSN: p.dsn(t, appDSN(t, primary.DSN))})
}

// dsn leads to whichever of the two takes writes.
func (p *pair) dsn(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	other, err := url.Parse(p.standby.DSN)
	if err != nil {
		t.Fatal(err)
	}
	u.Host += "," + other.Host
	q := u.Query()
	q.Set("target_session_attrs", "read-write")
	u.RawQuery = q.Encode()
	return u.String()
}

func (p *pair) promote(t *testing.T) {
	t.Helper()
	p.standby.exec(t, `SELECT pg_promote()`)
}

const readOnly = `ALTER SYSTEM SET default_transaction_read_only = on`

// failover kills the primary and promotes the standby. The old primary comes back
// afterwards, and must not be taken for one.
func failover(t *testing.T, j *judgement) {
	p, b := newPair(t, j)
	p.primary.kill(t)
	time.Sleep(time.Second)
	b.healed()
	p.promote(t)
	b.awaitRounds(t)
	auto, err := os.OpenFile(filepath.Join(p.primary.data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer auto.Close()
	if _, err := auto.WriteString("default_transaction_read_only = on\n"); err != nil {
		t.Fatal(err)
	}
	p.primary.restart(t)
	b.finish(t)
}

// switchover makes the primary read-only and promotes the standby. The app's connections
// stay on the old primary: nobody drops them.
func switchover(t *testing.T, j *judgement) {
	p, b := newPair(t, j)
	p.primary.exec(t, readOnly, `SELECT pg_reload_conf()`)
	time.Sleep(2 * time.Second)
	b.healed()
	p.promote(t)
	// The watch over the limit is to look at the new one.
	p.primary.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND application_name <> '`+appRole+`' AND pid <> pg_backend_pid()`)
	b.finish(t)
	b.mustHaveSeen(t, "25006") // read_only_sql_transaction
}
