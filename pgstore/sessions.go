package pgstore

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// Session is a live session as its user, or an operator, may see it. It holds
// neither token nor data.
type Session struct {
	ID     string // see IDOf
	UserID string // "" while anonymous
	// CreatedAt is when the user signed in; under Track a renewal keeps it. Zero while
	// anonymous.
	CreatedAt time.Time
	// LastSeenAt is when the session was last written or touched. The last request may
	// be up to Config.TouchAfter later.
	LastSeenAt time.Time
	// Expiry is when the session times out if it is not used again: by its idle timeout
	// or its absolute deadline, whichever is earlier.
	Expiry time.Time
	// IP and UserAgent are the client's at the last sign-in or renewal, as Track or
	// WithClient gave them. Zero if unknown.
	IP        netip.Addr
	UserAgent string
	// Label is what WithLabel, WithClient or Rename gave it, "" for none. Under Track, renewals
	// and sign-ins of the same user in the same browser keep it.
	Label string
}

func sessionOf(l row.Listed) Session {
	return Session{ID: l.ID.String(), UserID: l.User, CreatedAt: l.CreatedAt, LastSeenAt: l.LastSeen, Expiry: l.Expiry, IP: l.IP, UserAgent: l.UserAgent, Label: l.Label}
}

// Sessions returns the user's live sessions, the most recently seen first. The list
// is exact: it is read in one snapshot, in one round trip. (On Citus each shard has
// its own snapshot, so a session that is being renewed at that instant may be
// missing.) For a user without sessions the list is empty, not nil. An empty userID
// is an error.
func (s *Store) Sessions(ctx context.Context, userID string) ([]Session, error) {
	if err := checkUserID("list sessions", userID); err != nil {
		return nil, err
	}
	var listed []row.Listed
	err := s.do(ctx, "list sessions", func(ctx context.Context) (err error) {
		listed, err = s.db.Listing(ctx, userID)
		return err
	})
	if err != nil {
		return nil, err
	}
	list := make([]Session, len(listed))
	for i, l := range listed {
		list[i] = sessionOf(l)
	}
	slices.SortFunc(list, func(x, y Session) int {
		return cmp.Or(y.LastSeenAt.Compare(x.LastSeenAt), y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return list, nil
}

// Count returns how many live sessions the user has. An empty userID is an error.
func (s *Store) Count(ctx context.Context, userID string) (int, error) {
	if err := checkUserID("count sessions", userID); err != nil {
		return 0, err
	}
	var n int
	err := s.do(ctx, "count sessions", func(ctx context.Context) (err error) {
		n, err = s.db.Count(ctx, userID)
		return err
	})
	return n, err
}

// checkUserID refuses what cannot be a user id, and "", which stands for nobody.
func checkUserID(op, userID string) error {
	if userID == "" {
		return fmt.Errorf("pgstore: %s: the user id is empty", op)
	}
	if err := validUserID(userID); err != nil {
		return fmt.Errorf("pgstore: %s: %w", op, err)
	}
	return nil
}
