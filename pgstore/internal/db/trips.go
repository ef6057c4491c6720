package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
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

// trips are the round trips of one kind of operation.
type trips struct {
	pool    *pgxpool.Pool
	timeout time.Duration // of a trip, once it has its connection
	alone   int           // up to so many trips begin with one operation each
	most    int           // so many may be in flight
	max     int           // so many operations may share one; 0 or 1: none do
	// writes: of one session, a write begins once the one before it is over; and none is
	// repeated if it may have been applied.
	writes bool
	// send carries out operations that all ask for something else. single carries out one,
	// as if nothing were ever shared.
	send   func(context.Context, *pgxpool.Conn, []*op) error
	single func(context.Context, *op) error

	mu     sync.Mutex
	wait   []*op
	flying int                  // operations on trips
	busy   int                  // trips in flight
	called bool                 // one of them is yet to take along who waits
	held   map[pgtype.UUID]bool // sessions with a write that has begun and is not over
}

// do carries out o. Its caller waits no longer than ctx lasts; a trip that has left by then
// goes on for the others.
func (t *trips) do(ctx context.Context, o *op) (err error) {
	if t.max <= 1 {
		return t.single(ctx, o)
	}
	alone := t.join(o)
	if t.writes {
		defer t.finish(o)
	}
	var again bool
	if alone {
		again, err = t.goAlone(ctx, o)
	} else {
		again, err = t.await(ctx, o)
	}
	if again && ctx.Err() == nil {
		return t.single(ctx, o)
	}
	return err
}

// join reports whether o goes alone; else it waits.
func (t *trips) join(o *op) (alone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy < t.alone && len(t.wait) == 0 && t.isFree(o) {
		t.busy++
		t.begin(o)
		return true
	}
	o.done = make(chan struct{})
	t.wait = append(t.wait, o)
	if len(t.wait) >= t.flying {
		t.call()
	}
	return false
}

// isFree reports whether o may begin: no other write of its session is under way. mu is held.
func (t *trips) isFree(o *op) bool { return !t.held[o.id] }

// begin puts o on a trip. mu is held.
func (t *trips) begin(o *op) {
	t.flying++
	if t.writes {
		t.held[o.id], o.holds = true, true
	}
}

// call starts a trip if there is somebody to take along. mu is held.
func (t *trips) call() {
	if !t.called && t.busy < t.most && slices.ContainsFunc(t.wait, t.isFree) {
		t.called = true
		t.busy++
		go t.trip(nil, nil)
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

// await waits until the trip of o has landed, and reports whether o is to be done anew.
func (t *trips) await(ctx context.Context, o *op) (again bool, err error) {
	select {
	case <-o.done:
		return o.again, o.err
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-o.done:
		return o.again, o.err
	default:
	}
	if i := slices.Index(t.wait, o); i >= 0 {
		t.wait = slices.Delete(t.wait, i, i+1)
	} else {
		o.left = true
	}
	return false, ctx.Err()
}

// goAlone makes a trip for o only, unless others wait by the time that it has its connection:
// if the app holds the pool, that may be long.
func (t *trips) goAlone(ctx context.Context, o *op) (again bool, err error) {
	ops, handedOn := []*op{o}, false
	defer func() {
		if !handedOn {
			t.land(ops, err, false)
		}
	}()
	conn, err := t.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	if ops = t.board(ops); len(ops) > 1 {
		handedOn = true
		go t.trip(conn, ops)
		return t.await(ctx, o)
	}
	defer conn.Release()
	err = t.send(ctx, conn, ops)
	// For a locked row it waits outside of the rule, or others would wait for the row, too.
	return pgfault.Code(err) == pgfault.LockNotAvailable, err
}

// board adds those who wait to a trip that has ops, or to the one that was called if nil.
func (t *trips) board(ops []*op) []*op {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ops == nil {
		t.called = false
	} else if len(t.wait) > 0 {
		ops[0].done = make(chan struct{})
	}
	size := 0
	t.wait = slices.DeleteFunc(t.wait, func(o *op) bool {
		if len(ops) == t.max || size >= maxTripBytes || !t.isFree(o) {
			return false
		}
		if o.write != nil {
			size += len(o.write.Data)
		}
		t.begin(o)
		ops = append(ops, o)
		return true
	})
	return ops
}

// land ends a trip. The next one takes along who waits.
func (t *trips) land(ops []*op, err error, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	t.flying -= len(ops)
	for _, o := range ops {
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

var errNotReturned = errors.New("a shared round trip has panicked")

// trip makes the trip of ops or, without a connection, of those who wait once it has one. It
// runs in a goroutine and under contexts of its own: nobody's end is that of the others. If
// it fails, they are told to go on by themselves, except for writes that may have been
// applied: their callers have to look.
func (t *trips) trip(conn *pgxpool.Conn, ops []*op) {
	boarded, sent, err := conn != nil, false, errNotReturned
	defer func() {
		_ = recover() // from a tracer of the app's: who goes on by themselves meet it again
		if !boarded { // for want of a connection: each of them has to try
			ops = t.board(nil)
		}
		if conn != nil {
			conn.Release()
		}
		t.land(ops, err, err != nil && (!sent || !t.writes || Refused(err)))
	}()
	if !boarded {
		if conn, err = t.acquire(); err != nil {
			return
		}
		ops, boarded, err = t.board(nil), true, errNotReturned
	}
	sent = true
	err = t.sendAll(conn, ops)
}

func (t *trips) acquire() (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	return t.pool.Acquire(ctx)
}

// sendAll sends operations in the order of their sessions, so that no two trips wait for each
// other's rows. Those that ask for the same share the result of one.
func (t *trips) sendAll(conn *pgxpool.Conn, ops []*op) error {
	if len(ops) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	slices.SortFunc(ops, func(a, b *op) int {
		return cmp.Or(bytes.Compare(a.id.Bytes[:], b.id.Bytes[:]), cmp.Compare(a.version, b.version),
			cmp.Compare(a.user, b.user), cmp.Compare(b.ttl, a.ttl)) // of touches, the longest is for all
	})
	same := func(a, b *op) bool { return a.asked == b.asked }
	if err := t.send(ctx, conn, slices.CompactFunc(slices.Clone(ops), same)); err != nil {
		return err
	}
	for i, o := range ops[1:] {
		if first := ops[i]; same(first, o) {
			o.row, o.out = first.row, first.out
			o.row.Data = bytes.Clone(first.row.Data) // it is the caller's to do with what it likes
		}
	}
	return nil
}
