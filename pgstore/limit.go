package pgstore

import (
	"cmp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// candidate is a session that may have to make room.
type candidate struct {
	id            pgtype.UUID
	created, seen time.Time
}

// makeRoom picks the sessions to end so that the user stays within the limit. The
// session being admitted neither counts nor is picked.
func (s *Store) makeRoom(a *admission, limit int) ([]pgtype.UUID, error) {
	excess := len(a.others) - (limit - 1)
	if limit == 0 || excess <= 0 || a.own.state() == Active && a.own.user == a.user {
		return nil, nil
	}
	byAge := func(x, y candidate) int {
		return cmp.Or(x.created.Compare(y.created), slices.Compare(x.id.Bytes[:], y.id.Bytes[:]))
	}
	switch s.cfg.LimitPolicy {
	case EvictLeastRecent:
		slices.SortFunc(a.others, func(x, y candidate) int { return cmp.Or(x.seen.Compare(y.seen), byAge(x, y)) })
	case Reject:
		if !a.isRenewal() {
			s.stat.refusals.Add(1)
			return nil, ErrUserLimit
		}
		slices.SortFunc(a.others, func(x, y candidate) int { return byAge(y, x) })
	default:
		slices.SortFunc(a.others, byAge)
	}
	victims := make([]pgtype.UUID, excess)
	for i := range victims {
		victims[i] = a.others[i].id
	}
	return victims, nil
}
