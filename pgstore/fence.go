package pgstore

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A fence is an instant on the database's clock, one for each user. RevokeAll and
// RevokeOthers move it to the time at which they run. A sign-in whose request began
// before the fence is refused, even if it commits after.
//
// A request's start is known by this server's clock only. It is placed on the
// database's clock by reading that clock and subtracting how long ago, in monotonic
// time, the request began. So it does not matter what the servers' clocks say.

// clockReading is one reading of the database's clock, and when it was asked for and
// received by our clock. It was taken at some moment between the two.
type clockReading struct {
	clock, asked, heard time.Time
}

// earliest and latest return the bounds of t, an instant of our clock, on the
// database's clock. They are as far apart as the reading took.
func (c clockReading) earliest(t time.Time) time.Time { return c.clock.Add(-c.heard.Sub(t)) }
func (c clockReading) latest(t time.Time) time.Time   { return c.clock.Add(-c.asked.Sub(t)) }

// maxReadings bounds how often the clock is read for one decision. A reading decides
// only if it took less time than passed between the fence and the request's start. On
// a busy machine, a request that began a millisecond after a fence may need many.
const maxReadings = 50

// passesFence reports whether the user's fence lets this sign-in or renewal pass.
func (a *admission) passesFence(ctx context.Context, conn *pgxpool.Conn) (bool, error) {
	switch {
	case isOpen(a.fence), a.req != nil && a.req.exempt(a.user, a.fence.Time):
		return true, nil
	case a.isRenewal():
		// What is renewed was alive when it was deleted, so a fence from before then
		// has spared it.
		return a.renews.deletedAt.After(a.fence.Time), nil
	default:
		return a.beganAfterFence(ctx, conn)
	}
}

// beganAfterFence reports whether the request certainly began after the fence. The
// first reading includes the wait for the user's lock, so it may be too coarse to tell;
// then the clock is read again. If doubt remains, the answer is no.
func (a *admission) beganAfterFence(ctx context.Context, conn *pgxpool.Conn) (bool, error) {
	if a.req == nil || a.req.began.IsZero() {
		return true, nil // without Track, nobody knows when it began
	}
	for n := 1; ; n++ {
		if a.reading.earliest(a.req.began).After(a.fence.Time) {
			return true, nil
		}
		if n == maxReadings || !a.reading.latest(a.req.began).After(a.fence.Time) {
			return false, nil
		}
		a.reading.asked = time.Now()
		if err := conn.QueryRow(ctx, sqlClock).Scan(&a.reading.clock); err != nil {
			return false, err
		}
		a.reading.heard = time.Now()
	}
}

// isOpen reports whether the fence was never set: it is then -infinity.
func isOpen(fence pgtype.Timestamptz) bool {
	return !fence.Valid || fence.InfinityModifier != pgtype.Finite
}

// exempt reports whether the request has set this very fence itself.
func (r *request) exempt(user string, at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.fences, func(f fence) bool { return f.user == user && f.at.Equal(at) })
}

// hasFenced reports whether the request has revoked sessions of user itself.
func (r *request) hasFenced(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.fences, func(f fence) bool { return f.user == user })
}

// fenced records a fence that the request has set.
func (r *request) fenced(user string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fences = append(r.fences, fence{user: user, at: at})
}
