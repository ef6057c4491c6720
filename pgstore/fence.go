package pgstore

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A fence is an instant on the database's clock, one for each user: RevokeAll and
// RevokeOthers move it to their own time. A sign-in whose request began before it
// comes too late, even if it commits after.

// clockReading is the database's clock, and when it was asked for and heard on
// ours. The reading was taken in between.
type clockReading struct {
	clock, asked, heard time.Time
}

// earliest and latest bound where t, a local instant, stands on the database's
// clock. Both are exact but for the time the answer took.
func (c clockReading) earliest(t time.Time) time.Time { return c.clock.Add(-c.heard.Sub(t)) }
func (c clockReading) latest(t time.Time) time.Time   { return c.clock.Add(-c.asked.Sub(t)) }

// maxReadings bounds the attempts at a sharper reading. One is needed whose answer took
// less than the request has begun after the fence: on a busy machine, with a fence that
// was set a millisecond before, many are not.
const maxReadings = 50

// beganAfterFence reports whether the request surely began after the fence. The
// first reading is blurred by the wait for the user's lock; where that matters, the
// clock is read again. What stays in doubt is refused: late, never let through.
func (a *admission) beganAfterFence(ctx context.Context, conn *pgxpool.Conn) (bool, error) {
	if isOpen(a.fence) || a.req == nil || a.req.began.IsZero() {
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

// passes decides by the fence. What does not pass has been revoked.
func (a *admission) passes(after bool) bool {
	if after || isOpen(a.fence) || a.req != nil && a.req.exempt(a.user, a.fence.Time) {
		return true
	}
	a.own.present, a.own.reason = true, Revoked
	return false
}

// isOpen reports whether no fence was ever set: it stands at -infinity.
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
