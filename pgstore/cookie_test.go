package pgstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// overHTTP runs a test on an app over HTTP/1.1 and one over HTTP/2.
func overHTTP(t *testing.T, f func(t *testing.T, a *app)) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := makeApp(t, migrated(t), pgstore.Config{})
			a.tracked = true
			a.Server = httptest.NewUnstartedServer(a.store.Track(a.sm.LoadAndSave(a.mux)))
			a.EnableHTTP2 = http2
			a.StartTLS()
			t.Cleanup(a.Close)
			f(t, a)
		})
	}
}

// tab is a browser for an app of overHTTP.
func (a *app) tab(t testing.TB) *browser {
	b := a.browser(t)
	b.Transport = a.Client().Transport
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

// answer is the whole response.
func (b *browser) answer(method, path string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.app.URL+path, nil)
	if err != nil {
		b.t.Error(err)
		return new(http.Response)
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Error(err)
		return new(http.Response)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

// holdAnswer is browser.hold that returns the whole response.
func (b *browser) holdAnswer(path string) (finish func() *http.Response) {
	done := make(chan *http.Response, 1)
	go func() { done <- b.answer(http.MethodGet, path) }()
	<-b.app.arrived
	return func() *http.Response {
		b.app.proceed <- struct{}{}
		return <-done
	}
}

// session is the session's cookie in the answer, or nil.
func (a *app) session(resp *http.Response) *http.Cookie {
	for _, c := range resp.Cookies() {
		if c.Name == a.sm.Cookie.Name {
			return c
		}
	}
	return nil
}

// The user signs in in another tab while a request waits: its answer comes last.
func TestCookieOfALateAnswerDoesNotPutTheOldTokenBack(t *testing.T) {
	t.Parallel()
	meanwhile := map[string][]string{
		"signs in":   {"/login", "user", "alice"},
		"renews":     {"/renew"},
		"changes it": {"/put", "key", "k", "value", "v"},
	}
	late := map[string][]string{
		"unchanged":                      nil,
		"changed":                        {"after", "put"},
		"renewed, too":                   {"after", "renew"},
		"committed long before the rest": {"before", "commit"},
	}
	overHTTP(t, func(t *testing.T, a *app) {
		for name, do := range meanwhile {
			for what, form := range late {
				b := a.tab(t)
				b.must("/login", "user", "alice")
				finish := b.hold(form...)
				b.must(do[0], do[1:]...)
				if status, body := finish(); status != http.StatusOK {
					t.Errorf("%s, %s: %d %s", name, what, status, body)
				}
				if user := b.user(); user != "alice" {
					t.Errorf("%s, then an answer that is %s: %q is signed in", name, what, user)
				}
			}
		}
	})
}

func TestCookieOfALateAnswerIsWithheldThroughOtherMiddleware(t *testing.T) {
	t.Parallel()
	buffers := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }
	for name, wrap := range map[string]func(a *app) http.Handler{
		"around Track":       func(a *app) http.Handler { return buffers(a.store.Track(a.sm.LoadAndSave(a.mux))) },
		"inside Track":       func(a *app) http.Handler { return a.store.Track(buffers(a.sm.LoadAndSave(a.mux))) },
		"inside LoadAndSave": func(a *app) http.Handler { return a.store.Track(a.sm.LoadAndSave(buffers(a.mux))) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			a.Config.Handler = wrap(a)
			b := a.browser(t)
			b.must("/login", "user", "alice")
			finish := b.hold()
			b.must("/login", "user", "alice")
			finish()
			if user := b.user(); user != "alice" {
				t.Errorf("%q is signed in", user)
			}
		})
	}
}

func TestCookieOfADroppedCommitIsWithheld(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		for name, form := range map[string]string{
			"a change":                  "?after=put",
			"a change after a commit":   "?before=commit&after=put",
			"a renewal":                 "?after=renew", // it made a token that names nothing
			"a change after a sign-in":  "?before=signin&user=alice&after=put",
			"a renewal after a sign-in": "?before=signin&user=alice&after=renew",
		} {
			b := a.tab(t)
			b.must("/login", "user", "alice")
			token := b.token()
			finish := b.holdAnswer("/hold" + form)
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			if c := a.session(finish()); c != nil || b.token() != token {
				t.Errorf("%s: %v", name, c)
			}
			if me := b.must("/me"); !strings.Contains(form, "signin") && !strings.Contains(me, "reason=revoked") {
				t.Errorf("%s: the browser cannot be told why: %s", name, me)
			}
		}
	})
}

