package pgstore

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Each returns an iterator over all live sessions, anonymous ones included, in the
// order of their ids. It reads pages of 1000 sessions, each in one round trip and a
// snapshot of its own, so its memory is constant and it holds no connection while
// the loop body runs. A session that lives throughout is seen once; one that begins
// or ends meanwhile may or may not be. The loop ends after the first error, and with
// ctx.
func (s *Store) Each(ctx context.Context) iter.Seq2[Session, error] {
	return func(yield func(Session, error) bool) {
		after := pgtype.UUID{Valid: true}
		for {
			if err := ctx.Err(); err != nil {
				yield(Session{}, opError("read sessions", s.cfg.Timeout, err))
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

// addIndex completes a page with what only the user index holds. It is a second
// read, so a session that has just ended may lack it.
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
