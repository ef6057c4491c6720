package integration_test

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
	"github.com/scspg/scspg/pgstore"
)

// What sweep_test.go needs until its tests stand beside the code, and sweeper_test.go
// calls by these names: pgtest's.

var (
	newSchema = pgtest.Schema
	newPool   = pgtest.PoolIn
	newPoolOn = pgtest.PoolOn
	maxConns  = pgtest.MaxConns
	param     = pgtest.Param
	execMode  = pgtest.ExecMode
	mustExec  = pgtest.Exec

	eventually = pgtest.Eventually
)

func query[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	return pgtest.Query[T](t, pool, sql, args...)
}

func adminPool(t testing.TB) *pgxpool.Pool { return pgtest.PoolIn(t, "") }

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

type victim struct{ *pglocal.Server }

func ownServer(t testing.TB) victim { return victim{pgtest.OwnServer(t)} }

func (v victim) Kill(context.Context) error { return v.Server.Kill() }

// app serves what a device does by path.
type app struct{ store *pgstore.Store }

func newApp(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config, _ bool) *app {
	return &app{newStore(t, pool, cfg)}
}

func (a *app) browser(t testing.TB) browser { return browser{newDevice(t, a.store)} }

type browser struct{ *device }

func (b browser) must(path string, form ...string) {
	b.t.Helper()
	switch path {
	case "/login":
		b.signIn(form[1])
	case "/put":
		b.put(form[1], form[3])
	case "/renew":
		b.device.must(b.sm.RenewToken)
	case "/logout":
		b.device.must(b.sm.Destroy)
	}
}

// recorder notes the statements that are sent, and the round trips that they take.
type recorder struct {
	mu         sync.Mutex
	statements map[string][]any
	trips      int
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.note(data.SQL, data.Args)
	r.trip()
	return ctx
}

func (*recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		r.note(q.SQL, q.Arguments)
	}
	r.trip()
	return ctx
}

func (*recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func (r *recorder) note(sql string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.statements == nil {
		r.statements = make(map[string][]any)
	}
	r.statements[sql] = args
}

func (r *recorder) trip() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trips++
}

// take returns the round trips since the last call.
func (r *recorder) take() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.trips
	r.trips = 0
	return n
}

func traced(r *recorder) pgtest.Option {
	return func(c *pgxpool.Config) { c.ConnConfig.Tracer = r }
}
