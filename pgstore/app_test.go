package pgstore_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// app is a small web app on a store, over real HTTP.
type app struct {
	*httptest.Server
	store *pgstore.Store
	sm    *scs.SessionManager
	pool  *pgxpool.Pool
	mux   *http.ServeMux

	tracked bool

	// held requests announce themselves, and go on when they are told to.
	arrived, proceed chan struct{}

	scripts sync.Map // those of script_test.go, by id
}

const userKey = "userID"

func newStore(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *pgstore.Store {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBatch == 0 && pgtest.Citus() {
		cfg.MaxBatch = 1
	}
	store, err := pgstore.New(pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newManager(store scs.Store) *scs.SessionManager {
	sm := scs.New()
	sm.Store = store
	sm.Codec = pgstore.Codec{UserKey: userKey}
	sm.IdleTimeout = 30 * time.Minute
	sm.Cookie.Persist = false
	sm.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return sm
}

// newAppFunc is newApp or newPlainApp.
type newAppFunc func(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *app

// newApp serves the routes below under Track.
func newApp(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *app {
	t.Helper()
	a := makeApp(t, pool, cfg)
	a.tracked = true
	a.serve(t, a.store.Track(a.sm.LoadAndSave(a.mux)))
	return a
}

// newPlainApp serves the routes below without Track.
func newPlainApp(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *app {
	t.Helper()
	a := makeApp(t, pool, cfg)
	a.serve(t, a.sm.LoadAndSave(a.mux))
	return a
}

func makeApp(t testing.TB, pool *pgxpool.Pool, cfg pgstore.Config) *app {
	t.Helper()
	a := &app{pool: pool, store: newStore(t, pool, cfg), mux: http.NewServeMux(),
		arrived: make(chan struct{}), proceed: make(chan struct{})}
	a.sm = newManager(a.store)
	a.routes()
	return a
}

func (a *app) serve(t testing.TB, h http.Handler) {
	a.Server = httptest.NewServer(h)
	t.Cleanup(a.Close)
}

func (a *app) routes() {
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		})
	}
	handle("/login", func(w http.ResponseWriter, r *http.Request) error {
		return a.store.SignIn(r.Context(), a.sm, r.FormValue("user"))
	})
	handle("/logout", func(w http.ResponseWriter, r *http.Request) error { return a.sm.Destroy(r.Context()) })
	handle("/renew", func(w http.ResponseWriter, r *http.Request) error { return a.sm.RenewToken(r.Context()) })
	handle("/put", func(w http.ResponseWriter, r *http.Request) error {
		a.sm.Put(r.Context(), r.FormValue("key"), r.FormValue("value"))
		return nil
	})
	// poll does not extend the session, and may put something all the same.
	handle("/poll", func(_ http.ResponseWriter, r *http.Request) error {
		pgstore.NoTouch(r.Context())
		if value := r.FormValue("put"); value != "" {
			a.sm.Put(r.Context(), "polled", value)
		}
		return nil
	})
	handle("/remove", func(w http.ResponseWriter, r *http.Request) error {
		a.sm.Remove(r.Context(), r.FormValue("key"))
		return nil
	})
	handle("/clear", func(w http.ResponseWriter, r *http.Request) error { return a.sm.Clear(r.Context()) })
	handle("/me", func(w http.ResponseWriter, r *http.Request) error {
		st := a.store.StatusOf(r.Context())
		_, err := fmt.Fprintf(w, "user=%s state=%s reason=%s keys=%s", a.sm.GetString(r.Context(), userKey),
			st.State, st.EndReason, strings.Join(a.sm.Keys(r.Context()), ","))
		return err
	})
	handle("/revoke-others", func(w http.ResponseWriter, r *http.Request) error {
		n, err := a.store.RevokeOthers(r.Context(), a.sm.GetString(r.Context(), userKey), a.sm.Token(r.Context()))
		if err == nil {
			_, err = fmt.Fprint(w, n)
		}
		return err
	})
	// hold waits in mid-request; before and after say what it does on either side.
	handle("/hold", func(w http.ResponseWriter, r *http.Request) error {
		step := func(what string) error {
			switch what {
			case "put":
				a.sm.Put(r.Context(), "held", "yes")
			case "commit":
				a.sm.Put(r.Context(), "committed", time.Now().String())
				_, _, err := a.sm.Commit(r.Context())
				return err
			case "renew":
				return a.sm.RenewToken(r.Context())
			case "signin":
				return a.store.SignIn(r.Context(), a.sm, r.FormValue("user"))
			case "put-user":
				a.sm.Put(r.Context(), userKey, r.FormValue("user"))
			}
			return nil
		}
		if err := step(r.FormValue("before")); err != nil {
			return err
		}
		a.arrived <- struct{}{}
		<-a.proceed
		if err := step(r.FormValue("after")); err != nil {
			return err
		}
		return a.answer(w, r)
	})
	handle("/script", func(w http.ResponseWriter, r *http.Request) error {
		found, _ := a.scripts.Load(r.FormValue("id"))
		s := found.(*script)
		for _, step := range s.steps {
			if err := step(s, r); err != nil {
				return err
			}
		}
		return a.answer(w, r)
	})
}

// answer says what has become of the session. Headers are written after the commit, which
// WriteHeader brings about.
func (a *app) answer(w http.ResponseWriter, r *http.Request) error {
	w.WriteHeader(http.StatusOK)
	st := a.store.StatusOf(r.Context())
	_, err := fmt.Fprintf(w, "state=%s reason=%s", st.State, st.EndReason)
	return err
}

// browser is a client with a cookie jar.
type browser struct {
	t   testing.TB
	app *app
	http.Client
}

func (a *app) browser(t testing.TB) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, app: a, Client: http.Client{Jar: jar, Timeout: time.Minute}}
	b.Transport = &http.Transport{}
	if a.TLS != nil {
		b.Transport = a.Server.Client().Transport
	}
	t.Cleanup(b.CloseIdleConnections)
	return b
}

// get returns status and body.
func (b *browser) get(path string, form ...string) (int, string) {
	b.t.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.app.URL+path+"?"+values.Encode(), nil)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	status, body, _ := b.send(req)
	return status, body
}

