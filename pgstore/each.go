package pgstore

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

const pageSize = 1000

// Each returns an iterator over all live sessions, anonymous ones included, in the
// order of their ids. It reads pages of 1,000 sessions, so its memory is bounded, and
// it holds no connection while the loop body runs. A session that is alive throughout
// is seen exactly once; one that begins or ends meanwhile may be seen or not, and may
// lack CreatedAt, IP and UserAgent. After the first error, which may be that of ctx,
// the loop ends.
func (s *Store) Each(ctx context.Context) iter.Seq2[Session, error] {
	return func(yield func(Session, error) bool) {
		var page []row.Listed
		read := func(ctx context.Context, after pgtype.UUID) (int, pgtype.UUID, error) {
			var err error
			if page, err = s.db.Page(ctx, after, pageSize); len(page) > 0 {
				after = page[len(page)-1].ID
			}
			return len(page), after, err
		}
		for err := range s.pages(ctx, "read sessions", read) {
			if err != nil {
				yield(Session{}, err)
				return
			}
			for _, listed := range page {
				if !yield(sessionOf(listed), nil) {
					return
				}
			}
		}
	}
}

// All is AllCtx with context.Background().
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }

// AllCtx returns the data of every live session, for sm.Iterate. It holds them all
// in memory: see Each for a way that does not. It reads page by page, each a snapshot
// of its own, until ctx ends.
//
// The keys are stand-ins for the tokens, which are not stored: Find does not take them, so
// they sign nobody in. Delete and Commit do, so that Iterate can destroy and change
// sessions. A Commit writes over the version that was read: it returns ErrStale if the
// session has changed since, by another request or by an earlier Commit in the same
// callback. It neither extends the session nor changes its user, and it cannot be renewed.
//
// With SessionManager.HashTokenInStore, which adds nothing here, scs hashes the
// stand-ins too: inside Iterate, Destroy then does nothing, and Commit makes a new
// session. Use neither there.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	all := make(map[string][]byte)
	read := func(ctx context.Context, after pgtype.UUID) (int, pgtype.UUID, error) {
		return s.db.PageData(ctx, after, pageSize, func(id pgtype.UUID, version int64, data []byte) {
			if s.readable(ctx, id, data) {
				all[standInFor(id, version)] = data
			}
		})
	}
	for err := range s.pages(ctx, "read all sessions", read) {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// pages calls read for one page after another, and yields after each, until one is not
// full. read is given the last id of the page before, and returns how many sessions it
// has read, and the last id. The first error ends the loop.
func (s *Store) pages(ctx context.Context, op string, read func(context.Context, pgtype.UUID) (int, pgtype.UUID, error)) iter.Seq[error] {
	return func(yield func(error) bool) {
		after := pgtype.UUID{Valid: true}
		for n := pageSize; n == pageSize; {
			err := ctx.Err()
			if err != nil {
				err = opError(op, err)
			} else {
				err = s.do(ctx, op, func(ctx context.Context) error {
					count, last, err := read(ctx, after)
					if err == nil {
						n, after = count, last
					}
					return err
				})
			}
			if !yield(err) || err != nil {
				return
			}
		}
	}
}
