package pgstore

import (
	"context"
	"fmt"
	"time"
)

// State is what has become of a session.
type State int

const (
	// None means that there is no session: no token came, or an unknown one.
	None State = iota
	// Active is a session that is alive.
	Active
	// Expired is a session that timed out, by its idle timeout or its deadline.
	Expired
	// Ended is a session that was ended before its time: EndReason says why.
	Ended
)

// String returns the name of the constant, in lower case.
func (s State) String() string {
	switch s {
	case None:
		return "none"
	case Active:
		return "active"
	case Expired:
		return "expired"
	case Ended:
		return "ended"
	default:
		return fmt.Sprintf("State(%d)", int(s))
	}
}

// Status is what a request knows of its session.
type Status struct {
	State     State
	EndReason EndReason // "" unless State is Ended
	ID        string    // see IDOf; "" where State is None
	UserID    string    // "" while anonymous
	Expiry    time.Time // by the database's clock
	// Remaining is the time to Expiry as of this call, by the database's clock.
	// 0 unless State is Active.
	Remaining time.Duration
}

// StatusOf returns the status of the session that the request came with, or of the
// one that has followed it: after a sign-in, or a renewal. It needs Track (None
// without it) and does no I/O: the status is as of the last read or write of this
// request. A write that was dropped has found out why, so after it StatusOf tells
// how the session ended.
func (s *Store) StatusOf(ctx context.Context) Status {
	req := s.requestOf(ctx)
	if req == nil {
		return Status{}
	}
	e, ok := req.status()
	if !ok || e.state == None {
		return Status{}
	}
	st := Status{State: e.state, EndReason: e.reason, ID: e.id.String(), UserID: e.user, Expiry: e.expiry}
	if e.state == Active {
		st.Remaining = e.expiry.Sub(e.now) - time.Since(e.at)
		if st.Remaining <= 0 {
			st.State, st.Remaining = Expired, 0
		}
	}
	return st
}