// send returns status, body, and the token of the cookie that the answer sets, if it does.
func (b *browser) send(req *http.Request) (status int, body, token string) {
	resp, err := b.Do(req)
	if err != nil {
		b.t.Error(err)
		return 0, "", ""
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	for _, c := range resp.Cookies() {
		token = c.Value
	}
	return resp.StatusCode, strings.TrimSpace(string(read)), token
}

// must is get that has to answer 200.
func (b *browser) must(path string, form ...string) string {
	b.t.Helper()
	status, body := b.get(path, form...)
	// A sign-in right after a fence is refused if the answer with the clock comes late: the
	// store cannot know then that it began after the fence. So it is tried again.
	for until := time.Now().Add(10 * time.Second); body == pgstore.ErrEnded.Error() && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
		status, body = b.get(path, form...)
	}
	if status != http.StatusOK {
		b.t.Errorf("%s %v: %d %s", path, form, status, body)
	}
	return body
}

// user is who is signed in, as the app sees it.
func (b *browser) user() string {
	b.t.Helper()
	user, _, _ := strings.Cut(strings.TrimPrefix(b.must("/me"), "user="), " ")
	return user
}

// token is the session cookie.
func (b *browser) token() string {
	u, err := url.Parse(b.app.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == b.app.sm.Cookie.Name {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setToken(token string) {
	u, err := url.Parse(b.app.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Jar.SetCookies(u, []*http.Cookie{{Name: b.app.sm.Cookie.Name, Value: token, Path: "/"}})
}

// keys is what the session holds, as a fresh request sees it.
func (b *browser) keys() string {
	b.t.Helper()
	_, keys, _ := strings.Cut(b.must("/me"), "keys=")
	return keys
}

// hold starts a request and returns once it waits inside its handler. finish lets
// it go on, and returns its answer.
func (b *browser) hold(form ...string) (finish func() (int, string)) {
	b.t.Helper()
	type answer struct {
		status int
		body   string
	}
	done := make(chan answer, 1)
	go func() {
		status, body := b.get("/hold", form...)
		done <- answer{status, body}
	}()
	<-b.app.arrived
	return func() (int, string) {
		b.app.proceed <- struct{}{}
		a := <-done
		return a.status, a.body
	}
}

// bothWays runs a test on the plain store and under Track.
func bothWays(t *testing.T, f func(t *testing.T, newApp newAppFunc)) {
	for name, newApp := range map[string]newAppFunc{"plain": newPlainApp, "tracked": newApp} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newApp)
		})
	}
}

// live counts the user's live sessions by the truth alone.
func live(t testing.TB, pool *pgxpool.Pool, user string) int {
	t.Helper()
	return pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE user_id = $1 AND end_reason IS NULL AND expiry > now()`, user)
}

// under calls f in a request under Track.
func under(store *pgstore.Store, f func(context.Context)) {
	store.Track(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(r.Context()) })).
		ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
}
