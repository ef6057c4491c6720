package cleanup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// patientBatches is how many batches of a portable sweep wait for locked rows as long as
	// LockTimeout says. The others wait for a hundredth of it, or a sweep that meets
	// many would take hours.
	patientBatches = 5
	hasteShare     = 100
)

// row is a session that is due.
type row struct {
	id   pgtype.UUID
	hour pgtype.Timestamptz
}

// sweepPortably deletes by id. Tables that are distributed over servers allow
// neither to delete by place nor to skip locked rows: a batch that meets a lock is
// passed over as a whole, once LockTimeout has passed.
func (s *sweep) sweepPortably(ctx context.Context) error {
	hour := longAgo     // where the next listing begins
	var passed []row    // rows that were left because of locks, for the OFFSET
	met := 0            // batches that met locks
	before := int64(-1) // progress before the last listing
	list := func(ctx context.Context, n int) (list []row, err error) {
		progress := s.Rows() + int64(met)
		if progress == before {
			// Nothing was deleted or left since the last listing. Something else keeps
			// these rows, a trigger for instance: listing them again would not end.
			return nil, nil
		}
		before = progress
		// The listing begins with this hour again, and those of it come first.
		passed = slices.DeleteFunc(passed, func(r row) bool { return !sameTime(r.hour, hour) })
		b := s.begin()
		b.Queue(sqlByIndex)
		b.Queue(s.sql.listIDs, s.graceMicros(), hour, n, len(passed)).Query(func(rows pgx.Rows) error {
			list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (row row, err error) {
				return row, r.Scan(&row.id, &row.hour)
			})
			return err
		})
		if err := s.send(ctx, b); err != nil {
			return nil, err
		}
		if len(list) > 0 {
			hour = list[len(list)-1].hour
		}
		return list, nil
	}
	return inBatches(ctx, s, list, func(ctx context.Context, rows []row) error {
		s.hasty = met >= patientBatches
		defer func() { s.hasty = false }()
		err := s.deleteIDs(ctx, rows)
		if !isContention(err) {
			return err
		}
		met++
		passed = append(passed, rows...)
		return nil
	})
}

func (s *sweep) deleteIDs(ctx context.Context, due []row) error {
	ids := make([]pgtype.UUID, len(due))
	for i, r := range due {
		ids[i] = r.id
	}
	var gone Result
	start := time.Now()
	if err := s.inTransaction(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql.deleteIDs, s.graceMicros(), ids)
		if err != nil {
			return err
		}
		var id pgtype.UUID
		var user, reason *string
		var users []string
		var theirs []pgtype.UUID
		if _, err := pgx.ForEachRow(rows, []any{&id, &user, &reason}, func() error {
			if user != nil {
				users, theirs = append(users, *user), append(theirs, id)
			}
			return gone.count(reason)
		}); err != nil || len(users) == 0 {
			return err
		}
		tag, err := tx.Exec(ctx, s.sql.unindex, users, theirs)
		gone.UserRows = tag.RowsAffected()
		return err
	}); err != nil {
		return err
	}
	s.done(gone, time.Since(start))
	return nil
}

// count adds one session that ended for this reason.
func (r *Result) count(reason *string) error {
	if reason == nil {
		r.Expired++
		return nil
	}
	switch *reason {
	case "signed_out":
		r.SignedOut++
	case "revoked":
		r.Revoked++
	case "evicted":
		r.Evicted++
	case "renewed":
		r.Renewed++
	default:
		return fmt.Errorf("a session ended for a reason that this release does not know: %q", *reason)
	}
	return nil
}
