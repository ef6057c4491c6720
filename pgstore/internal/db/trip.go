package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
)

// goAlone makes a trip for o only, unless others wait by the time that it has its connection:
// if the app holds the pool, that may be long. Then o waits with them.
func (t *trips) goAlone(ctx context.Context, o *op) (err error) {
	handedOn := false
	defer func() {
		if !handedOn {
			t.land(&o.lone, err, false)
		}
	}()
	conn, err := t.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	if t.board(&o.lone); len(o.lone.ops) > 1 {
		handedOn = true
		go t.share(conn, &o.lone)
		return nil
	}
	defer conn.Release()
	return t.one(ctx, conn, o)
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

var errNotReturned = errors.New("a shared round trip has panicked")

// share makes a trip or, without a connection, that of those who wait once it has one. It
// runs in a goroutine and under contexts of its own: nobody's end is that of the others. If
// it fails, they are told to go on by themselves, except for writes that may have been
// applied: their callers have to look.
func (t *trips) share(conn *pgxpool.Conn, tr *trip) {
	boarded, sent, err := conn != nil, false, errNotReturned
	defer func() {
		_ = recover() // from a tracer of the app's: who goes on by themselves meet it again
		if !boarded { // for want of a connection: each of them has to try
			t.board(tr)
		}
		if conn != nil {
			conn.Release()
		}
		t.land(tr, err, err != nil && (!sent || !t.writes || Refused(err)))
	}()
	if !boarded {
		if conn, err = t.acquire(); err != nil {
			return
		}
		t.board(tr)
		boarded, err = true, errNotReturned
	}
	sent = true
	err = t.send(conn, tr.ops)
}

func (t *trips) acquire() (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	return t.pool.Acquire(ctx)
}

// send sends operations in the order of their sessions, so that no two trips wait for each
// other's rows. Those that ask for the same share the result of one.
func (t *trips) send(conn *pgxpool.Conn, ops []*op) error {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	switch len(ops) {
	case 0:
		return nil
	case 1:
		return t.one(ctx, conn, ops[0])
	}
	slices.SortFunc(ops, func(a, b *op) int {
		return cmp.Or(bytes.Compare(a.id.Bytes[:], b.id.Bytes[:]), cmp.Compare(a.version, b.version),
			cmp.Compare(a.user, b.user), cmp.Compare(b.ttl, a.ttl)) // of touches, the longest is for all
	})
	same := func(a, b *op) bool { return a.asked == b.asked }
	if err := t.many(ctx, conn, slices.CompactFunc(slices.Clone(ops), same)); err != nil {
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
