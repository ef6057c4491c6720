package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/scspg/scspg/pgstore"
)

// check compares the tables, and what the store says of them, with the model.
func (m *model) check(ctx context.Context, last bool) error {
	err := m.checkRows(ctx)
	for _, user := range users {
		live := func(s *modelSession) bool { return s.alive() && s.user == user }
		if err == nil && (last || slices.ContainsFunc(m.sessions, live)) {
			err = m.checkUser(ctx, user)
		}
	}
	return err
}

// storedRow is a row of scs_sessions.
type storedRow struct {
	data   []byte
	user   string
	reason string
	index  bool
}

func (m *model) checkRows(ctx context.Context) error {
	got := map[string]storedRow{}
	orphans := 0
	rows, err := m.pools[1].Query(ctx, `SELECT id::text, data, coalesce(user_id, ''), coalesce(end_reason, ''), false FROM scs_sessions
		UNION ALL SELECT id::text, '', user_id, '', true FROM scs_user_sessions ORDER BY 5`) // sessions first
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var row storedRow
		if err := rows.Scan(&id, &row.data, &row.user, &row.reason, &row.index); err != nil {
			return err
		}
		if s, ok := got[id]; row.index && (!ok || s.user != row.user) {
			orphans++ // the sweep finds index rows by the session they belong to
			continue
		} else if row.index {
			s.index = true
			row = s
		}
		got[id] = row
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i, s := range m.sessions {
		id := pgstore.IDOf(s.token)
		row, ok := got[id]
		delete(got, id)
		if ok != s.stored {
			return fmt.Errorf("session %d is stored: %t, want %t", i, ok, s.stored)
		}
		if !ok {
			continue
		}
		if err := m.checkRow(s, row); err != nil {
			return fmt.Errorf("session %d %w", i, err)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("%d sessions that nobody asked for", len(got))
	}
	if orphans > 0 {
		return fmt.Errorf("%d index rows that no sweep would find", orphans)
	}
	return nil
}

func (m *model) checkRow(s *modelSession, row storedRow) error {
	lapsed := s.expired && row.reason == "timed_out" // who met it has said so
	if pgstore.EndReason(row.reason) != s.ended && !lapsed {
		return fmt.Errorf("ended %q, want %q", row.reason, s.ended)
	}
	if !s.goesOn() {
		if s.next == nil && !s.expired && len(row.data) > 0 {
			return errors.New("has ended and holds data")
		}
		return nil
	}
	_, held, err := m.sms[1].Codec.Decode(row.data)
	if err != nil {
		return err
	}
	have := values{}
	for key, v := range held {
		have[key] = v.(string)
	}
	if !maps.Equal(have, s.values) || row.user != s.values.user() {
		return fmt.Errorf("of %q holds %v, want %v", row.user, have, s.values)
	}
	if s.alive() && s.values.user() != "" && !row.index {
		return fmt.Errorf("is alive, and not in the index of %q", row.user)
	}
	return nil
}

// checkUser compares the list of a user's sessions.
func (m *model) checkUser(ctx context.Context, user string) error {
	listed, err := m.stores[1].Sessions(ctx, user)
	if err != nil {
		return err
	}
	got := map[string]pgstore.Session{}
	for _, s := range listed {
		got[s.ID] = s
	}
	n := 0
	for i, s := range m.sessions {
		if !s.alive() || s.user != user {
			continue
		}
		n++
		l, ok := got[pgstore.IDOf(s.token)]
		if !ok {
			return fmt.Errorf("session %d of %s is not listed", i, user)
		}
		at, ok := m.created[s.since]
		if !ok {
			m.created[s.since] = l.CreatedAt
		} else if !at.Equal(l.CreatedAt) {
			return fmt.Errorf("session %d of %s began %v, want %v", i, user, l.CreatedAt, at)
		}
		for since, at := range m.created {
			if since < s.since != at.Before(l.CreatedAt) && since != s.since {
				return fmt.Errorf("session %d of %s began at step %d, %v; another at step %d, %v", i, user, s.since, l.CreatedAt, since, at)
			}
		}
	}
	if len(listed) != n {
		return fmt.Errorf("%s has %d sessions listed, want %d", user, len(listed), n)
	}
	if m.limit > 0 && n > m.limit {
		return fmt.Errorf("%s has %d sessions, and the limit is %d", user, n, m.limit)
	}
	return nil
}

// checkStatus compares what the store says of the request's session with what the
// model says that the request knows.
func (m *model) checkStatus(r *realRequest) error {
	st := m.stores[r.node].StatusOf(r.ctx)
	k := r.of(r.first)
	if k == nil {
		if st.State != pgstore.None {
			return fmt.Errorf("status is %v, of no session", st.State)
		}
		return nil
	}
	s := m.sessions[r.first]
	if k.phase == isLive {
		if id := pgstore.IDOf(s.token); st.State != pgstore.Active || st.ID != id || st.UserID != k.user {
			return fmt.Errorf("status is %v %s, of %q; want active, session %d of %q", st.State, st.EndReason, st.UserID, r.first, k.user)
		}
		return nil
	}
	if st.State == pgstore.Active {
		return fmt.Errorf("status is active, and session %d is %s", r.first, k.phase)
	}
	return nil
}
