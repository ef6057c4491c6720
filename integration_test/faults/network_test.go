//go:build linux

package faults

import (
	"net/url"
	"testing"
	"time"

	"github.com/scspg/scspg/integration_test/internal/pgbouncer"
)

// networkCut cuts the way from both nodes to the server, who are not told.
func networkCut(d time.Duration) func(*testing.T, *judgement) {
	return func(t *testing.T, j *judgement) {
		w, s := newWire(t)
		b := newBed(t, j, s).run(t, w.node(t, appDSN(t, s.DSN)))
		w.cut(t)
		time.Sleep(d)
		b.healed()
		w.mend(t)
		b.finish(t)
	}
}

// poolerKilled has both nodes behind a PgBouncer in transaction mode.
func poolerKilled(t *testing.T, j *judgement) {
	s := newServer(t)
	b := newBed(t, j, s)
	pooler, err := pgbouncer.Start(t, appDSN(t, s.DSN))
	if err != nil {
		unable(t, err)
	}
	dsn, err := url.Parse(pooler.DSN)
	if err != nil {
		t.Fatal(err)
	}
	b.atEnd = pooler.Kill
	b.run(t, nodeConfig{DSN: appDSN(t, dsn.String(), "default_query_exec_mode", "cache_describe")})
	pooler.Kill()
	time.Sleep(time.Second)
	b.healed()
	pooler.Restart()
	b.finish(t)
}
