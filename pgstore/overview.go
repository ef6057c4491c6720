package pgstore

import (
	"context"
	"time"

	"github.com/scspg/scspg/pgstore/internal/db"
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
	var t db.Totals
	err := s.db.Retry(ctx, func(ctx context.Context) (err error) {
		t, err = s.db.Totals(ctx, exactRows, sampleRows)
		return err
	})
	return Overview(t), opError("overview", err)
}
