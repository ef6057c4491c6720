package db

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// The rule by which operations share round trips; for reads, touches and data writes each on
// its own. So many trips as stands here may be in flight with one operation each, which goes
// at once and in its caller's goroutine, as if there were no others. Operations that come
// while so many are in flight wait, and the next trip takes all of them along. It starts when
// a trip returns, or as soon as those who wait are as many as those in flight: then a trip
// more pays, and the longer the way to the server, the more are under way, without a timer
// and without knowing how long it is. There are never more trips in flight than the pool has
// connections. A larger number costs throughput, since an operation alone takes as much of
// either side's time as a trip of several; a smaller one costs latency where few clients
// have the server to themselves. Writes have the smaller one, as those that share a trip
// share its flush to disk.
const (
	readsAlone  = 4
	writesAlone = 2 // touches, too

	// patience is after how long a trip is late, because of a locked row or a dead connection:
	// it no longer counts as one in flight.
	patience = 50 * time.Millisecond

	// maxTripBytes is how much data makes a trip full, however few its writes are.
	maxTripBytes = 1 << 20
)

// op is one operation that may share its trip with others.
type op struct {
	asked
	ttl   time.Duration // of a touch
	write *Write        // of a data write

	row row.Row // what a read has found
	out Written // what a touch or a write has done

	lone  trip          // the one that it begins alone
	done  chan struct{} // closed when its trip lands; nil if it goes alone
	err   error         // then: the trip's
	again bool          // then: it is to be done anew, on its own
	holds bool          // its session is in trips.held for it, under mu
	left  bool          // its caller has not waited for the trip, under mu
}

// asked is what tells the operations of a trip apart: those with the same share one
// statement and its result.
type asked struct {
	id      pgtype.UUID
	user    string // of a touch
	version int64  // of a touch or a write
}

// trip is a round trip. Its fields are under trips.mu, until its operations are sent.
type trip struct {
	ops  []*op
	sent time.Time // zero until it has a connection
}

// trips are the round trips of one kind of operation.
type trips struct {
	pool     *pgxpool.Pool
	timeout  time.Duration // of a trip, once it has its connection
	patience time.Duration
	alone    int // up to so many trips begin with one operation each
	most     int // so many may be in flight
	max      int // so many operations may share one; 0 or 1: none do
	// writes: of one session, a write begins once the one before it is over; and none is
	// repeated if it may have been applied.
	writes bool
	// one carries out an operation by itself; many those that share a trip, each of which
	// asks for something else.
	one  func(context.Context, runner, *op) error
	many func(context.Context, *pgxpool.Conn, []*op) error

	mu      sync.Mutex
	wait    []*op
	out     []*trip              // in flight, and not late
	flying  int                  // their operations
	called  bool                 // one more is yet to take along who waits
	looking bool                 // look will run
	held    map[pgtype.UUID]bool // sessions with a write that has begun and is not over
}

// do carries out o. Its caller waits no longer than ctx lasts; a trip that has left by then
// goes on for the others.
func (t *trips) do(ctx context.Context, o *op) (err error) {
	if t.max <= 1 {
		return t.one(ctx, t.pool, o)
	}
	alone := t.join(o)
	if t.writes {
		defer t.finish(o)
	}
	if alone {
		err = t.goAlone(ctx, o)
	}
	if o.done == nil { // nobody has joined it
		return err
	}
	again, err := t.await(ctx, o)
	if again && ctx.Err() == nil {
		return t.one(ctx, t.pool, o)
	}
	return err
}

// join reports whether o goes alone; else it waits.
func (t *trips) join(o *op) (alone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy() < t.alone && len(t.wait) == 0 && t.isFree(o) {
		t.out = append(t.out, &o.lone)
		t.begin(&o.lone, o)
		return true
	}
	o.done = make(chan struct{})
	t.wait = append(t.wait, o)
	if len(t.wait) >= t.flying {
		t.call()
	}
	t.lookLater()
	return false
}

// busy is how many trips are in flight. mu is held.
func (t *trips) busy() int {
	if t.called {
		return len(t.out) + 1
	}
	return len(t.out)
}

// isFree reports whether o may begin: no other write of its session is under way. mu is held.
func (t *trips) isFree(o *op) bool { return !t.held[o.id] }

// begin puts o on a trip. mu is held.
func (t *trips) begin(tr *trip, o *op) {
	tr.ops = append(tr.ops, o)
	t.flying++
	if t.writes {
		t.held[o.id], o.holds = true, true
	}
}

// arrive strikes a trip out. mu is held.
func (t *trips) arrive(tr *trip) {
	if i := slices.Index(t.out, tr); i >= 0 {
		t.out = slices.Delete(t.out, i, i+1)
		t.flying -= len(tr.ops)
	}
}

// lookLater has look run while somebody waits. mu is held.
func (t *trips) lookLater() {
	if !t.looking && len(t.wait) > 0 {
		t.looking = true
		time.AfterFunc(t.patience, t.look)
	}
}

// look strikes out the trips that are late.
func (t *trips) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range slices.Clone(t.out) {
		if !tr.sent.IsZero() && time.Since(tr.sent) >= t.patience {
			t.arrive(tr)
			t.call()
		}
	}
	t.looking = false
	t.lookLater()
}

// call starts a trip if there is somebody to take along. mu is held.
func (t *trips) call() {
	if !t.called && t.busy() < t.most && slices.ContainsFunc(t.wait, t.isFree) {
		t.called = true
		go t.share(nil, &trip{})
	}
}

// finish lets the next write of the session begin.
func (t *trips) finish(o *op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.holds && !o.left {
		delete(t.held, o.id)
		t.call()
	}
}

// board adds those who wait to a trip that has one operation, or to the one that was called,
// now that it has its connection.
func (t *trips) board(tr *trip) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.sent = time.Now()
	switch {
	case len(tr.ops) == 0:
		t.called = false
		t.out = append(t.out, tr)
	case len(t.wait) > 0:
		tr.ops[0].done = make(chan struct{})
	}
	size := 0
	t.wait = slices.DeleteFunc(t.wait, func(o *op) bool {
		if len(tr.ops) == t.max || size >= maxTripBytes || !t.isFree(o) {
			return false
		}
		if o.write != nil {
			size += len(o.write.Data)
		}
		t.begin(tr, o)
		return true
	})
}

// land ends a trip. The next one takes along who waits.
func (t *trips) land(tr *trip, err error, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.arrive(tr)
	for _, o := range tr.ops {
		o.err, o.again = err, again
		if o.left && o.holds {
			delete(t.held, o.id)
		}
		if o.done != nil {
			close(o.done)
		}
	}
	t.call()
}
