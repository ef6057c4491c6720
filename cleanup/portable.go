package cleanup

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// maxSkipped bounds the batches that a portable sweep passes over: each listing has
// to name their sessions.
const maxSkipped = 10

// sweepPortably deletes by id. Tables that are distributed over servers allow
// neither to delete by place nor to skip locked rows: a batch that meets a lock is
// passed over as a whole, once LockTimeout has passed.
func (s *sweep) sweepPortably(ctx context.Context) error {
	skipped := []pgtype.UUID{} // not nil, which would be NULL
	for passed := 0; ; {
		n, err := s.next(ctx, s.Batch)
		if err != nil {
			return err
		}
		ids, err := s.listIDs(ctx, skipped, n)
		if err != nil || len(ids) == 0 {
			return err
		}
		err = s.deleteIDs(ctx, ids)
		if code(err) == codeLockNotAvail || isConflict(err) {
			skipped = append(skipped, ids...)
			if passed++; passed < maxSkipped {
				continue
			}
			return fmt.Errorf("%d batches met locked rows: %w", passed, err)
		}
		if err != nil {
			return err
		}
	}
}

func (s *sweep) listIDs(ctx context.Context, skipped []pgtype.UUID, n int) (ids []pgtype.UUID, err error) {
	b := s.begin()
	b.Queue(s.sql.listIDs, s.graceMicros(), s.from, skipped, n).Query(func(rows pgx.Rows) error {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[pgtype.UUID])
		return err
	})
	return ids, s.send(ctx, b)
}

func (s *sweep) deleteIDs(ctx context.Context, ids []pgtype.UUID) error {
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
