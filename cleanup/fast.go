package cleanup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxTries bounds how often a batch is tried that crosses a sign-in, which too deletes
// rows of the user index.
const maxTries = 4

// sweepByPlace deletes by the place of a row in its table, the fastest way there is. A
// batch that meets a row which somebody else has locked is tried again, without such
// rows, and so is the rest of its listing.
func (s *sweep) sweepByPlace(ctx context.Context) error {
	hour, place := longAgo, "(0,0)" // after which to go on
	contended := false              // the listing in hand has met rows that others hold
	list := func(ctx context.Context, n int) (places []string, err error) {
		contended = false
		b := s.begin()
		b.Queue(sqlByIndex)
		b.Queue(s.sql.list, s.graceMicros(), hour, place, n).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&place, &hour}, func() error {
				places = append(places, place)
				return nil
			})
			return err
		})
		return places, s.send(ctx, b)
	}
	return inBatches(ctx, s, list, func(ctx context.Context, places []string) error {
		if !contended {
			s.hasty = true
			err := s.deletePlaces(ctx, s.sql.delete, places)
			s.hasty = false
			if contended = isContention(err); !contended {
				return err
			}
		}
		err := s.deletePlaces(ctx, s.sql.deleteFree, places)
		for tries := 1; isConflict(err) && tries < maxTries; tries++ {
			err = s.deletePlaces(ctx, s.sql.deleteFree, places)
		}
		return err
	})
}

func (s *sweep) deletePlaces(ctx context.Context, sql string, places []string) error {
	var gone Result
	b := s.begin()
	b.Queue(sql, s.graceMicros(), arrayOf(places)).QueryRow(func(r pgx.Row) error {
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
