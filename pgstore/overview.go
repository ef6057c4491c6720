package pgstore

import (
	"context"
	"math"
	"time"
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
	var o Overview
	err := s.db.Retry(ctx, func(ctx context.Context) (err error) {
		o, err = s.overview(ctx)
		return err
	})
	return o, opError("overview", err)
}

func (s *Store) overview(ctx context.Context) (o Overview, err error) {
	rows, err := s.db.EstimatedRows(ctx)
	if err != nil {
		return o, err
	}
	percent := 0.0
	if o.Estimated = rows > exactRows; o.Estimated {
		percent = 100 * sampleRows / rows
	}
	t, err := s.db.Totals(ctx, percent)
	if err != nil {
		return o, err
	}
	o.Live, o.SignedIn, o.Users, o.Expired = t.Live, t.SignedIn, t.Users, t.Expired
	if o.Estimated && t.All > 0 {
		for _, n := range []*int64{&o.Live, &o.SignedIn, &o.Expired} {
			*n = int64(math.Round(float64(*n) * rows / float64(t.All)))
		}
	}
	o.OldestExpired, err = s.db.OldestExpired(ctx)
	return o, err
}