// A touch is due, and then it is not: another request has written and extended the session.
func TestCookieIsWithheldIfAnotherRequestWasFirstToExtendTheSession(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		b := a.tab(t)
		b.must("/login", "user", "alice")
		age(t, a.pool, "2 minutes")
		finish := b.holdAnswer("/hold")
		if c := a.session(b.answer(http.MethodGet, "/put?key=k&value=v")); c == nil {
			t.Error("the first has no cookie")
		}
		if c := a.session(finish()); c != nil {
			t.Errorf("the second has %v", c)
		}
	})
}

// ways are the ways in which a handler answers.
var ways = map[string]struct {
	method string
	status int
	answer func(w http.ResponseWriter, r *http.Request)
}{
	"Write":       {http.MethodGet, 200, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }},
	"WriteHeader": {http.MethodPost, 204, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
	"nothing":     {http.MethodGet, 200, func(http.ResponseWriter, *http.Request) {}},
	"HEAD":        {http.MethodHead, 200, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }},
	"redirect":    {http.MethodPost, 303, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/me", http.StatusSeeOther) }},
	"304": {http.MethodGet, 304, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		r.Header.Set("If-None-Match", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("hello"))
	}},
	"content": {http.MethodGet, 200, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "hello.txt", time.Time{}, strings.NewReader(strings.Repeat("hello", 10_000)))
	}},
	"stream": {http.MethodGet, 200, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		for range 3 {
			fmt.Fprint(w, "hello")
			_ = http.NewResponseController(w).Flush()
		}
	}},
	"Early Hints": {http.MethodGet, 200, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload; as=style")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "hello")
	}},
}

func TestCookieIsSentWithWhatWasStoredOrTouched(t *testing.T) {
	t.Parallel()
	app1, malformed, app2 := "theme=dark;path=/ ;  Secure", "no pair", "lang=; Max-Age=0"
	overHTTP(t, func(t *testing.T, a *app) {
		for name, way := range ways {
			a.mux.HandleFunc("/way/"+strings.ReplaceAll(name, " ", "-"), func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.RawQuery {
				case "put":
					a.sm.Put(r.Context(), "at", time.Now().String())
				case "signin":
					if err := a.store.SignIn(r.Context(), a.sm, "alice"); err != nil {
						t.Error(err)
					}
				case "destroy":
					if err := a.sm.Destroy(r.Context()); err != nil {
						t.Error(err)
					}
				}
				for _, line := range []string{app1, malformed, app2} {
					w.Header().Add("Set-Cookie", line)
				}
				way.answer(w, r)
			})
			path := "/way/" + strings.ReplaceAll(name, " ", "-")
			b := a.tab(t)
			for _, step := range []struct {
				name, query, age string
				want             bool
			}{
				{"a first visit", "put", "0", true},
				{"unchanged", "", "0", false},
				{"changed", "put", "0", true},
				{"a sign-in", "signin", "0", true},
				{"unchanged, signed in", "", "0", false},
				{"touched", "", "2 minutes", true},
				{"a sign-out", "destroy", "0", true},
				{"no session", "", "0", false},
			} {
				age(t, a.pool, step.age)
				before := b.token()
				resp := b.answer(way.method, path+"?"+step.query)
				what := fmt.Sprintf("%s, %s", name, step.name)
				if resp.StatusCode != way.status {
					t.Errorf("%s: %d", what, resp.StatusCode)
				}
				c := a.session(resp)
				if (c != nil) != step.want {
					t.Errorf("%s: %q", what, resp.Header["Set-Cookie"])
				}
				switch {
				case c == nil && b.token() != before,
					step.query == "destroy" && b.token() != "",
					step.query != "destroy" && c != nil && c.MaxAge != 0, // the cookie is not persistent
					step.query == "signin" && b.token() == before:
					t.Errorf("%s: the browser has %q, had %q", what, b.token(), before)
				}
				rest := slices.DeleteFunc(resp.Header["Set-Cookie"], func(line string) bool { return strings.HasPrefix(line, "session=") })
				if !slices.Equal(rest, []string{app1, malformed, app2}) {
					t.Errorf("%s: the app's cookies became %q", what, rest)
				}
				// scs marks each answer after a commit, and after a deletion, for caches.
				marked := resp.Header.Get("Cache-Control") == `no-cache="Set-Cookie"`
				if want := step.name != "no session"; marked != want || resp.Header.Get("Vary") != "Cookie" {
					t.Errorf("%s: %v", what, resp.Header)
				}
			}
		}
	})
}

