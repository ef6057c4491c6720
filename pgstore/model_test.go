package pgstore_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

var (
	schedules    = flag.Int("schedules", 2000, "random schedules of overlapping requests to check against the model")
	scheduleSeed = flag.Uint64("schedule-seed", 1, "seed of the first of them")
)

// Random schedules of overlapping requests leave the sessions as a simple model
// of them says. A schedule that does not is cut down to the steps that matter.
func TestSchedulesMatchTheModel(t *testing.T) {
	t.Parallel()
	const workers = 4
	for w := range uint64(workers) {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			pool := migrated(t, pgtest.MaxConns(4))
			for n := w; n < uint64(*schedules); n += workers {
				seed := *scheduleSeed + n
				steps := randomSteps(seed)
				err := play(t, pool, steps)
				if err == nil {
					continue
				}
				for i := 0; i < len(steps); { // steps that are not needed to fail
					fewer := slices.Delete(slices.Clone(steps), i, i+1)
					if e := play(t, pool, fewer); e != nil {
						steps, err, i = fewer, e, 0
						continue
					}
					i++
				}
				var text strings.Builder
				for _, s := range steps {
					fmt.Fprintf(&text, "\n  %v", s)
				}
				t.Fatalf("seed %d: %v, after%s", seed, err, text.String())
			}
		})
	}
}

// step is one thing that one request does. What makes no sense in its place is
// passed over, so that any subset of a schedule is one, too.
type step struct {
	request int
	what    string
	key     string
	value   string
	session int // to load or to revoke, by age
}

func (s step) String() string {
	text := fmt.Sprintf("request %d: %s", s.request, s.what)
	switch s.what {
	case "load", "revoke":
		return fmt.Sprintf("%s session %d", text, s.session)
	case "put", "remove", "pop":
		return fmt.Sprintf("%s %s %s", text, s.key, s.value)
	}
	return text
}

const maxRequests = 5

func randomSteps(seed uint64) []step {
	r := rand.New(rand.NewPCG(seed, 0))
	kinds := []string{"load", "put", "put", "put", "put", "remove", "pop", "clear", "renew", "renew", "destroy",
		"commit", "commit", "end", "user", "user", "no user", "revoke"}
	steps := []step{{0, "load", "", "", -1}, {0, "put", "a", "start", 0}, {0, "put", "b", "start", 0}}
	if r.IntN(2) == 0 {
		steps = append(steps, step{0, "user", userKey, "alice", 0})
	}
	steps = append(steps, step{0, "end", "", "", 0})
	requests := 2 + r.IntN(maxRequests-1)
	late := r.IntN(requests) // so many begin when others have done something
	for i := late; i < requests; i++ {
		steps = append(steps, step{request: 1 + i, what: "load", session: 0})
	}
	for i := range 8 + r.IntN(16) {
		s := step{request: 1 + r.IntN(requests), what: kinds[r.IntN(len(kinds))], session: r.IntN(2) * r.IntN(4)}
		s.key, s.value = string(rune('a'+r.IntN(4))), fmt.Sprint("v", i)
		if s.what == "user" {
			s.key, s.value = userKey, []string{"alice", "bob"}[r.IntN(2)]
		}
		steps = append(steps, s)
	}
	for i := range requests {
		steps = append(steps, step{request: 1 + i, what: "end"})
	}
	return steps
}

// values are what a session holds.
type values map[string]string

func (v values) user() string { return v[userKey] }

// merge is what the documentation says of it: what mine changed since base is as
// in mine, the rest as in current.
func merge(base, mine, current values) values {
	merged := values{}
	for _, from := range []values{base, mine, current} {
		for key := range from {
			b, inBase := base[key]
			m, inMine := mine[key]
			v, ok := current[key]
			if inBase != inMine || b != m {
				v, ok = m, inMine
			}
			if ok {
				merged[key] = v
			}
		}
	}
	return merged
}

// modelSession is a session as it should be stored.
type modelSession struct {
	token  string
	stored bool
	ended  pgstore.EndReason
	values values
}

func (s *modelSession) alive() bool { return s.stored && s.ended == "" }

// knowledge is what a request knows of a session.
type knowledge struct {
	session int
	base    values // nil: never found or written by the request
	user    string
	over    bool
	pending bool
	took    values // what was deleted; nil where it had been over already
}

// modelRequest is a request, and the one that is really under way.
type modelRequest struct {
	ctx    context.Context
	finish func()

	modified, done bool
	session        int // -1: none yet
	values         values
	known          []*knowledge
}

func (r *modelRequest) of(session int) *knowledge {
	for _, k := range r.known {
		if k.session == session {
			return k
		}
	}
	return nil
}

