package db_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// sharing is a DB whose operations share round trips, behind a gate; the tables have a pool
// of their own.
type sharing struct {
	*tables
	gate   pgtest.Gate
	shared *db.DB
	conns  *pgxpool.Pool
	schema string // their application_name, too
}

func openShared(t *testing.T, most int, opts ...pgtest.Option) *sharing {
	t.Helper()
	x := &sharing{tables: open(t)}
	x.schema = pgtest.Query[string](t, x.pool, `SELECT current_schema()`)
	x.conns = pgtest.PoolIn(t, x.schema, append(opts, x.gate.Option(),
		pgtest.Param("application_name", x.schema), pgtest.Param("search_path", `"`+x.schema+`", pg_catalog`))...)
	x.shared = db.New(x.conns, "", time.Minute, most, func() {})
	x.shared.SetPatience(time.Hour)
	for n := range 40 {
		x.put(session{n: n, user: "alice", left: time.Hour})
	}
	return x
}

// outcome is what an operation has returned.
type outcome struct {
	found row.Row
	db.Written
	err error
}

// doing is an operation under way.
type doing struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	outcome
}

// start starts an operation, and waits until it waits for a trip or is on one. Nothing must
// return meanwhile but it.
func (x *sharing) start(f func(context.Context, *outcome)) *doing {
	x.t.Helper()
	ctx, cancel := context.WithCancel(x.t.Context())
	x.t.Cleanup(cancel)
	d := &doing{t: x.t, cancel: cancel, done: make(chan struct{})}
	waiting, flying := x.shared.Operations()
	go func() {
		defer close(d.done)
		f(ctx, &d.outcome)
	}()
	pgtest.Eventually(x.t, "it has begun", func() bool {
		select {
		case <-d.done:
			return true
		default:
			w, n := x.shared.Operations()
			return w+n > waiting+flying
		}
	})
	return d
}

// launch starts an operation.
func (x *sharing) launch(k kind, n int) *doing {
	d := &doing{t: x.t, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.outcome = k.do(x.t.Context(), x, n)
	}()
	return d
}

func (k kind) start(x *sharing, n int) *doing {
	x.t.Helper()
	return x.start(func(ctx context.Context, o *outcome) { *o = k.do(ctx, x, n) })
}

func find(ctx context.Context, x *sharing, n int) (o outcome) {
	o.found, o.err = x.shared.Find(ctx, id(n))
	return o
}

func touch(ctx context.Context, x *sharing, n int) (o outcome) {
	o.Written, o.err = x.shared.Touch(ctx, id(n), "alice", 3, 2*time.Hour)
	return o
}

func update(ctx context.Context, x *sharing, n int) outcome { return updateTo(ctx, x, n, 3, "new") }

func updateTo(ctx context.Context, x *sharing, n int, version int64, data string) (o outcome) {
	o.Written, o.err = x.shared.Update(ctx, db.Write{ID: id(n), User: "alice", Data: []byte(data), TTL: 2 * time.Hour}, version)
	return o
}

// wait waits for the operation's end.
func (d *doing) wait() *outcome {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<20)
		d.t.Fatalf("not within a minute\n%s", buf[:runtime.Stack(buf, true)])
	}
	return &d.outcome
}

// ok waits for operations that must work.
func ok(t *testing.T, list ...*doing) {
	t.Helper()
	for i, d := range list {
		if o := d.wait(); o.err != nil || !o.OK && !o.found.Present {
			t.Errorf("operation %d: %+v", i, o)
		}
	}
}

// kind is a kind of operation.
type kind struct {
	name   string
	alone  int
	do     func(ctx context.Context, x *sharing, n int) outcome
	is     string // in the SQL of one
	writes bool   // they must not be repeated blindly
}

var kinds = []kind{
	{"reads", db.ReadsAlone, find, "SELECT data", false},
	{"touches", db.WritesAlone, touch, "expiry = greatest", false},
	{"updates", db.WritesAlone, update, "SET data = $2", true},
}

// ofEachKind runs a test for each kind of operation.
func ofEachKind(t *testing.T, f func(*testing.T, kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { t.Parallel(); f(t, k) })
	}
}

// sizes are how many operations each trip took along: reads by their parameters.
func (x *sharing) sizes(k kind) (sizes []int) {
	for _, trip := range x.gate.Trips() {
		if last := trip.SQL[len(trip.SQL)-1]; strings.Contains(last, "ANY(ARRAY[$1") {
			sizes = append(sizes, trip.Parameters)
		} else {
			sizes = append(sizes, strings.Count(strings.Join(trip.SQL, "\n"), k.is))
		}
	}
	return sizes
}

