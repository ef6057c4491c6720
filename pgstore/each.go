package pgstore

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Each returns an iterator over all live sessions, anonymous ones included, in the
// order of their ids. It reads pages of 1,000 sessions, so its memory is bounded, and
// it holds no connection while the loop body runs. A session that is alive throughout
// is seen exactly once; one that begins or ends meanwhile may be seen or not, and may
// lack CreatedAt, IP and UserAgent. After the first error, which may be that of ctx,
// the loop ends.
func (s *Store) Each(ctx context.Context) iter.Seq2[Session, error] {
	return func(yield func(Session, error) bool) {
		after := pgtype.UUID{Valid: true}
		for {
			if err := ctx.Err(); err != nil {
				yield(Session{}, opError("read sessions", 0, err))
				return
			}
			page, err := s.page(ctx, after)
			if err != nil {
				yield(Session{}, err)
				return
			}
			for _, p := range page {
				if !yield(p.Session, nil) {
					return
				}
				after = p.id
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

type pageRow struct {
	id pgtype.UUID
	Session
}

func (s *Store) page(ctx context.Context, after pgtype.UUID) ([]pageRow, error) {
	var page []pageRow
	err := s.do(ctx, "read sessions", func(ctx context.Context) error {
		page = page[:0]
		rows, err := s.pool.Query(ctx, s.sql.page, after, pageSize)
		if err != nil {
			return err
		}
		var p pageRow
		if _, err := pgx.ForEachRow(rows, []any{&p.id, &p.UserID, &p.Expiry, &p.LastSeenAt}, func() error {
			p.ID = p.id.String()
			page = append(page, p)
			return nil
		}); err != nil {
			return err
		}
		return s.addIndex(ctx, page)
	})
	return page, err
}

// addIndex adds what only the user index holds: CreatedAt, IP and UserAgent. It reads
// in a snapshot of its own, so for a session that has just ended they may be missing.
func (s *Store) addIndex(ctx context.Context, page []pageRow) error {
	var users []string
	var ids []pgtype.UUID
	at := make(map[pgtype.UUID]int)
	for i, p := range page {
		if p.UserID != "" {
			users, ids = append(users, p.UserID), append(ids, p.id)
			at[p.id] = i
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, s.sql.pageIndex, users, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var user string
		var id pgtype.UUID
		var sess Session
		if err := scanIndexRow(rows, &user, &id, &sess); err != nil {
			return err
		}
		if p := &page[at[id]]; p.UserID == user {
			p.CreatedAt, p.IP, p.UserAgent = sess.CreatedAt, sess.IP, sess.UserAgent
		}
	}
	return rows.Err()
}
