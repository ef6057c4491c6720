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
		for page, err := range s.pages(ctx, "read sessions", false) {
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
	for page, err := range s.pages(ctx, "read all sessions", true) {
		if err != nil {
			return nil, err
		}
		for _, listed := range page {
			if s.readable(ctx, listed.ID, listed.Data, listed.Unreadable) {
				all[standInFor(listed.ID, listed.Version)] = listed.Data
			}
		}
	}
	return all, nil
}

// pages yields the live sessions page by page, until one is not full, or with the first
// error.
func (s *Store) pages(ctx context.Context, op string, withData bool) iter.Seq2[[]row.Listed, error] {
	return func(yield func([]row.Listed, error) bool) {
		var page []row.Listed
		var after pgtype.UUID
		for n := pageSize; n == pageSize; n = len(page) {
			err := opError(op, ctx.Err())
			if err == nil {
				err = s.do(ctx, op, func(ctx context.Context) (err error) {
					page, err = s.db.Page(ctx, after, pageSize, withData)
					return err
				})
			}
			if !yield(page, err) || err != nil || len(page) == 0 {
				return
			}
			after = page[len(page)-1].ID
		}
	}
}
