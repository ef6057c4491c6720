package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// nodes are the database, and the ways to it of two nodes. That of the first loses answers.
type nodes struct {
	pools  [2]*pgxpool.Pool
	losing *losingAny
}

func newNodes(t *testing.T) *nodes {
	n := &nodes{losing: new(losingAny)}
	schema := pgtest.Schema(t)
	n.pools = [2]*pgxpool.Pool{pgtest.PoolIn(t, schema, pgtest.MaxConns(2), n.losing.option()), pgtest.PoolIn(t, schema, pgtest.MaxConns(2))}
	migrate(t, n.pools[1])
	return n
}

// model plays a schedule on the model and on the store.
type model struct {
	world
	*nodes
	stores   [2]*pgstore.Store
	sms      [2]*scs.SessionManager
	requests [maxRequests + 1]*realRequest
	set      map[string]setFence
	created  map[int]time.Time // by since
}

// setFence is a user's fence as the database has it.
type setFence struct {
	modelFence
	time  time.Time
	moved bool
}

// realRequest is a request that is really under way.
type realRequest struct {
	*modelRequest
	node   int
	ctx    context.Context
	finish func()
	done   bool
}

func (n *nodes) newModel(t *testing.T, s schedule) *model {
	for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
		pgtest.Exec(t, n.pools[1], `DELETE FROM `+table) // few rows: quicker than TRUNCATE
	}
	m := &model{nodes: n, set: map[string]setFence{}, created: map[int]time.Time{}}
	m.world = world{limit: s.limit, policy: s.policy, fences: map[string]modelFence{}}
	for i := range m.stores {
		m.stores[i] = newStore(t, n.pools[i], pgstore.Config{UserLimit: s.limit, LimitPolicy: s.policy})
		m.sms[i] = newManager(m.stores[i])
	}
	return m
}

func (m *model) finish() {
	for _, r := range m.requests {
		if r != nil && r.finish != nil {
			r.finish()
		}
	}
}

// start starts a request that goes on until finish is called.
func (m *model) start(ctx context.Context, number int) *realRequest {
	began, end, ended := make(chan context.Context), make(chan struct{}), make(chan struct{})
	node := number % 2
	h := m.stores[node].Track(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- r.Context()
		<-end
	}))
	go func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		close(ended)
	}()
	return &realRequest{node: node, ctx: <-began, finish: func() { close(end); <-ended }}
}

// step does one step.
func (m *model) step(ctx context.Context, s step) error {
	m.now++
	switch s.what {
	case "expire":
		return m.expire(ctx, s.session)
	case "revoke", "forget", "iterate", "iterate destroy", "iterate twice", "iterate user":
		return m.beside(ctx, s)
	}
	r := m.requests[s.request]
	switch {
	case s.what == "revoke all" && s.request == 0:
		return m.beside(ctx, s)
	case s.what == "load":
		if r != nil || s.session >= 0 && !m.has(s.session) {
			return nil
		}
		return m.load(ctx, s)
	case r == nil || r.done:
		return nil
	}
	return m.inRequest(ctx, r, s)
}

// has reports whether there is such a session to name.
func (m *model) has(session int) bool {
	return session < len(m.sessions) && m.sessions[session].token != ""
}

// call calls the store, and has the model do the same: what each part of it does is one
// effect. If an answer is lost, effects that the database has committed come before what
// happens meanwhile, the others after it. committed: the lost one had changed something.
func (m *model) call(ctx context.Context, s step, node int, r *modelRequest, act func() error, effects ...func()) (err error, committed bool, other error) {
	done := 0
	upTo := func(n int) {
		for ; done < n; done++ {
			effects[done]()
		}
	}
	if s.lost != nil && node == 0 {
		changes := 0
		if len(effects) > 1 {
			changes = s.lost.changes
		}
		m.losing.arm(s.lost.after, changes, func(a reply) {
			switch {
			case a.undone:
				upTo(len(effects))
			case a.committed && a.changed:
				upTo(len(effects))
				committed = true
			case a.changed:
				upTo(1)
				committed = true
			case len(effects) > 1 && !a.idle:
				upTo(1)
			}
			if during := s.lost.during; during != nil && (during.request%2 == 1) {
				other = m.step(ctx, *during)
				if r != nil && other == nil {
					other = m.placeFences(ctx, r)
				}
			}
		})
		defer m.losing.disarm()
	}
	err = act()
	if done > 0 || !saysInDoubt(err) {
		upTo(len(effects))
	}
	return err, committed, other
}

