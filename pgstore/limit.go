package pgstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// candidate is a session that may have to make room.
type candidate struct {
	id            pgtype.UUID
	created, seen time.Time
}

// makeRoom picks the sessions to end so that the user stays within the limit. The
// session being admitted neither counts nor is picked.
func (s *Store) makeRoom(ctx context.Context, conn *pgxpool.Conn, a *admission, limit int) ([]pgtype.UUID, error) {
	excess := len(a.others) - (limit - 1)
	if limit == 0 || excess <= 0 || a.own.state() == Active && a.own.user == a.user {
		return nil, nil
	}
	if a.ttl <= 0 && a.prior == nil && a.renews == nil {
		return nil, nil // it is over as it begins, and takes no place
	}
	byAge := func(x, y candidate) int {
		return cmp.Or(x.created.Compare(y.created), slices.Compare(x.id.Bytes[:], y.id.Bytes[:]))
	}
	switch s.cfg.LimitPolicy {
	case EvictLeastRecent:
		slices.SortFunc(a.others, func(x, y candidate) int { return cmp.Or(x.seen.Compare(y.seen), byAge(x, y)) })
	case Reject:
		if !a.isRenewal() {
			return s.makeRoomOfUnreadable(ctx, conn, a, excess)
		}
		slices.SortFunc(a.others, func(x, y candidate) int { return byAge(y, x) })
	default:
		slices.SortFunc(a.others, byAge)
	}
	return idsOf(a.others[:excess]), nil
}

// makeRoomOfUnreadable is the last resort before a sign-in is refused: sessions whose
// data is damaged sign nobody in, so they must not keep their user out either. It
// returns those, or ErrUserLimit if they are too few.
func (s *Store) makeRoomOfUnreadable(ctx context.Context, conn *pgxpool.Conn, a *admission, excess int) ([]pgtype.UUID, error) {
	rows, err := conn.Query(ctx, s.sql.dataOf, idsOf(a.others))
	if err != nil {
		return nil, err
	}
	var unreadable []pgtype.UUID
	var id pgtype.UUID
	var data []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &data}, func() error {
		if frame.Check(data) != nil { // only Codec names a user, so the data must be a frame
			unreadable = append(unreadable, id)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(unreadable) < excess {
		s.stat.refusals.Add(1)
		return nil, ErrUserLimit
	}
	return unreadable, nil
}

func idsOf(candidates []candidate) []pgtype.UUID {
	ids := make([]pgtype.UUID, len(candidates))
	for i, c := range candidates {
		ids[i] = c.id
	}
	return ids
}
