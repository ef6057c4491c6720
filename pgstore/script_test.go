package pgstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// script is a request that takes the steps of a test, and stops at each wait.
type script struct {
	t                testing.TB
	app              *app
	steps            []action
	arrived, proceed chan struct{}
	answered         chan answer
}

type action func(*script, *http.Request) error

// answer is what a request was answered: token is that of the cookie that it sets.
type answer struct {
	status      int
	body, token string
}

func wait(s *script, _ *http.Request) error {
	s.arrived <- struct{}{}
	<-s.proceed
	return nil
}

func renew(s *script, r *http.Request) error   { return s.app.sm.RenewToken(r.Context()) }
func destroy(s *script, r *http.Request) error { return s.app.sm.Destroy(r.Context()) }

func put(key string) action { return set(key, "v") }

func set(key string, value any) action {
	return func(s *script, r *http.Request) error {
		s.app.sm.Put(r.Context(), key, value)
		return nil
	}
}

func signIn(user string) action {
	return func(s *script, r *http.Request) error { return s.app.store.SignIn(r.Context(), s.app.sm, user) }
}

func mergeIn(token string) action {
	return func(s *script, r *http.Request) error { return s.app.sm.MergeSession(r.Context(), token) }
}

func revokeOthers(s *script, r *http.Request) error {
	_, err := s.app.store.RevokeOthers(r.Context(), s.app.sm.GetString(r.Context(), userKey), s.app.sm.Token(r.Context()))
	return err
}

// begin sends the request.
func (b *browser) begin(steps ...action) *script {
	b.t.Helper()
	s := &script{t: b.t, app: b.app, steps: steps,
		arrived: make(chan struct{}), proceed: make(chan struct{}), answered: make(chan answer, 1)}
	id := fmt.Sprintf("%p", s)
	b.app.scripts.Store(id, s)
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.app.URL+"/script?id="+id, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	go func() {
		var a answer
		a.status, a.body, a.token = b.send(req)
		s.answered <- a
	}()
	return s
}

// start sends the request, and returns once it waits.
func (b *browser) start(steps ...action) *script {
	b.t.Helper()
	s := b.begin(steps...)
	s.pause()
	return s
}

// do sends the request, which has to answer 200, and returns the token that it gets.
func (b *browser) do(steps ...action) string {
	b.t.Helper()
	return b.begin(steps...).token()
}

func (s *script) pause() {
	s.t.Helper()
	select {
	case <-s.arrived:
	case a := <-s.answered:
		s.t.Fatalf("the request was to wait: %d %s", a.status, a.body)
	}
}

// goOn lets the request go on to its next wait.
func (s *script) goOn() {
	s.t.Helper()
	s.proceed <- struct{}{}
	s.pause()
}

// finish lets the request go on to its end. It has to answer 200; finish returns the token
// that it gets.
func (s *script) finish() string {
	s.t.Helper()
	s.proceed <- struct{}{}
	return s.token()
}

func (s *script) token() string {
	s.t.Helper()
	a := <-s.answered
	if a.status != http.StatusOK {
		s.t.Errorf("%d %s", a.status, a.body)
	}
	return a.token
}

// opens is what a token opens: whose session, and which other keys it holds; or "nothing".
func (a *app) opens(t testing.TB, token string) string {
	t.Helper()
	data, found, err := a.store.Find(token)
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		return "nothing"
	}
	_, values, err := a.sm.Codec.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	user, keys := "nobody", []string{}
	for key, value := range values {
		if key == userKey {
			user = fmt.Sprint(value)
		} else {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return strings.TrimSpace(user + ": " + strings.Join(keys, " "))
}

// expect checks what a token opens.
func (a *app) expect(t testing.TB, what, token, want string) {
	t.Helper()
	if got := a.opens(t, token); got != want {
		t.Errorf("%s opens %q, want %q", what, got, want)
	}
}

// expectLive checks how many live sessions a user has, by the rows and by the list.
func (a *app) expectLive(t testing.TB, user string, want int) {
	t.Helper()
	list, err := a.store.Sessions(t.Context(), user)
	if n := live(t, a.pool, user); n != want || len(list) != want || err != nil {
		t.Errorf("%s has %d live sessions and %d in the list, want %d, %v", user, n, len(list), want, err)
	}
}

// signedIn returns a browser in which a user is signed in, since a while ago.
func (a *app) signedIn(t testing.TB, user string) *browser {
	t.Helper()
	b := a.browser(t)
	b.must("/login", "user", user)
	pgtest.Exec(t, a.pool, `UPDATE scs_user_sessions SET created_at = now() - interval '5 days' WHERE id = $1`, pgstore.IDOf(b.token()))
	return b
}

// expectAge checks whether a user's session has the age that signedIn has given one.
func (a *app) expectAge(t testing.TB, token string, old bool) {
	t.Helper()
	if got := pgtest.Query[bool](t, a.pool, `SELECT created_at < now() - interval '1 day' FROM scs_user_sessions WHERE id = $1`, pgstore.IDOf(token)); got != old {
		t.Errorf("the session has its age: %t, want %t", got, old)
	}
}

// rowLock is a transaction that holds locks.
type rowLock struct {
	t    testing.TB
	pool *pgxpool.Pool
	exec func(sql string, args ...any)
	pid  int64
	end  func()
}

// lock runs SQL in a transaction, and keeps the locks that it takes.
func lock(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) *rowLock {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &rowLock{t: t, pool: pool}
	pid := `SELECT pg_backend_pid()` // a pooler tells clients other ones
	if pgtest.Citus() {
		pid = `SELECT citus_backend_gpid()` // whose locks are on the workers
	}
	if err := tx.QueryRow(t.Context(), pid).Scan(&l.pid); err != nil {
		t.Fatal(err)
	}
	l.exec = func(sql string, args ...any) {
		if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	l.end = func() {
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.exec(sql, args...)
	return l
}

// waitFor returns once so many others wait for it, or for each other.
func (l *rowLock) waitFor(n int) {
	l.t.Helper()
	waits := `SELECT a.pid FROM pg_stat_activity a JOIN w ON w.pid = ANY(pg_blocking_pids(a.pid))`
	if pgtest.Citus() {
		waits = `SELECT waiting_gpid FROM citus_lock_waits JOIN w ON blocking_gpid = w.pid`
	}
	pgtest.Eventually(l.t, fmt.Sprintf("%d wait for the lock", n), func() bool {
		return pgtest.Query[int](l.t, l.pool, `WITH RECURSIVE w AS (SELECT $1::bigint AS pid UNION `+waits+`) SELECT count(*) - 1 FROM w`, l.pid) >= n
	})
}

// newHTTP2App is newApp over HTTP/2: all browsers share one connection, as they do behind
// a proxy.
func newHTTP2App(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *app {
	t.Helper()
	a := makeApp(t, pool, cfg)
	a.tracked = true
	a.Server = httptest.NewUnstartedServer(a.store.Track(a.sm.LoadAndSave(a.mux)))
	a.EnableHTTP2 = true
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

// bothProtocols runs a test under Track, over HTTP/1.1 and over HTTP/2.
func bothProtocols(t *testing.T, f func(t *testing.T, newApp newAppFunc)) {
	for name, newApp := range map[string]newAppFunc{"HTTP 1.1": newApp, "HTTP 2": newHTTP2App} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newApp)
		})
	}
}