func TestCookieThatPersistsIsExtendedWithItsSession(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.mux.HandleFunc("/remember", func(_ http.ResponseWriter, r *http.Request) {
			a.sm.RememberMe(r.Context(), true)
			if err := a.store.SignIn(r.Context(), a.sm, "alice"); err != nil {
				t.Error(err)
			}
		})
		b := a.tab(t)
		for _, step := range [][2]string{{"/remember", "0"}, {"/me", "20 minutes"}} {
			path := step[0]
			age(t, a.pool, step[1])
			c := a.session(b.answer(http.MethodGet, path))
			if c == nil || c.MaxAge < 1790 || c.MaxAge > 1801 || c.Expires.Before(time.Now().Add(29*time.Minute)) {
				t.Fatalf("%s: %v", path, c)
			}
			if left := time.Until(rowOf(t, a.pool, b.token()).Expiry); left < 29*time.Minute {
				t.Errorf("%s: the row has %s left", path, left)
			}
			if c := a.session(b.answer(http.MethodGet, "/me")); c != nil {
				t.Errorf("%s, then unchanged: %v", path, c)
			}
		}
	})
}

// What holds after headers have gone out too early is as in scs: see Track.
func TestCookieAfterAFlushBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.mux.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.RawQuery {
			case "put":
				a.sm.Put(r.Context(), "k", time.Now().String())
			case "renew":
				if err := a.sm.RenewToken(r.Context()); err != nil {
					t.Error(err)
				}
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, "hello")
		})
		b := a.tab(t)
		if resp := b.answer(http.MethodGet, "/flush?put"); len(resp.Cookies()) != 0 || b.keys() != "" {
			t.Errorf("a first visit: %v", resp.Header)
		}
		b.must("/login", "user", "alice")
		if resp := b.answer(http.MethodGet, "/flush?put"); len(resp.Cookies()) != 0 || b.keys() != "k,"+userKey {
			t.Errorf("a change: %v, keys %s", resp.Header, b.keys())
		}
		if resp := b.answer(http.MethodGet, "/flush?renew"); len(resp.Cookies()) != 0 || b.user() != "" {
			t.Errorf("a renewal: %v, user %q", resp.Header, b.user())
		}
		// WriteHeader first, as Track advises.
		a.mux.HandleFunc("/write-and-flush", func(w http.ResponseWriter, r *http.Request) {
			if err := a.store.SignIn(r.Context(), a.sm, "alice"); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusOK)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		})
		if b.must("/write-and-flush"); b.user() != "alice" {
			t.Error("the cookie is lost with WriteHeader, too")
		}
	})
}

func TestCookieAroundEarlyHints(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "before" {
				a.sm.Put(r.Context(), "before", time.Now().String())
			}
			w.WriteHeader(http.StatusEarlyHints)
			if r.URL.RawQuery == "renew" {
				if err := a.sm.RenewToken(r.Context()); err != nil {
					t.Error(err)
				}
			}
			a.sm.Put(r.Context(), "after", time.Now().String())
			fmt.Fprint(w, "hello")
		})
		b := a.tab(t)
		hints := func(query string) (informational, final *http.Cookie) {
			t.Helper()
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				informational = a.session(&http.Response{Header: http.Header(h)})
				return nil
			}})
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+"/hints?"+query, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := b.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return informational, a.session(resp)
		}
		if i, f := hints("before"); i == nil || f == nil || i.Value != f.Value || b.token() != f.Value {
			t.Errorf("a first visit: %v, then %v", i, f)
		}
		if i, f := hints(""); i != nil || f != nil {
			t.Errorf("unchanged: %v, then %v", i, f)
		}
		if keys := b.keys(); keys != "before" {
			t.Errorf("stored: %s", keys)
		}
		b.must("/login", "user", "alice")
		if i, f := hints("renew"); i != nil || f != nil || b.user() != "" {
			t.Errorf("renewed after the hints: %v, then %v, user %q", i, f, b.user())
		}
	})
}

// A middleware may send hints before LoadAndSave: its cookie goes out all the same.
func TestCookieAfterTheHintsOfAMiddleware(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.Config.Handler = a.store.Track(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		a.sm.LoadAndSave(a.mux).ServeHTTP(w, r)
	}))
	b := a.browser(t)
	b.must("/login", "user", "alice")
	if b.user() != "alice" {
		t.Error("not signed in")
	}
	finish := b.hold()
	b.must("/login", "user", "alice")
	finish()
	if b.user() != "alice" {
		t.Error("a late answer put the old token back")
	}
}

func TestCookieOfAHijackedConnectionIsTheHandlersOwn(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				if r.ProtoMajor == 1 || !errors.Is(err, http.ErrNotSupported) {
					t.Error(err)
				}
				fmt.Fprint(w, "not supported")
				return
			}
			defer conn.Close()
			fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nSet-Cookie: session=%s\r\nContent-Length: 0\r\n\r\n", a.sm.Token(r.Context()))
			_ = buf.Flush()
		})
		b := a.tab(t)
		b.must("/login", "user", "alice")
		resp := b.answer(http.MethodGet, "/hijack")
		if c := a.session(resp); (c != nil) != (resp.ProtoMajor == 1) {
			t.Errorf("HTTP/%d: %v", resp.ProtoMajor, c)
		}
	})
}

