package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Delete is DeleteCtx with context.Background().
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// DeleteCtx ends the session with this token, with SignedOut as its reason. The row
// is kept, without its data, until the sweeper deletes it, so that no request in
// flight can bring the session back. Deleting a token that names no live session is
// not an error.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	id, standIn := idOf(token)
	req := s.requestOf(ctx)
	tracked := req != nil
	if !tracked {
		req = s.plain.of(ctx, knowing(id))
	}
	var e entry
	if req != nil {
		e, _ = req.entry(id)
	}
	var took row
	var at, created time.Time
	var ended int
	mark := newMark()
	err := s.do(ctx, "delete session", func(ctx context.Context) error {
		b := &pgx.Batch{}
		b.Queue(s.sql.lock, id).QueryRow(took.scan)
		b.Queue(sqlClock).QueryRow(func(r pgx.Row) error { return r.Scan(&at) })
		if e.user != "" {
			b.Queue(s.sql.anID, e.user, id).QueryRow(func(r pgx.Row) error { return ignoreNoRows(r.Scan(&id, &created)) })
		}
		s.queueLapse(b, []pgtype.UUID{id}, "")
		s.queueEnd(b, []pgtype.UUID{id}, SignedOut, "", "", mark, &ended)
		return send(ctx, s.pool, b)
	})
	if err != nil {
		return err
	}
	if took.reason == SignedOut && took.version == mark {
		// An earlier attempt succeeded, but its answer was lost, and with it the data that
		// the row had held. Go on with what this request had loaded.
		took.reason, took.version, took.data, ended = "", e.version, e.base, 1
	}
	s.stat.ended.Add(int64(ended))
	switch {
	case standIn: // of Iterate: no session of this request
	case tracked:
		req.deleted(id, took, ended > 0, at, created)
	default:
		for _, req := range s.plain.deleting(ctx, s, id, took.user != "") {
			req.deleted(id, took, ended > 0, at, created)
		}
	}
	return nil
}

// ignoreNoRows returns err, or nil if err says that there was no row.
func ignoreNoRows(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}
