package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Find is FindCtx with context.Background().
func (s *Store) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// FindCtx returns the data of the live session with this token. One that is
// missing, ended, expired or unreadable is not found, and a token of any form may be
// asked for. Errors are faults of the database or the way to it.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	req := s.calledIn(ctx)
	s.count(func(c *Stat) { c.Finds++ })
	id, _, standIn := idOf(token)
	if standIn {
		// A key of All names a session and must not open it.
		s.count(func(c *Stat) { c.Misses++ })
		return nil, false, nil
	}
	var r row.Row
	err := s.do(ctx, "find session", func(ctx context.Context) (err error) {
		r, err = s.db.Find(ctx, id)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if deadline, ok := frame.Deadline(r.Data); ok && r.Expiry.Equal(row.Forever) {
		r.Expiry = deadline // by the app server's clock, as scs's deadlines are
	}
	readable := r.Alive() && s.readable(ctx, id, r.Data, r.Unreadable)
	if req != nil {
		req.Found(id, r, readable)
	}
	if !readable {
		s.count(func(c *Stat) { c.Misses++ })
		return nil, false, nil
	}
	return r.Data, true, nil
}

// readable keeps a damaged row from becoming a permanent error of its user. Data of
// other codecs is theirs to judge. unreadable is why sealed data could not be opened.
func (s *Store) readable(ctx context.Context, id pgtype.UUID, data []byte, unreadable error) bool {
	err := unreadable
	if err == nil && frame.Is(data) {
		err = frame.Check(data)
	}
	if err == nil {
		return true
	}
	s.count(func(c *Stat) { c.BadRows++ })
	if missing, ok := errors.AsType[interface {
		error
		UnknownKey() string
	}](err); ok {
		if _, logged := s.missingKeys.LoadOrStore(missing.UnknownKey(), true); logged {
			return false
		}
	}
	s.cfg.Logger.ErrorContext(ctx, "pgstore: a session's data cannot be read; it is treated as not found",
		"session", id.String(), "bytes", len(data), "error", err)
	return false
}
