package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// The apps of a switch, behind one address.
const (
	oldApp = "old"
	newApp = "new"
	both   = "both" // in turns, whoever asks
)

// move is a switch from pgxstore to ours, and its traffic. Each request runs under mu's read
// lock, so whoever has it for writing holds the traffic back.
type move struct {
	t       *testing.T
	mu      sync.RWMutex
	serving string
	turn    atomic.Int64
	apps    map[string]http.Handler
	server  *httptest.Server
	store   *pgstore.Store
}

// surfer is a browser of one user. It knows how often the user has clicked.
type surfer struct {
	http.Client
	user   string
	clicks int
}

func newMove(t *testing.T, limit int) *move {
	pool := migrated(t)
	pgtest.Exec(t, pool, `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`)
	m := &move{t: t, serving: oldApp, store: newStore(t, pool, pgstore.Config{UserLimit: limit, TouchAfter: time.Nanosecond})}
	before, after := scs.New(), scs.New()
	before.IdleTimeout, after.IdleTimeout = 30*time.Minute, 30*time.Minute
	before.Store = pgxstore.NewWithCleanupInterval(pool, 0)
	after.Store, after.Codec = m.store, pgstore.Codec{UserKey: userKey}
	m.apps = map[string]http.Handler{oldApp: before.LoadAndSave(m.app(before)), newApp: m.store.Track(after.LoadAndSave(m.app(after)))}
	m.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		app := m.serving
		if app == both {
			app = []string{oldApp, newApp}[m.turn.Add(1)%2]
		}
		if one := r.FormValue("app"); one != "" {
			app = one
		}
		m.apps[app].ServeHTTP(w, r)
	}))
	t.Cleanup(m.server.Close)
	return m
}

// app is the same app before and after.
func (m *move) app(sm *scs.SessionManager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := sm.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		sm.Put(r.Context(), userKey, r.FormValue("user"))
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		if err := sm.Destroy(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	me := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, sm.GetString(r.Context(), userKey), " ", sm.GetInt(r.Context(), "clicks"))
	}
	mux.HandleFunc("/me", me)
	mux.HandleFunc("/click", func(w http.ResponseWriter, r *http.Request) {
		sm.Put(r.Context(), "clicks", sm.GetInt(r.Context(), "clicks")+1)
		me(w, r)
	})
	return mux
}

