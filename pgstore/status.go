package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// State says whether a session is alive.
type State int

const (
	// None: there is no session. The request sent no token, or one that is unknown,
	// swept, or has unreadable data; or it does not run under Track.
	None State = iota
	// Active: the session is alive.
	Active
	// Expired: the session timed out, by its idle timeout or its absolute deadline.
	Expired
	// Ended: the session was ended before it timed out. EndReason says why.
	Ended
)

// String returns the name of the constant, in lower case.
func (s State) String() string {
	if names := [...]string{"none", "active", "expired", "ended"}; s >= 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Status is what a request knows of its session.
type Status struct {
	State     State
	EndReason EndReason // "" unless State is Ended
	ID        string    // see IDOf; "" where State is None
	UserID    string    // "" while anonymous
	Expiry    time.Time // by the database's clock; zero where State is None
	// Remaining is how long the session has left at the time of the call, if it is not
	// used again. It does not depend on this server's clock. 0 unless State is Active.
	Remaining time.Duration
}

// StatusOf returns the status of the request's session: the one that it came with or,
// after a sign-in or a renewal, the one that replaced it. It needs Track; without it
// State is None, and that is logged once. It does no I/O: the status is as of the request's
// last read or write of the session. If a write was dropped, the status says how the session
// had ended. It is safe for concurrent use.
func (s *Store) StatusOf(ctx context.Context) Status {
	req := s.requestOf(ctx)
	if req == nil {
		s.statusNoted.Do(func() {
			s.cfg.Logger.WarnContext(ctx, "pgstore: StatusOf was called with a context that does not come from Track, "+
				"and can tell nothing; mount store.Track(sm.LoadAndSave(mux))")
		})
		return Status{}
	}
	known, ok := req.Current()
	st := Status{State: stateOf(known)}
	if !ok || st.State == None {
		return Status{}
	}
	st.ID, st.UserID, st.Expiry = known.ID.String(), known.User, known.Expiry
	switch st.State {
	case Active:
		st.Remaining = known.Expiry.Sub(known.Now) - time.Since(known.TakenAt)
		if st.Remaining <= 0 {
			st.State, st.Remaining = Expired, 0
		}
	case Ended:
		st.EndReason = EndReason(known.Reason)
	}
	return st
}

func stateOf(known request.Session) State {
	switch {
	case known.Phase == request.Live:
		return Active
	case known.Reason == "":
		return None
	case known.Reason == row.TimedOut:
		return Expired
	default:
		return Ended
	}
}