func (x *sharing) wantSizes(k kind, want ...int) {
	x.t.Helper()
	if got := x.sizes(k); !slices.Equal(got, want) {
		x.t.Errorf("trips took %v along, want %v", got, want)
	}
}

// fill shuts the gate, and sends as many alone as may go.
func (x *sharing) fill(k kind) []*doing {
	x.t.Helper()
	x.gate.Shut(x.t)
	return x.more(k, 0, k.alone)
}

// held waits until the gate holds so many trips.
func (x *sharing) held(n int) {
	x.t.Helper()
	pgtest.Eventually(x.t, fmt.Sprint(n, " trips are at the gate"), func() bool { return x.gate.Held() == n })
}

// waiting waits until so many operations wait for a trip.
func (x *sharing) waiting(n int) {
	x.t.Helper()
	pgtest.Eventually(x.t, fmt.Sprint(n, " operations wait"), func() bool { w, _ := x.shared.Operations(); return w == n })
}

// more starts operations on sessions from to to-1.
func (x *sharing) more(k kind, from, to int) (list []*doing) {
	x.t.Helper()
	for n := from; n < to; n++ {
		list = append(list, k.start(x, n))
	}
	return list
}

// A few go alone. The others go once they are as many as those in flight, or when a trip
// returns.
func TestTripsTakeAlongWhoWaits(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64)
		a := k.alone
		list := x.fill(k)
		x.held(a)
		list = append(list, x.more(k, a, 2*a-1)...)
		x.waiting(a - 1)
		x.held(a)
		list = append(list, x.more(k, 2*a-1, 2*a)...) // as many as in flight
		x.waiting(0)
		x.held(a + 1)
		list = append(list, x.more(k, 2*a, 2*a+2)...)
		x.waiting(2)
		x.gate.Let() // one returns, whichever
		x.waiting(0)
		x.held(a + 1)
		x.gate.Open()
		ok(t, list...)
		x.wantSizes(k, slices.Concat(slices.Repeat([]int{1}, a), []int{a, 2})...)
		if !x.shared.Idle() {
			t.Error("something is left of them")
		}
	})
}

// A trip takes no more than it may, and there are no more of them than connections.
func TestTripsAreBounded(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 4, pgtest.MaxConns(2))
		k.alone = 2
		list := x.fill(k)
		x.held(2)
		list = append(list, x.more(k, 2, 12)...)
		x.waiting(10)
		x.held(2)
		x.gate.Open()
		ok(t, list...)
		for _, n := range x.sizes(k) {
			if n > 4 {
				t.Errorf("a trip took %d along", n)
			}
		}
	})
}

// Large data fills a trip before its number does.
func TestTripOfLargeWritesTakesFew(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[2]
	list := x.fill(k)
	x.held(k.alone)
	large := strings.Repeat("x", 600<<10)
	for n := 10; n < 16; n++ {
		list = append(list, x.start(func(ctx context.Context, o *outcome) { *o = updateTo(ctx, x, n, 3, large) }))
	}
	x.gate.Open()
	ok(t, list...)
	if sizes := x.sizes(k); slices.Max(sizes) != 2 {
		t.Errorf("trips took %v along", sizes)
	}
}