func (r *modelRequest) predecessor(user string) (found *knowledge) {
	for _, k := range r.known {
		switch {
		case k.pending && k.user == user:
			return k
		case k.pending && k.user == "":
			found = k
		}
	}
	return found
}

// model plays a schedule on the model and on the store.
type model struct {
	store    *pgstore.Store
	sm       *scs.SessionManager
	pool     *pgxpool.Pool
	sessions []*modelSession
	requests [maxRequests + 1]*modelRequest
}

func play(t *testing.T, pool *pgxpool.Pool, steps []step) error {
	for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
		pgtest.Exec(t, pool, `DELETE FROM `+table) // few rows: quicker than TRUNCATE
	}
	store := newStore(t, pool, pgstore.Config{})
	m := &model{store: store, sm: newManager(store), pool: pool}
	defer func() {
		for _, r := range m.requests {
			if r != nil {
				r.finish()
			}
		}
	}()
	for i, s := range steps {
		if err := m.play(t.Context(), s); err != nil {
			return fmt.Errorf("step %d, %v: %w", i, s, err)
		}
		switch s.what {
		case "load", "put", "user", "remove", "no user", "pop", "clear":
			continue // in memory only
		}
		if err := m.check(t.Context()); err != nil {
			return fmt.Errorf("step %d, %v: %w", i, s, err)
		}
	}
	return nil
}

// begin starts a request that goes on until finish is called.
func (m *model) begin(ctx context.Context) *modelRequest {
	began, end, ended := make(chan context.Context), make(chan struct{}), make(chan struct{})
	h := m.store.Track(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- r.Context()
		<-end
	}))
	go func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		close(ended)
	}()
	return &modelRequest{ctx: <-began, finish: func() { close(end); <-ended }}
}

func (m *model) play(ctx context.Context, s step) (err error) {
	r := m.requests[s.request]
	if s.what == "revoke" {
		return m.revoke(ctx, s.session)
	}
	if s.what == "load" {
		if r != nil || s.session >= len(m.sessions) {
			return nil
		}
		r = m.begin(ctx)
		m.requests[s.request] = r
		return m.load(r, s.session)
	}
	if r == nil || r.done {
		return nil
	}
	switch s.what {
	case "put", "user":
		m.sm.Put(r.ctx, s.key, s.value)
		r.values[s.key], r.modified = s.value, true
	case "remove":
		m.sm.Remove(r.ctx, s.key)
		r.remove(s.key)
	case "no user":
		m.sm.Remove(r.ctx, userKey)
		r.remove(userKey)
	case "pop":
		if got := m.sm.PopString(r.ctx, s.key); got != r.values[s.key] {
			return fmt.Errorf("popped %q, want %q", got, r.values[s.key])
		}
		r.remove(s.key)
	case "clear":
		err = m.sm.Clear(r.ctx)
		r.modified = r.modified || len(r.values) > 0
		clear(r.values)
	case "renew":
		err = m.sm.RenewToken(r.ctx)
		if r.session >= 0 {
			m.delete(r)
		}
		r.session, r.modified = len(m.sessions), true
		m.sessions = append(m.sessions, &modelSession{token: m.sm.Token(r.ctx)})
	case "destroy":
		err = m.sm.Destroy(r.ctx)
		if r.session >= 0 {
			m.delete(r)
		}
		r.session, r.modified, r.values = -1, false, values{}
	case "commit":
		_, _, err = m.sm.Commit(r.ctx)
		m.commit(r)
	case "end": // as LoadAndSave does
		if m.sm.Status(r.ctx) == scs.Modified {
			_, _, err = m.sm.Commit(r.ctx)
		}
		if r.modified {
			m.commit(r)
		}
		r.done = true
	}
	return err
}

func (r *modelRequest) remove(key string) {
	if _, ok := r.values[key]; ok {
		delete(r.values, key)
		r.modified = true
	}
}

func (m *model) load(r *modelRequest, session int) error {
	token := ""
	if session >= 0 {
		token = m.sessions[session].token
	}
	ctx, err := m.sm.Load(r.ctx, token)
	if err != nil {
		return err
	}
	r.ctx, r.session, r.values = ctx, -1, values{}
	if session >= 0 {
		s := m.sessions[session]
		k := &knowledge{session: session, over: !s.alive()}
		if s.alive() {
			r.session, r.values, r.modified = session, maps.Clone(s.values), true
			k.base, k.user = maps.Clone(s.values), s.values.user()
		}
		r.known = append(r.known, k)
	}
	return nil
}

