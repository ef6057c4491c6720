package pgstore

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// exactRows is the table size up to which Overview counts every row.
	exactRows = 1_000_000
	// sampleRows is about how many rows it looks at beyond.
	sampleRows = 200_000
)

// Overview is the state of the session table as a whole.
type Overview struct {
	Live     int64 // live sessions
	SignedIn int64 // those of them that have a user
	Users    int64 // the users that have any
	Expired  int64 // rows past their expiry that the sweeper has not taken yet
	// OldestExpired is the earliest expiry among Expired, always exact; zero if none.
	OldestExpired time.Time
	// Estimated says that the counts were scaled up from a sample of the table,
	// which has more than a million rows. Users is then a lower bound.
	Estimated bool
}

// Overview reads the totals, by counting up to a million rows and by sampling
// beyond. It takes up to some hundred milliseconds and is meant for dashboards and
// alerts, not for requests. It runs until ctx ends; Config.Timeout does not apply.
func (s *Store) Overview(ctx context.Context) (Overview, error) {
	const op = "overview"
	var rows float64
	// reltuples is -1 until the first vacuum or analyze.
	if err := s.pool.QueryRow(ctx, sqlEstimate, s.sql.sessionsTable).Scan(&rows); err != nil {
		return Overview{}, opError(op, 0, err)
	}
	o := Overview{Estimated: rows > exactRows}
	query, args := s.sql.totals, []any(nil)
	if o.Estimated {
		query, args = s.sql.sample, []any{100 * sampleRows / rows}
	}
	var seen int64
	err := s.pool.QueryRow(ctx, query, args...).Scan(&o.Live, &o.SignedIn, &o.Users, &o.Expired, &seen)
	if err != nil {
		return Overview{}, opError(op, 0, err)
	}
	if o.Estimated && seen > 0 {
		for _, n := range []*int64{&o.Live, &o.SignedIn, &o.Expired} {
			*n = int64(math.Round(float64(*n) * rows / float64(seen)))
		}
	}
	var oldest pgtype.Timestamptz
	if err := s.pool.QueryRow(ctx, s.sql.oldest).Scan(&oldest); err != nil {
		return Overview{}, opError(op, 0, err)
	}
	o.OldestExpired = oldest.Time
	return o, nil
}