// One, two and more, in the modes in which pgx can send them; also those that are not there.
func TestTripsBringToEachItsOwn(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, inMode *tables) {
		mode := inMode.pool.Config().ConnConfig.DefaultQueryExecMode
		x := openShared(t, 64, pgtest.ExecMode(mode))
		pgtest.Exec(t, x.pool, `UPDATE scs_sessions SET data = convert_to(right(id::text, 4), 'UTF8'), version = 3`)
		pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions WHERE id = ANY($1)`, ids(7, 20))
		for size := 1; size <= 9; size++ {
			for _, k := range kinds {
				pgtest.Exec(t, x.pool, `UPDATE scs_sessions SET version = 3, expiry = now() + interval '1 hour'`)
				x.gate.Shut(t)
				list := x.more(k, 30, 30+k.alone)
				x.held(k.alone)
				var together []*doing
				for n := range size { // the trip starts once the first returns, or before
					together = append(together, k.start(x, n+3))
				}
				x.gate.Open()
				ok(t, list...)
				for i, d := range together {
					o := d.wait()
					there := i+3 != 7
					if k.name == "reads" {
						if o.err != nil || o.found.Present != there || there && (string(o.found.Data) != fmt.Sprintf("%04x", i+3) &&
							!strings.HasPrefix(string(o.found.Data), "new")) {
							t.Errorf("%d of %d: %+v", i, size, o)
						}
					} else if o.err != nil || o.OK != there || there && !o.Expiry.Equal(noon.Add(2*time.Hour)) {
						t.Errorf("%s, %d of %d: %+v", k.name, i, size, o)
					}
				}
			}
		}
		if got := pgtest.Query[int](t, x.pool, `SELECT count(*) FROM scs_sessions WHERE version > 4`); got != 0 {
			t.Errorf("%d were written twice", got)
		}
	})
}

// Touches may be lost in a crash, data may not; and what a trip sets is gone with it.
func TestTripsAreAsDurableAsTheirOperations(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, inMode *tables) {
		x := openShared(t, 64, pgtest.ExecMode(inMode.pool.Config().ConnConfig.DefaultQueryExecMode))
		pgtest.Exec(t, x.pool, `CREATE TABLE noted (wrote bool, setting text)`)
		pgtest.Exec(t, x.pool, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO noted VALUES (NEW.version > OLD.version, current_setting('synchronous_commit')); RETURN NEW; END $$`)
		pgtest.Exec(t, x.pool, `CREATE TRIGGER note BEFORE UPDATE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION note()`)
		for _, k := range kinds[1:] {
			list := x.fill(k)
			x.held(k.alone)
			list = append(list, x.more(k, 10, 13)...)
			x.gate.Open()
			ok(t, list...)
		}
		if got := pgtest.Query[string](t, x.pool, `SELECT string_agg(DISTINCT wrote || ' ' || setting, ', ') FROM noted`); got != "false off, true on" {
			t.Error(got)
		}
		for range 4 {
			if got := pgtest.Query[string](t, x.conns, `SELECT current_setting('synchronous_commit') || ' ' || current_setting('lock_timeout')`); got != "on 0" {
				t.Errorf("a setting has leaked: %s", got)
			}
		}
	})
}

// What was committed before a read began, the read must see, whatever is under way.
func TestReadSeesWhatWasCommittedBeforeItBegan(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[0]
	x.gate.ShutAfter(t)
	var early, late []*doing
	for range k.alone {
		early = append(early, kinds[0].start(x, 1))
	}
	x.held(k.alone) // their answers have come
	pgtest.Exec(t, x.pool, `UPDATE scs_sessions SET data = 'newer' WHERE id = $1`, id(1))
	for range k.alone - 1 {
		late = append(late, kinds[0].start(x, 1))
	}
	x.waiting(len(late))
	x.gate.Open()
	for _, d := range early {
		if o := d.wait(); o.err != nil || string(o.found.Data) != "data" {
			t.Errorf("an early one: %+v", o)
		}
	}
	for _, d := range late {
		if o := d.wait(); o.err != nil || string(o.found.Data) != "newer" {
			t.Errorf("a late one: %+v", o)
		}
	}
}

func TestReadsOfOneSessionShareItsRow(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[0]
	list := x.fill(k)
	x.held(k.alone)
	same := []*doing{kinds[0].start(x, 9), kinds[0].start(x, 8), kinds[0].start(x, 9)}
	x.waiting(3)
	x.gate.Open()
	ok(t, append(list, same...)...)
	x.wantSizes(k, 1, 1, 1, 1, 2)
	// What one caller does with it is nothing to the other.
	first, second := same[0].found.Data, same[2].found.Data
	copy(first, bytes.ToUpper(first))
	if string(second) != "data" {
		t.Errorf("%q", second)
	}
}

func TestTouchesOfOneSessionShareTheLongest(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[1]
	list := x.fill(k)
	x.held(k.alone)
	touch := func(version int64, ttl time.Duration) *doing {
		return x.start(func(ctx context.Context, o *outcome) {
			o.Written, o.err = x.shared.Touch(ctx, id(9), "alice", version, ttl)
		})
	}
	// Once two wait they go; the first trip that returns takes the rest.
	early := []*doing{touch(3, 3*time.Hour), touch(3, 5*time.Hour)}
	x.held(k.alone + 1)
	late := []*doing{touch(3, 4*time.Hour), touch(4, 9*time.Hour), touch(3, 2*time.Hour)}
	x.waiting(3)
	x.gate.Open()
	ok(t, append(list, early...)...)
	ok(t, late[0], late[2])
	if o := late[1].wait(); o.err != nil || o.OK {
		t.Errorf("another version: %+v", o)
	}
	for _, d := range slices.Concat(early, []*doing{late[0], late[2]}) {
		if !d.Expiry.Equal(noon.Add(5*time.Hour)) && !d.Expiry.Equal(noon.Add(4*time.Hour)) {
			t.Errorf("expiry %v", d.Expiry)
		}
	}
	x.wantSizes(k, 1, 1, 1, 2)
	if got := x.row(9); got != "alice v3 live 'data' 18000 0" {
		t.Error(got)
	}
}