func TestTrackPassesOnWhatTheServerCanDo(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		can := func(w http.ResponseWriter) map[string]error {
			c := http.NewResponseController(w)
			return map[string]error{
				"EnableFullDuplex": c.EnableFullDuplex(),
				"SetReadDeadline":  c.SetReadDeadline(time.Now().Add(time.Minute)),
				"SetWriteDeadline": c.SetWriteDeadline(time.Now().Add(time.Minute)),
				"Flush":            c.Flush(),
			}
		}
		a.mux.HandleFunc("/controller", func(w http.ResponseWriter, _ *http.Request) {
			for name, err := range can(w) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
		// Without LoadAndSave, whose own writer hides them, there are type assertions, too.
		handler := a.Config.Handler
		a.Config.Handler = a.store.Track(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/bare" {
				handler.ServeHTTP(w, r)
				return
			}
			w.(http.Flusher).Flush()
			if _, err := io.Copy(w, strings.NewReader("hello")); err != nil {
				t.Error(err)
			}
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				defer conn.Close()
			}
			if (err == nil) != (r.ProtoMajor == 1) {
				t.Errorf("HTTP/%d: %v", r.ProtoMajor, err)
			}
		}))
		b := a.tab(t)
		b.must("/controller")
		resp, err := b.Get(a.URL + "/bare")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if line, _ := bufio.NewReader(resp.Body).Peek(5); string(line) != "hello" && resp.ProtoMajor == 2 {
			t.Errorf("%q", line)
		}
	})
}

func TestTrackPassesPanicsOn(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		b := a.tab(t)
		b.must("/login", "user", "alice")
		if resp, err := b.Get(a.URL + "/abort"); err == nil {
			resp.Body.Close()
			t.Errorf("answered %d", resp.StatusCode)
		}
		if b.user() != "alice" {
			t.Error("signed out")
		}
	})
}

// Two stores around one handler: each judges its own cookie.
func TestCookiesOfTwoManagersAreJudgedApart(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		other := newStore(t, migrated(t), pgstore.Config{})
		sm := newManager(other)
		sm.Cookie.Name = "other"
		a.mux.HandleFunc("/other", func(w http.ResponseWriter, r *http.Request) {
			if user := r.FormValue("user"); user != "" {
				if err := other.SignIn(r.Context(), sm, user); err != nil {
					t.Error(err)
				}
			}
			if r.FormValue("hold") != "" {
				a.arrived <- struct{}{}
				<-a.proceed
				sm.Put(r.Context(), "late", time.Now().String())
			}
			w.Header().Set("Other-User", sm.GetString(r.Context(), userKey))
		})
		a.Config.Handler = a.store.Track(other.Track(a.sm.LoadAndSave(sm.LoadAndSave(a.mux))))
		b := a.tab(t)
		names := func(resp *http.Response) string {
			list := []string{}
			for _, c := range resp.Cookies() {
				list = append(list, c.Name)
			}
			slices.Sort(list)
			return strings.Join(list, ",")
		}
		for _, step := range []struct{ path, want string }{
			{"/other?user=bob", "other"},
			{"/login?user=alice", "session"},
			{"/me", ""},
			{"/put?key=k&value=v", "session"},
			{"/other?user=carol", "other"},
		} {
			if got := names(b.answer(http.MethodGet, step.path)); got != step.want {
				t.Errorf("%s: cookies of %s, want %s", step.path, got, step.want)
			}
		}
		// A late answer that changes the one does not put the other back.
		finish := b.holdAnswer("/other?hold=1")
		b.must("/login", "user", "alice")
		if got := names(finish()); got != "other" {
			t.Errorf("the late answer has cookies of %s", got)
		}
		if user := b.answer(http.MethodGet, "/other").Header.Get("Other-User"); user != "carol" || b.user() != "alice" {
			t.Errorf("%q and %q are signed in", b.user(), user)
		}
	})
}

func TestCookieUnderHashTokenInStore(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.sm.HashTokenInStore = true
		b := a.tab(t)
		if c := a.session(b.answer(http.MethodGet, "/login?user=alice")); c == nil {
			t.Error("a sign-in sets no cookie")
		}
		if c := a.session(b.answer(http.MethodGet, "/me")); c != nil {
			t.Errorf("unchanged: %v", c)
		}
		finish := b.hold()
		b.must("/login", "user", "alice")
		finish()
		if user := b.user(); user != "alice" {
			t.Errorf("after a late answer %q is signed in", user)
		}
		b.must("/logout")
		if b.token() != "" {
			t.Error("the deletion is withheld")
		}
	})
}
