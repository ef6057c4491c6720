package cleanup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// listBatches is how many batches are listed at a time: some tens of milliseconds'
// reading, and a few megabytes.
const listBatches = 100

// maxTries bounds how often a batch is tried that crosses a sign-in, which too deletes
// rows of the user index.
const maxTries = 4

// sweepByPlace deletes by the place of a row in its table, the fastest way there is.
func (s *sweep) sweepByPlace(ctx context.Context) error {
	for {
		places, last, err := s.list(ctx, s.Batch*listBatches)
		if err != nil || len(places) == 0 {
			return err
		}
		full := len(places) == s.Batch*listBatches
		before := s.Rows()
		for len(places) > 0 {
			n, err := s.next(ctx, min(s.Batch, len(places)))
			if err != nil {
				return err
			}
			err = s.deletePlaces(ctx, places[:n])
			for tries := 1; isConflict(err) && tries < maxTries; tries++ {
				err = s.deletePlaces(ctx, places[:n])
			}
			if err != nil {
				return err
			}
			places = places[n:]
		}
		if !full {
			return nil
		}
		s.from = last
		if s.Rows() == before {
			// All of them are locked, or somebody else's work: past that hour.
			s.from = last.Add(time.Hour)
		}
	}
}

// list returns the places of rows that are due, and the hour of the last of them.
func (s *sweep) list(ctx context.Context, n int) (places []string, last time.Time, err error) {
	b := s.begin()
	b.Queue(s.sql.list, s.graceMicros(), s.from, n).Query(func(rows pgx.Rows) error {
		var place string
		_, err := pgx.ForEachRow(rows, []any{&place, &last}, func() error {
			places = append(places, place)
			return nil
		})
		return err
	})
	return places, last, s.send(ctx, b)
}

func (s *sweep) deletePlaces(ctx context.Context, places []string) error {
	var gone Result
	b := s.begin()
	b.Queue(s.sql.delete, s.graceMicros(), arrayOf(places)).QueryRow(func(r pgx.Row) error {
		return r.Scan(&gone.Expired, &gone.SignedOut, &gone.Revoked, &gone.Evicted, &gone.Renewed, &gone.UserRows)
	})
	start := time.Now()
	if err := s.send(ctx, b); err != nil {
		return err
	}
	s.done(gone, time.Since(start))
	return nil
}

// arrayOf is an array literal of places: pgx has no array of them that would work in
// all its query modes.
func arrayOf(places []string) string {
	text := make([]byte, 0, len(places)*len(`"(1234567,123)",`)+2)
	text = append(text, '{')
	for i, place := range places {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), place...), '"')
	}
	return string(append(text, '}'))
}