// revoke ends a session from outside, or the renewal of it.
func (m *model) revoke(ctx context.Context, session int) error {
	if session >= len(m.sessions) || !m.sessions[session].stored {
		return nil
	}
	s := m.sessions[session]
	user := s.values.user()
	if user == "" {
		return nil
	}
	ok, err := m.store.Revoke(ctx, user, pgstore.IDOf(s.token))
	if err == nil && ok != s.alive() {
		err = fmt.Errorf("revoke said %t", ok)
	}
	if s.ended == "" || s.ended == pgstore.SignedOut {
		s.ended = pgstore.Revoked
	}
	return err
}

func (m *model) delete(r *modelRequest) {
	s, k := m.sessions[r.session], r.of(r.session)
	if k == nil {
		k = &knowledge{session: r.session, user: s.values.user()}
		r.known = append(r.known, k)
	}
	k.pending = s.stored || k.base != nil
	if s.alive() {
		k.took, s.ended = s.values, pgstore.SignedOut
	}
	k.over = true
}

// commit is the rules on one page.
func (m *model) commit(r *modelRequest) {
	if r.session < 0 {
		r.session = len(m.sessions)
		m.sessions = append(m.sessions, &modelSession{token: m.sm.Token(r.ctx)})
	}
	s, k, user := m.sessions[r.session], r.of(r.session), r.values.user()
	switch {
	case k != nil && k.over:
		return // ended stays ended
	case k != nil && k.user == user && maps.Equal(k.base, r.values):
		return // nothing changed
	}

	var pred *knowledge
	if k == nil || k.user != user {
		pred = r.predecessor(user)
	}
	predLost := pred != nil && pred.user == user &&
		(pred.took == nil || pred.took.user() != user || m.sessions[pred.session].ended != pgstore.SignedOut)
	mine := r.values
	isNew := k == nil
	if isNew {
		k = &knowledge{session: r.session}
		r.known = append(r.known, k)
	}
	switch {
	case predLost, // somebody else ended what this continues
		!isNew && !s.alive(),
		!isNew && s.values.user() != k.user: // it has changed hands
		k.over = true
		return
	case !isNew && (k.user == user || k.user == ""):
		mine = merge(k.base, mine, s.values)
	}
	if pred != nil {
		if pred.took != nil {
			if pred.base != nil && pred.took.user() == pred.user {
				mine = merge(pred.base, mine, pred.took)
			}
			if was := m.sessions[pred.session]; was.ended == pgstore.SignedOut {
				was.ended = pgstore.Renewed // a revocation stays one
			}
		}
		pred.pending = false
	}
	s.stored, s.values = true, maps.Clone(mine)
	k.base, k.user = maps.Clone(r.values), user
}

// check compares the tables with the model.
func (m *model) check(ctx context.Context) error {
	type stored struct {
		data   []byte
		user   string
		reason string
		index  bool
	}
	got := map[string]stored{}
	rows, err := m.pool.Query(ctx, `SELECT id::text, data, coalesce(user_id, ''), coalesce(end_reason, ''),
		EXISTS (SELECT FROM scs_user_sessions u WHERE u.id = s.id AND u.user_id = s.user_id) FROM scs_sessions s`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var row stored
		if err := rows.Scan(&id, &row.data, &row.user, &row.reason, &row.index); err != nil {
			return err
		}
		got[id] = row
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i, s := range m.sessions {
		row, ok := got[pgstore.IDOf(s.token)]
		delete(got, pgstore.IDOf(s.token))
		if ok != s.stored {
			return fmt.Errorf("session %d is stored: %t, want %t", i, ok, s.stored)
		}
		if !ok {
			continue
		}
		if pgstore.EndReason(row.reason) != s.ended {
			return fmt.Errorf("session %d ended %q, want %q", i, row.reason, s.ended)
		}
		if s.ended != "" {
			continue
		}
		_, held, err := m.sm.Codec.Decode(row.data)
		if err != nil {
			return err
		}
		have := values{}
		for key, v := range held {
			have[key] = v.(string)
		}
		if !maps.Equal(have, s.values) || row.user != s.values.user() {
			return fmt.Errorf("session %d of %q holds %v, want %v", i, row.user, have, s.values)
		}
		if s.values.user() != "" && !row.index {
			return fmt.Errorf("session %d is alive, and not in the index of %q", i, row.user)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("%d sessions that nobody asked for", len(got))
	}
	// The sweep finds index rows by the session they belong to.
	var orphans int
	err = m.pool.QueryRow(ctx, `SELECT count(*) FROM scs_user_sessions u WHERE NOT EXISTS
		(SELECT FROM scs_sessions s WHERE s.id = u.id AND s.user_id = u.user_id)`).Scan(&orphans)
	if err == nil && orphans > 0 {
		err = fmt.Errorf("%d index rows that no sweep would find", orphans)
	}
	return err
}