// saysInDoubt reports whether the store says that it does not know.
func saysInDoubt(err error) bool {
	return err != nil && strings.Contains(err.Error(), "whether it was stored is not known")
}

func (m *model) load(ctx context.Context, s step) error {
	r := m.start(ctx, s.request)
	m.requests[s.request] = r
	token := ""
	if s.session >= 0 {
		token = m.sessions[s.session].token
	}
	err, _, other := m.call(ctx, s, r.node, nil, func() (err error) {
		loaded, err := m.sms[r.node].Load(r.ctx, token)
		if err == nil {
			r.ctx = loaded
		}
		return err
	}, func() { r.modelRequest = m.begin(s.session) })
	if err := errors.Join(err, other); err != nil {
		return err
	}
	return m.checkStatus(r)
}

// inRequest does a step of a request that is under way.
func (m *model) inRequest(ctx context.Context, r *realRequest, s step) error {
	sm, store := m.sms[r.node], m.stores[r.node]
	var act func() error
	var effects []func()
	want := func() error { return nil }
	effect := func(fs ...func()) { effects = append(effects, fs...) }
	var v verdict
	commits := func() {
		act = func() error { _, _, err := sm.Commit(r.ctx); return err }
		effect(func() { v = m.commit(r.modelRequest, false) })
		want = func() error {
			if v == wasRefused {
				return pgstore.ErrUserLimit
			}
			return nil
		}
	}
	switch s.what {
	case "put", "user":
		sm.Put(r.ctx, s.key, s.value)
		r.put(s.key, s.value)
	case "remove":
		sm.Remove(r.ctx, s.key)
		r.remove(s.key)
	case "no user":
		sm.Remove(r.ctx, userKey)
		r.remove(userKey)
	case "clear":
		r.clear()
		return sm.Clear(r.ctx)
	case "pop", "popped":
		if got := sm.PopString(r.ctx, s.key); got != r.values[s.key] {
			return fmt.Errorf("popped %q, want %q", got, r.values[s.key])
		}
		r.remove(s.key)
		if s.what == "popped" {
			commits()
		}
	case "write":
		sm.Put(r.ctx, s.key, s.value)
		r.put(s.key, s.value)
		commits()
	case "commit":
		commits()
	case "end": // as LoadAndSave does
		r.done = true
		if got := sm.Status(r.ctx) == scs.Modified; got != r.modified {
			return fmt.Errorf("modified: %t, want %t", got, r.modified)
		}
		if r.modified {
			commits()
		}
	case "renew":
		act = func() error { return sm.RenewToken(r.ctx) }
		effect(func() { m.renewToken(r.modelRequest) })
	case "merge":
		if !m.has(s.session) || !m.sessions[s.session].stored {
			return nil
		}
		act = func() error { return sm.MergeSession(r.ctx, m.sessions[s.session].token) }
		effect(func() { m.mergeSession(r.modelRequest, s.session) })
	case "destroy":
		act = func() error { return sm.Destroy(r.ctx) }
		effect(func() { m.destroy(r.modelRequest) })
	case "signin":
		act = func() error { return store.SignIn(r.ctx, sm, s.value) }
		effect(func() { m.renewToken(r.modelRequest) }, func() {
			v = m.signIn(r.modelRequest, s.value)
		})
		want = func() error {
			return map[verdict]error{wasDropped: pgstore.ErrEnded, wasRefused: pgstore.ErrUserLimit}[v]
		}
	case "revoke all":
		n, count := 0, 0
		act = func() (err error) { n, err = store.RevokeAll(r.ctx, s.value); return err }
		effect(func() { count = m.revokeAll(s.value, -1, r.modelRequest) })
		want = func() error {
			if n != count && s.lost == nil {
				return fmt.Errorf("revoked %d, want %d", n, count)
			}
			return nil
		}
	case "revoke others":
		act = func() error { _, err := store.RevokeOthers(r.ctx, s.value, sm.Token(r.ctx)); return err }
		may := false
		effect(func() {
			if may = m.mayKeep(s.value, r.modelRequest); may {
				m.revokeAll(s.value, r.session, r.modelRequest)
			}
		})
		want = func() error {
			if !may {
				return pgstore.ErrNotLive
			}
			return nil
		}
	default:
		return fmt.Errorf("no such step: %s", s.what)
	}
	if act == nil {
		return nil
	}
	if err := m.placeFences(ctx, r.modelRequest); err != nil {
		return err
	}
	overwritten := false // before this step, so that the row cannot show what has become of an attempt
	if k := r.of(r.session); k != nil {
		overwritten = m.sessions[r.session].version != k.version
	}
	got, committed, other := m.call(ctx, s, r.node, r.modelRequest, act, effects...)
	if committed && s.what == "revoke all" {
		m.repeatRevocation(s, r.modelRequest)
	}
	if r.session >= 0 {
		m.sessions[r.session].token = sm.Token(r.ctx)
	}
	if other != nil {
		return fmt.Errorf("meanwhile: %w", other)
	}
	if s.lost != nil && s.lost.during != nil {
		r.done = true // what it knows by now may depend on how the store found out
	}
	// An error is right where the row cannot show whether an attempt was applied. One that was
	// may have been undone before the store could ask.
	doubt := saysInDoubt(got) && (overwritten && !committed || committed && r.done) ||
		s.what == "signin" && committed && r.done && errors.Is(got, pgstore.ErrEnded)
	r.done = r.done || saysInDoubt(got)
	if err := wantError(got, want()); err != nil && !doubt {
		return err
	}
	if v == wasRefused && s.what != "signin" {
		r.done = true
	}
	if err := m.readFences(ctx); err != nil || r.done {
		return err
	}
	if s.what != "revoke all" && s.what != "revoke others" && s.what != "merge" && s.what != "renew" && s.what != "destroy" {
		return m.checkStatus(r)
	}
	return nil
}

