package db_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
)

// spoil makes whatever is done to session n fail on the server.
func (x *sharing) spoil(n int) {
	x.t.Helper()
	pgtest.Exec(x.t, x.pool, fmt.Sprintf(`CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.id = '%s' THEN RAISE EXCEPTION 'spoilt'; END IF; RETURN NEW; END $$`, id(n)))
	pgtest.Exec(x.t, x.pool, `CREATE TRIGGER spoil BEFORE UPDATE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION spoil()`)
	pgtest.Exec(x.t, x.pool, `ALTER TABLE scs_sessions RENAME TO stored`)
	pgtest.Exec(x.t, x.pool, fmt.Sprintf(`CREATE VIEW scs_sessions AS SELECT id, user_id, data, version,
		expiry + interval '1 second' * (0 / (CASE WHEN id = '%s' THEN 0 ELSE 1 END)) AS expiry, last_seen_at, end_reason FROM stored`, id(n)))
}

// unview takes the view away that makes reads fail: what updates meets the trigger.
func (x *sharing) unview() {
	x.t.Helper()
	pgtest.Exec(x.t, x.pool, `DROP VIEW scs_sessions`)
	pgtest.Exec(x.t, x.pool, `ALTER TABLE stored RENAME TO scs_sessions`)
}

// together sends three operations in one trip, which the gate holds, and calls f with the
// trip before it goes on.
func (x *sharing) together(k kind, f func(pgtest.Trip)) []*doing {
	x.t.Helper()
	x.fill(k)
	x.held(k.alone)
	list := x.more(k, 10, 10+k.alone)
	x.held(k.alone + 1)
	trips := x.gate.Trips()
	if f != nil {
		f(trips[len(trips)-1])
	}
	x.gate.Open()
	return list
}

func TestOneThatFailsIsNobodyElsesError(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64)
		if x.spoil(11); k.name != "reads" {
			x.unview()
		}
		list := x.together(k, nil)
		if o := list[1].wait(); pgfault.Code(o.err) != map[bool]string{true: "22012", false: "P0001"}[k.name == "reads"] || o.OK || o.found.Present {
			t.Errorf("%+v", o)
		}
		ok(t, slices.Delete(list, 1, 2)...)
		pgtest.Eventually(t, "nothing is left", x.shared.Idle)
	})
}

// Reads and touches go on elsewhere. A write may have been done: its caller has to look.
func TestKilledConnectionIsSurvivedOrReported(t *testing.T) {
	t.Parallel()
	pgtest.NotThroughPgBouncer(t, "it ends the server connection of a client's, and cannot tell which that is")
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64)
		list := x.together(k, func(trip pgtest.Trip) {
			pid := trip.Conn.PgConn().PID()
			pgtest.Exec(t, x.pool, `SELECT pg_terminate_backend($1::int)`, pid)
			pgtest.Eventually(t, "it is gone", func() bool {
				return pgtest.Query[int](t, x.pool, `SELECT count(*) FROM pg_stat_activity WHERE pid = $1`, pid) == 0
			})
		})
		if !k.writes {
			ok(t, list...)
			return
		}
		for i, d := range list {
			o := d.wait()
			if !pgfault.IsConnection(o.err) || db.Refused(o.err) || o.OK || x.row(10+i) != "alice v3 live 'data' 3600 -60" {
				t.Errorf("%+v, %s", o, x.row(10+i))
			}
		}
		pgtest.Exec(t, x.pool, `UPDATE scs_sessions SET version = 3`)
		ok(t, x.more(k, 10, 12)...) // and the sessions are free again
	})
}

// losing loses the answer to the first trip with two updates.
type losing struct {
	net.Conn
	lost *atomic.Bool
	this atomic.Bool
}

func losesAnswers(lost *atomic.Bool) pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text is sent each time
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &losing{Conn: conn, lost: lost}, err
		}
	}
}

func (c *losing) Write(p []byte) (int, error) {
	if bytes.Count(p, []byte("SET data = $2")) > 1 && !c.lost.Swap(true) {
		c.this.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *losing) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.this.Load() {
		return n, err
	}
	_ = c.Close()
	return 0, io.ErrUnexpectedEOF
}

// All were written, once, and all callers learn that they cannot know.
func TestLostAnswerOfATripRepeatsNoWrite(t *testing.T) {
	t.Parallel()
	var lost atomic.Bool
	x := openShared(t, 64, losesAnswers(&lost))
	list := x.together(kinds[2], nil)
	for i, d := range list {
		o := d.wait()
		if !pgfault.IsConnection(o.err) || db.Refused(o.err) || o.OK {
			t.Errorf("%+v", o)
		}
		if got := x.row(10 + i); got != "alice v4 live 'new' 7200 0" {
			t.Errorf("session %d: %s", 10+i, got)
		}
	}
	if !lost.Load() {
		t.Error("no answer was lost")
	}
}