func (m *move) surfer(user string) *surfer {
	jar, err := cookiejar.New(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	s := &surfer{user: user}
	s.Jar, s.Transport = jar, m.server.Client().Transport
	m.get(s, "/login?user="+user)
	return s
}

func (m *move) get(s *surfer, path string) string {
	resp, err := s.Get(m.server.URL + path)
	if err != nil {
		m.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		m.t.Errorf("%s: %d %s, %v", path, resp.StatusCode, body, err)
	}
	return string(body)
}

// twin is another browser with the same cookie.
func (m *move) twin(s *surfer) *surfer {
	u, err := url.Parse(m.server.URL)
	if err != nil {
		m.t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	jar.SetCookies(u, s.Jar.Cookies(u))
	copied := &surfer{user: s.user, clicks: s.clicks}
	copied.Jar, copied.Transport = jar, s.Transport
	return copied
}

// visit makes sure that the browser is still signed in, and clicks if one app alone serves:
// what both have written is kept as the new one has it.
func (m *move) visit(s *surfer) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.serving == both {
		if got := m.get(s, "/me"); !isOf(got, s.user) {
			m.t.Errorf("both serve: %s is %q", s.user, got)
		}
		return
	}
	s.clicks++
	if want, got := fmt.Sprint(s.user, " ", s.clicks), m.get(s, "/click"); got != want {
		m.t.Errorf("the %s app serves: %q, want %q", m.serving, got, want)
	}
}

func isOf(answer, user string) bool {
	var got string
	_, _ = fmt.Sscan(answer, &got)
	return got == user
}

func (m *move) imports() (r pgstore.ImportResult) {
	r, err := m.store.Import(m.t.Context(), pgstore.ImportOptions{Codec: pgstore.Codec{UserKey: userKey}, Lifetime: 24 * time.Hour})
	if err != nil || r.Unreadable > 0 || r.Fenced > 0 {
		m.t.Errorf("%+v, %v", r, err)
	}
	return r
}

// switchTo lets another app serve, between two requests.
func (m *move) switchTo(app string, between func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	between()
	m.serving = app
}

// dead makes sure that a cookie of the user's signs nobody in.
func (m *move) dead(what string, list []*surfer) {
	for _, s := range list {
		if got := m.get(s, "/me?app=new"); isOf(got, s.user) {
			m.t.Errorf("%s: the new app takes the cookie for %q", what, got)
		}
	}
}

func TestImportSwitchesUnderTrafficAndBack(t *testing.T) {
	t.Parallel()
	const browsers, perUser, limit, workers = 1000, 4, 3, 8
	const leaving = 20 // of the browsers
	m := newMove(t, limit)
	m.server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 2 * workers
	surfers := make([]*surfer, browsers)
	each := func(from int, f func(n int)) { // in parallel
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for n := from + w; n < browsers; n += workers {
					f(n)
				}
			})
		}
		wg.Wait()
	}
	each(0, func(n int) { surfers[n] = m.surfer(fmt.Sprint("user", n/perUser)) })
	clicks := func(set []int) (were []int) { // as far as the app that serves knows
		for n, s := range surfers {
			were = append(were, s.clicks)
			if set != nil {
				s.clicks = set[n]
			}
		}
		return were
	}

	// Everybody but those who leave clicks on and on.
	var visits [browsers]atomic.Int64
	stopped := make(chan struct{})
	stop := sync.OnceFunc(func() { close(stopped) })
	defer stop()
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for {
			each(leaving, func(n int) {
				select {
				case <-stopped:
				default:
					m.visit(surfers[n])
					visits[n].Add(1)
				}
			})
			select {
			case <-stopped:
				return
			default:
			}
		}
	})
	aRound := func() { // until everybody has had a turn
		t.Helper()
		var from [browsers]int64
		for n := range from {
			from[n] = visits[n].Load()
		}
		pgtest.Eventually(t, "a round", func() bool {
			for n := leaving; n < browsers && !t.Failed(); n++ {
				if visits[n].Load() == from[n] {
					return false
				}
			}
			return true
		})
	}
	leave := func(list []*surfer, query string) (cookies []*surfer) {
		for _, s := range list {
			cookies = append(cookies, m.twin(s))
			m.get(s, "/logout"+query)
		}
		return cookies
	}

	if r := m.imports(); r.Imported != browsers {
		t.Errorf("the first import: %+v", r)
	}
	aRound()
	left := leave(surfers[:leaving/2], "")
	late := m.surfer("late")
	m.switchTo(both, func() {
		if r := m.imports(); r.Imported != 1 || r.SignedOut != leaving/2 {
			t.Errorf("the import before the roll-out: %+v", r)
		}
	})
	m.dead("left before the roll-out", left)
	left = append(left, leave(surfers[leaving/2:leaving], "?app=old")...)
	aRound()
	if r := m.imports(); r.SignedOut != leaving/2 { // beside the traffic of both
		t.Errorf("the import during the roll-out: %+v", r)
	}
	m.dead("left during the roll-out", left)
	m.visit(late)
	var atSwitch, atReturn []int
	m.switchTo(newApp, func() { m.imports(); atSwitch = clicks(nil) })
	aRound()
	m.visit(late)
	gone := leave([]*surfer{late}, "")

	// Back, all are signed in as they were, but what was done meanwhile is not known there:
	// clicks, sign-outs and sign-ins.
	fresh := m.surfer("fresh")
	m.switchTo(oldApp, func() { atReturn = clicks(atSwitch) })
	aRound()
	stop()
	traffic.Wait()
	if got := m.get(gone[0], "/me"); !isOf(got, "late") || isOf(m.get(m.twin(fresh), "/me"), "fresh") {
		t.Errorf("the old app knows of the sign-out, or of the sign-in, in the new one: %q", got)
	}

	// And forth again.
	m.switchTo(newApp, func() { m.imports(); clicks(atReturn) })
	each(leaving, func(n int) { m.visit(surfers[n]) })
	m.visit(fresh)
	m.dead("left in either app", append(left, gone...))

	for n := range 20 {
		user := fmt.Sprint("user", leaving/perUser+n) // which has four live sessions
		m.surfer(user)
		if live, err := m.store.Count(t.Context(), user); live != limit || err != nil {
			t.Errorf("after a sign-in %s has %d sessions, %v", user, live, err)
		}
	}
}