// beside does a step of no request.
func (m *model) beside(ctx context.Context, s step) error {
	node := 1
	if s.lost != nil {
		node = 0
	}
	store, sm := m.stores[node], m.sms[node]
	var act func() error
	var effect func()
	var want func() error
	switch s.what {
	case "revoke":
		if !m.has(s.session) {
			return nil
		}
		var got, ok bool
		act = func() (err error) {
			got, err = store.Revoke(ctx, s.value, pgstore.IDOf(m.sessions[s.session].token))
			return err
		}
		effect = func() { ok = m.revoke(s.value, s.session) }
		want = func() error {
			if got != ok && s.lost == nil {
				return fmt.Errorf("revoked: %t, want %t", got, ok)
			}
			return nil
		}
	case "revoke all", "forget":
		n, count := 0, 0
		act = func() (err error) {
			if s.what == "forget" {
				n, err = store.Forget(ctx, s.value)
			} else {
				n, err = store.RevokeAll(ctx, s.value)
			}
			return err
		}
		effect = func() {
			if s.what == "forget" {
				count = m.forget(s.value)
			} else {
				count = m.revokeAll(s.value, -1, nil)
			}
		}
		want = func() error {
			if n != count && s.lost == nil {
				return fmt.Errorf("ended %d, want %d", n, count)
			}
			return nil
		}
	default:
		return m.iterate(ctx, s, sm)
	}
	if s.lost != nil && s.what == "forget" {
		s.lost = &lost{after: s.lost.after} // a second Forget would forget who has signed in since
	}
	err, committed, other := m.call(ctx, s, node, nil, act, effect)
	if committed && s.what == "revoke all" {
		m.repeatRevocation(s, nil)
	}
	if other != nil {
		return fmt.Errorf("meanwhile: %w", other)
	}
	if err == nil {
		err = want()
	}
	if err == nil {
		err = m.readFences(ctx)
	}
	return err
}