// Never two in one trip, and never one before the other has returned.
func TestWritesOfOneSessionGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[2]
	to := func(data string) *doing {
		return x.start(func(ctx context.Context, o *outcome) { *o = updateTo(ctx, x, 9, db.AnyVersion, data) })
	}
	x.gate.Shut(t)
	list := []*doing{to("w0")}
	x.held(1)
	for n := 1; n < 5; n++ {
		list = append(list, to(fmt.Sprint("w", n)))
	}
	x.waiting(4)
	other := k.start(x, 10)
	x.held(2) // it takes along one that may go, and not the others
	x.waiting(4)
	x.gate.Open()
	ok(t, append(list, other)...)
	for i, d := range list {
		if d.Version != int64(4+i) {
			t.Errorf("write %d made version %d", i, d.Version)
		}
	}
	x.wantSizes(k, 1, 1, 1, 1, 1, 1)
	if got := x.row(9); !strings.HasPrefix(got, "alice v8 live 'w4'") {
		t.Error(got)
	}
}

// Whoever goes away does so at once, and alone.
func TestTripGoesOnWithoutThoseWhoLeave(t *testing.T) {
	t.Parallel()
	ofEachKind(t, func(t *testing.T, k kind) {
		x := openShared(t, 64)
		list := x.fill(k)
		x.held(k.alone)
		flying := x.more(k, 10, 10+k.alone)
		x.held(k.alone + 1)
		waiting := x.more(k, 20, 23)
		x.waiting(3)
		flying[0].cancel()
		waiting[1].cancel()
		for _, d := range []*doing{flying[0], waiting[1]} { // the gate is still shut
			if o := d.wait(); !errors.Is(o.err, context.Canceled) || o.OK || o.found.Present {
				t.Errorf("%+v", o)
			}
		}
		x.waiting(2)
		x.gate.Open()
		ok(t, slices.Concat(list, flying[1:], []*doing{waiting[0], waiting[2]})...)
		pgtest.Eventually(t, "nothing is left", x.shared.Idle)
		if k.name != "reads" && x.row(21) != "alice v3 live 'data' 3600 -60" {
			t.Errorf("who left before the trip has written: %s", x.row(21))
		}
		// A session whose writer has left is free for the next one.
		pgtest.Exec(t, x.pool, `UPDATE scs_sessions SET version = 3`)
		ok(t, k.start(x, 10), k.start(x, 21))
	})
}

// A caller has its own timeout, and the operation says so.
func TestWaitingEndsWithTheTimeout(t *testing.T) {
	t.Parallel()
	x := openShared(t, 64)
	k := kinds[2]
	list := x.fill(k)
	x.held(k.alone)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := x.shared.Update(ctx, db.Write{ID: id(9), User: "alice", Data: []byte("new"), TTL: time.Hour}, 3); !errors.Is(err, context.DeadlineExceeded) || db.Refused(err) {
		t.Errorf("error %v", err)
	}
	x.gate.Open()
	ok(t, list...)
}

// With MaxBatch 1, or where connections are made ready for one caller, all go alone.
func TestNothingIsSharedWhereItMustNotBe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		most int
		opt  pgtest.Option
	}{
		"turned off": {1, pgtest.MaxConns(10)},
		"PrepareConn": {64, func(c *pgxpool.Config) {
			c.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { return true, nil }
		}},
		"BeforeAcquire": {64, func(c *pgxpool.Config) {
			c.BeforeAcquire = func(context.Context, *pgx.Conn) bool { return true } //nolint:staticcheck // deprecated, but in use
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ofEachKind(t, func(t *testing.T, k kind) {
				x := openShared(t, tt.most, tt.opt)
				x.gate.Shut(t)
				var wg sync.WaitGroup
				for n := range 10 {
					wg.Go(func() {
						if o := k.do(t.Context(), x, n); o.err != nil || !o.OK && !o.found.Present {
							t.Errorf("%+v", o)
						}
					})
				}
				x.held(10)
				x.wantSizes(k, slices.Repeat([]int{1}, 10)...)
				x.gate.Open()
				wg.Wait()
			})
		})
	}
}

// Not parallel: it looks at the goroutines of all tests.
func TestNoGoroutineIsLeftOfTrips(t *testing.T) {
	x := openShared(t, 64)
	for _, k := range kinds {
		list := x.fill(k)
		x.held(k.alone)
		list = append(list, x.more(k, 10, 25)...)
		x.gate.Open()
		ok(t, list...)
	}
	buf := make([]byte, 1<<20)
	pgtest.Eventually(t, "no trip runs", func() bool { return !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("db.(*trips)")) })
	if !x.shared.Idle() {
		t.Error("something is left of the trips")
	}
}