// lock locks the row of a session until unlock is called.
func (x *sharing) lock(n int) (unlock func()) {
	x.t.Helper()
	tx, err := x.pool.Begin(x.t.Context())
	if err == nil {
		_, err = tx.Exec(x.t.Context(), `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, id(n))
	}
	if err != nil {
		x.t.Fatal(err)
	}
	unlock = func() { _ = tx.Rollback(context.WithoutCancel(x.t.Context())) }
	x.t.Cleanup(unlock)
	return unlock
}

// Whoever waits for a locked row waits alone: others of its trip return, and others than it
// come and go, though it went alone.
func TestLockedRowHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	for _, k := range kinds[1:] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			x := openShared(t, 64)
			unlocks := []func(){x.lock(11)}
			list := x.together(k, nil)
			x.shared.SetPatience(db.Patience)
			ok(t, list[0])
			locked := []*doing{list[1]}
			for n := 20; n < 20+k.alone; n++ {
				unlocks = append(unlocks, x.lock(n))
				locked = append(locked, x.launch(k, n))
			}
			pgtest.Eventually(t, "all wait for their rows", func() bool {
				return pgtest.Query[int](t, x.pool, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'`, x.schema) == len(locked)
			})
			for n := 30; n < 35; n++ { // one at a time
				ok(t, x.launch(k, n))
			}
			for i, d := range locked {
				select {
				case <-d.done:
					t.Errorf("locked row %d: %+v", i, d.outcome)
				default:
				}
			}
			for _, unlock := range unlocks {
				unlock()
			}
			ok(t, locked...)
			pgtest.Eventually(t, "nothing is left", x.shared.Idle)
		})
	}
}

// A trip that is late, here because its answer does not come, holds up nobody: others go as
// if it were none.
func TestLateTripHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64)
		list := x.fill(k)
		x.held(k.alone)
		x.shared.SetPatience(db.Patience)
		for n := range 3 { // one at a time, and fewer than are late
			list = append(list, x.launch(k, 10+n))
			x.held(k.alone + n + 1)
		}
		x.gate.Open()
		ok(t, list...)
		pgtest.Eventually(t, "nothing is left", x.shared.Idle)
	})
}

// A trip that fails holds no connection while others go on by themselves.
func TestPoolOfOneConnectionSuffices(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 8, pgtest.MaxConns(1))
		if x.spoil(15); k.name != "reads" {
			x.unview()
		}
		k.alone = 1
		list := x.fill(k)
		x.held(1)
		list = append(list, x.more(k, 1, 30)...)
		x.gate.Open()
		if o := list[15].wait(); o.err == nil {
			t.Errorf("%+v", o)
		}
		ok(t, slices.Delete(list, 15, 16)...)
		pgtest.Eventually(t, "nothing is left", x.shared.Idle)
	})
}

// The app's own queries hold the pool: what gets the first connection takes along all who
// have come meanwhile.
func TestTripThatWaitedForItsConnectionTakesAllAlong(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64, pgtest.MaxConns(2))
		var slow []*pgxpool.Conn
		for range 2 {
			conn, err := x.conns.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, conn)
		}
		x.gate.Shut(t)
		list := x.more(k, 0, 8) // two ask for a connection, and six wait
		x.waiting(6)
		slow[0].Release()
		x.held(1)
		x.wantSizes(k, map[bool]int{true: 8, false: 7}[k.name == "reads"]) // parameters are a power of two
		x.gate.Open()                                                      // the other one is held still
		ok(t, list...)
		slow[1].Release()
	})
}

// A tracer of the app's that panics, or ends the goroutine, is its caller's affair: nobody
// waits forever, and nothing is left.
func TestWhoPanicsStrandsNobody(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("tracer") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ofEachKind(t, func(t *testing.T, k kind) {
				x := openShared(t, 64)
				x.gate.Hook(func(pgtest.Trip) { end() })
				for n := range 2 * k.alone {
					var wg sync.WaitGroup
					wg.Go(func() {
						defer func() { _ = recover() }()
						k.do(t.Context(), x, n)
					})
					wg.Wait()
				}
				if !x.shared.Idle() {
					t.Fatal("something is left")
				}
				// Now only in what is shared.
				x.gate.Hook(func(trip pgtest.Trip) {
					if trip.Parameters > 1 && k.name == "reads" || k.name != "reads" && len(trip.SQL) > 2 {
						end()
					}
				})
				list := x.fill(k)
				x.held(k.alone)
				list = append(list, x.more(k, 10, 10+k.alone-1)...)
				x.waiting(k.alone - 1)
				together := x.launch(k, 19) // gone on before anybody could see it wait
				pgtest.Eventually(t, "who shared has gone on", func() bool { w, _ := x.shared.Operations(); return w == 0 })
				x.gate.Open()
				for _, d := range append(list, together) {
					if o := d.wait(); (o.err != nil) && !k.writes {
						t.Errorf("%+v", o)
					}
				}
				if o := together.wait(); k.writes && (o.err == nil || db.Refused(o.err)) {
					t.Errorf("a write that nobody knows of: %+v", o)
				}
				pgtest.Eventually(t, "nothing is left", x.shared.Idle)
			})
		})
	}
}