// repeatRevocation repeats a RevokeAll whose answer was lost, if another one has moved the
// fence meanwhile: it cannot tell, and ends all that there is by then.
func (m *model) repeatRevocation(s step, r *modelRequest) {
	if during := s.lost.during; during != nil && during.what == "revoke all" && m.fences[s.value].by != r {
		m.now++
		m.revokeAll(s.value, -1, r)
	}
}

// iterate changes or destroys one session in sm.Iterate, perhaps after another step has.
func (m *model) iterate(ctx context.Context, s step, sm *scs.SessionManager) error {
	if !m.has(s.session) {
		return nil
	}
	target := m.sessions[s.session]
	met := false
	wasAlive, version := target.alive(), target.version
	err := sm.Iterate(ctx, func(ctx context.Context) error {
		if pgstore.IDOf(sm.Token(ctx)) != pgstore.IDOf(target.token) {
			return nil
		}
		met = true
		if err := sm.RenewToken(ctx); err == nil {
			return errors.New("renewed in Iterate")
		}
		if s.lost != nil && s.lost.during != nil && s.lost.during.request%2 == 1 {
			if err := m.step(ctx, *s.lost.during); err != nil {
				return fmt.Errorf("meanwhile: %w", err)
			}
		}
		stale := !target.alive() || target.version != version
		if s.what == "iterate destroy" {
			if target.goesOn() {
				target.ended = pgstore.SignedOut
			}
			return sm.Destroy(ctx)
		}
		key := s.key
		if s.what == "iterate user" {
			key, stale = userKey, true
		}
		sm.Put(ctx, key, s.value)
		if _, _, err := sm.Commit(ctx); stale || err != nil {
			if stale {
				return wantError(err, pgstore.ErrStale)
			}
			return err
		}
		target.values[key], target.version = s.value, target.version+1
		if s.what == "iterate twice" {
			sm.Put(ctx, key, "again")
			_, _, err := sm.Commit(ctx)
			return wantError(err, pgstore.ErrStale)
		}
		return nil
	})
	if err == nil && met != wasAlive {
		err = fmt.Errorf("iterated over: %t, want %t", met, wasAlive)
	}
	return err
}

// expire times a session out.
func (m *model) expire(ctx context.Context, session int) error {
	if !m.has(session) || !m.sessions[session].alive() {
		return nil
	}
	m.sessions[session].expired = true
	_, err := m.pools[1].Exec(ctx, `UPDATE scs_sessions SET expiry = (expiry AT TIME ZONE 'UTC' - interval '1 day') AT TIME ZONE 'UTC' WHERE id = $1`,
		pgstore.IDOf(m.sessions[session].token))
	return err
}

// placeFences moves fences from before the request's beginning to long before it. The
// store decides to the millisecond which of them was first; here it must not matter.
func (m *model) placeFences(ctx context.Context, r *modelRequest) error {
	if err := m.readFences(ctx); err != nil {
		return err
	}
	for user, f := range m.fences {
		set := m.set[user]
		if moved := f.at < r.began; moved != set.moved {
			at := set.time
			if moved {
				at = at.AddDate(0, 0, -1)
			}
			if _, err := m.pools[1].Exec(ctx, `UPDATE scs_users SET fence = $2 WHERE user_id = $1`, user, at); err != nil {
				return err
			}
			set.moved = moved
			m.set[user] = set
		}
	}
	return nil
}

// readFences reads those that have been set.
func (m *model) readFences(ctx context.Context) error {
	for user, f := range m.fences {
		if m.set[user].modelFence == f {
			continue
		}
		set := setFence{modelFence: f}
		if err := m.pools[1].QueryRow(ctx, `SELECT fence FROM scs_users WHERE user_id = $1`, user).Scan(&set.time); err != nil {
			return fmt.Errorf("fence of %s: %w", user, err)
		}
		m.set[user] = set
	}
	return nil
}
