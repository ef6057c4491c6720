package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// Find is FindCtx with context.Background().
func (s *Store) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// FindCtx returns the data of the live session with this token. One that is
// missing, ended, expired or unreadable is not found, and a token of any form may be
// asked for. Errors are faults of the database or the way to it.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	req := s.requestOf(ctx)
	if req == nil {
		s.noteUntracked(ctx)
	}
	s.stat.finds.Add(1)
	id, standIn := idOf(token)
	if standIn {
		// A key of All names a session and must not open it.
		s.stat.misses.Add(1)
		return nil, false, nil
	}
	var r row
	err := s.do(ctx, "find session", func(ctx context.Context) error {
		return r.scan(s.pool.QueryRow(ctx, s.sql.find, id))
	})
	if err != nil {
		return nil, false, err
	}
	found := r.state() == Active && s.readable(ctx, id, r.data)
	if !found {
		s.stat.misses.Add(1)
	}
	switch {
	case req != nil:
		req.found(id, r, found)
	case found:
		s.plain.found(ctx, s, id, r)
	}
	if !found {
		return nil, false, nil
	}
	return r.data, true, nil
}

// found records the first read of a session: later ones do not reach scs's memory
// of it, against which changes are told.
func (r *request) found(id pgtype.UUID, from row, readable bool) {
	e := entry{
		id: id, state: from.state(), reason: from.reason, user: from.user, stamp: from.stamp, at: time.Now(),
		loaded: readable, base: from.data, exact: true, window: from.expiry.Sub(from.seen),
	}
	if e.state == Active && !readable {
		e.state = None
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(id)
	switch {
	case i < 0:
		r.sessions = append(r.sessions, e)
		i = len(r.sessions) - 1
	case r.sessions[i].absent():
		e.turn = r.sessions[i].turn + 1
		r.sessions[i] = e
	}
	// StatusOf reports the session that the request came with. One that it loads besides
	// says nothing of that.
	if r.sessions[r.current].state == None {
		r.current = i
	}
}

// readable keeps a damaged row from becoming a permanent error of its user. Data of
// other codecs is theirs to judge.
func (s *Store) readable(ctx context.Context, id pgtype.UUID, data []byte) bool {
	if !frame.Is(data) {
		return true
	}
	err := frame.Check(data)
	if err == nil {
		return true
	}
	s.stat.badRows.Add(1)
	s.cfg.Logger.ErrorContext(ctx, "pgstore: a session's data is damaged; it is treated as not found",
		"session", id.String(), "bytes", len(data), "error", err)
	return false
}

// noteUntracked counts a call past Track, and says so once where Track is in use.
func (s *Store) noteUntracked(ctx context.Context) {
	if ctx == context.Background() {
		return
	}
	s.stat.untracked.Add(1)
	if s.mounted.Load() && ctx.Value(clientKey{}) == nil && s.warned.CompareAndSwap(false, true) {
		s.cfg.Logger.WarnContext(ctx, "pgstore: a session was used outside Track; mount it as store.Track(sm.LoadAndSave(mux)), "+
			"and give work outside HTTP a context from WithClient")
	}
}

// All is AllCtx with context.Background().
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }

const pageSize = 1000

// AllCtx returns the data of every live session, for sm.Iterate. It holds them all
// in memory: see Each for a way that does not. The keys are stand-ins for the
// tokens, which are not stored: Delete and Commit take them, so that Iterate can
// change and destroy sessions, and Find does not, so that they sign nobody in. It
// reads page by page, each a snapshot of its own, until ctx ends.
//
// With SessionManager.HashTokenInStore, which adds nothing here, scs hashes the
// stand-ins too: inside Iterate, Destroy then does nothing, and Commit makes a new
// session. Use neither there.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	all := make(map[string][]byte)
	after := pgtype.UUID{Valid: true}
	for {
		if err := ctx.Err(); err != nil {
			return nil, opError("read all sessions", 0, err)
		}
		n := 0
		err := s.do(ctx, "read all sessions", func(ctx context.Context) error {
			rows, err := s.pool.Query(ctx, s.sql.pageData, after, pageSize)
			if err != nil {
				return err
			}
			defer rows.Close()
			for n = 0; rows.Next(); n++ {
				var data []byte
				if err := rows.Scan(&after, &data); err != nil {
					return err
				}
				if s.readable(ctx, after, data) {
					all[standInFor(after)] = data
				}
			}
			return rows.Err()
		})
		if err != nil {
			return nil, err
		}
		if n < pageSize {
			return all, nil
		}
	}
}
