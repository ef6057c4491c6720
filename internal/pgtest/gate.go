package pgtest

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Gate holds up the round trips of a pool, so that a test can say what comes in between. It
// is open until it is shut.
type Gate struct {
	mu     sync.Mutex
	shut   chan struct{} // lets one trip pass for each element, and all once it is closed
	after  bool          // once their answers have come; else before they are sent
	inside int           // trips that it holds
	trips  []Trip
	hook   func(Trip)
}

// Trip is a round trip.
type Trip struct {
	Conn       *pgx.Conn
	SQL        []string
	Parameters int // of the last statement
}

// Option puts the gate into a pool.
func (g *Gate) Option() Option { return func(c *pgxpool.Config) { c.ConnConfig.Tracer = g } }

// Shut holds up trips before they are sent.
func (g *Gate) Shut(t testing.TB) { g.shutAt(t, false) }

// ShutAfter holds up trips whose answers have come, and which nobody has seen yet.
func (g *Gate) ShutAfter(t testing.TB) { g.shutAt(t, true) }

func (g *Gate) shutAt(t testing.TB, after bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.after, g.trips = make(chan struct{}), after, nil
	t.Cleanup(g.Open) // whatever the test has come to
}

// Open lets all pass.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// Let lets one trip pass of those that it holds.
func (g *Gate) Let() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	shut <- struct{}{}
}

// Hook calls f with each trip before it is sent, in the goroutine that sends it.
func (g *Gate) Hook(f func(Trip)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook = f
}

// Held returns how many trips the gate holds.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}

// Trips returns those that have come to the gate since it was shut.
func (g *Gate) Trips() []Trip {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Trip(nil), g.trips...)
}

func (g *Gate) pass(after bool) {
	g.mu.Lock()
	shut := g.shut
	if shut == nil || g.after != after {
		g.mu.Unlock()
		return
	}
	g.inside++
	g.mu.Unlock()
	<-shut
	g.mu.Lock()
	g.inside--
	g.mu.Unlock()
}

func (g *Gate) start(trip Trip) {
	g.mu.Lock()
	g.trips = append(g.trips, trip)
	hook := g.hook
	g.mu.Unlock()
	if hook != nil {
		hook(trip)
	}
	g.pass(false)
}

// TraceQueryStart implements pgx.QueryTracer.
func (g *Gate) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	g.start(Trip{Conn: conn, SQL: []string{data.SQL}, Parameters: len(data.Args)})
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (g *Gate) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { g.pass(true) }

// TraceBatchStart implements pgx.BatchTracer.
func (g *Gate) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	trip := Trip{Conn: conn}
	for _, q := range data.Batch.QueuedQueries {
		trip.SQL, trip.Parameters = append(trip.SQL, q.SQL), len(q.Arguments)
	}
	g.start(trip)
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (*Gate) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (g *Gate) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) { g.pass(true) }
