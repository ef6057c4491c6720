package main

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2/memstore"
)

// What a store that knows nothing but tokens can do.
func TestMemoryRoutes(t *testing.T) {
	t.Parallel()
	const id = "2c91be51-e7f7-ed02-ff1f-958420b44427"
	for _, test := range []struct {
		method, path string
		out, in      int    // status for those signed out and signed in
		outCode      string // of the error
		inCode       string
	}{
		{"GET", "/", 200, 200, "", ""},
		{"GET", "/api/me", 401, 200, codeNotSignedIn, ""},
		{"POST", "/logout", 200, 200, "", ""},
		{"GET", "/api/session", 501, 501, codeNotSupported, codeNotSupported},
		{"GET", "/api/sessions", 501, 501, codeNotSupported, codeNotSupported},
		{"DELETE", "/api/sessions/" + id, 501, 501, codeNotSupported, codeNotSupported},
		{"PATCH", "/api/sessions/" + id, 501, 501, codeNotSupported, codeNotSupported},
		{"POST", "/api/sessions/revoke-others", 501, 501, codeNotSupported, codeNotSupported},
		{"POST", "/sessions/" + id + "/revoke", 501, 501, codeNotSupported, codeNotSupported},
		{"GET", "/login", 405, 405, "", ""},
		{"GET", "/logout", 405, 405, "", ""},
		{"POST", "/api/me", 405, 405, codeMethodNotAllowed, codeMethodNotAllowed},
		{"GET", "/api/nowhere", 404, 404, codeNotFound, codeNotFound},
		{"GET", "/api/", 404, 404, codeNotFound, codeNotFound},
		{"GET", "/nowhere", 404, 404, "", ""},
		{"GET", "/static/app.css", 200, 200, "", ""},
		{"GET", "/static/app.js", 200, 200, "", ""},
		{"GET", "/static/favicon.svg", 200, 200, "", ""},
		{"GET", "/static/", 404, 404, "", ""},
		{"GET", "/static/nothing.css", 404, 404, "", ""},
		{"GET", "/static/..%2fserver.go", 400, 400, "", ""},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			t.Parallel()
			b := newBrowser(t, serveMemory(t), "test")
			b.send(test.method, test.path, "").wants(t, test.out, test.outCode)
			b.mustLogin("alice")
			b.send(test.method, test.path, "").wants(t, test.in, test.inCode)
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	srv := serveMemory(t)
	long := strings.Repeat("x", maxBodyBytes)
	for _, test := range []struct {
		name, mediaType, body string
		status                int
		code                  string
	}{
		{"form", typeForm, credentials("alice", "wonderland"), 200, ""},
		{"form with charset", typeForm + "; charset=utf-8", credentials("alice", "wonderland"), 200, ""},
		{"json", typeJSON, `{"username":"bob","password":"builder"}`, 200, ""},
		{"json with charset", typeJSON + "; charset=utf-8", `{"username":"bob","password":"builder"} `, 200, ""},
		{"wrong password", typeForm, credentials("alice", "builder"), 401, codeBadCredentials},
		{"wrong password in json", typeJSON, `{"username":"alice","password":"builder"}`, 401, codeBadCredentials},
		{"unknown user", typeForm, credentials("mallory", "wonderland"), 401, codeBadCredentials},
		{"empty form", typeForm, "", 401, codeBadCredentials},
		{"empty object", typeJSON, "{}", 401, codeBadCredentials},
		{"broken json", typeJSON, `{"username":`, 400, codeBadRequest},
		{"json of another shape", typeJSON, `["alice","wonderland"]`, 400, codeBadRequest},
		{"two objects", typeJSON, `{"username":"bob","password":"builder"}{}`, 400, codeBadRequest},
		{"empty json", typeJSON, "", 400, codeBadRequest},
		{"broken form", typeForm, "username=%zz", 400, codeBadRequest},
		{"too large a form", typeForm, "username=" + long, 413, codeTooLarge},
		{"too large a json", typeJSON, `{"username":"` + long + `"}`, 413, codeTooLarge},
		{"no media type", "", credentials("alice", "wonderland"), 415, codeUnsupportedMedia},
		{"other media type", "text/plain", credentials("alice", "wonderland"), 415, codeUnsupportedMedia},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBrowser(t, srv, "test")
			a := b.send("POST", "/login", test.body, "Content-Type", test.mediaType)
			a.wants(t, test.status, test.code)
			if a.Success != (test.status == 200) {
				t.Errorf("answered %s", a.body)
			}
			if signedIn := b.get("/api/me").status == 200; signedIn != (test.status == 200) {
				t.Errorf("signed in: %t", signedIn)
			}
		})
	}
}

// Credentials in a URL would end up in logs.
func TestLoginIgnoresTheQuery(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	b.send("POST", "/login?"+credentials("alice", "wonderland"), "", "Content-Type", typeForm).
		wants(t, 401, codeBadCredentials)
}

func TestLoginAndLogout(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	a := b.login("alice", "wonderland")
	a.wants(t, 200, "")
	if got, want := a.body, `{"success":true}`+"\n"; got != want {
		t.Errorf("login answered %q, want %q", got, want)
	}
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"scspg_demo=", "; Path=/", "; HttpOnly", "; SameSite=Strict"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie %q lacks %q", cookie, part)
		}
	}
	for _, part := range []string{"Expires", "Max-Age", "Secure", "Domain"} {
		if strings.Contains(cookie, part) {
			t.Errorf("cookie %q has %q", cookie, part)
		}
	}
	if me := b.get("/api/me"); me.Username != "alice" {
		t.Errorf("/api/me answered %s", me.body)
	}
	stolen := b.cookie()

	a = b.post("/logout")
	if !a.Success || b.cookie() != "" {
		t.Errorf("logout answered %s and left the cookie %q", a.body, b.cookie())
	}
	b.get("/api/me").wants(t, 401, codeNotSignedIn)
	b.send("GET", "/api/me", "", "Cookie", "scspg_demo="+stolen).wants(t, 401, codeNotSignedIn)
}

func TestLoginRenewsTheToken(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	b.mustLogin("alice")
	before := b.cookie()
	b.mustLogin("alice")
	if after := b.cookie(); after == "" || after == before {
		t.Errorf("the token after the second sign-in is %q, before it %q", after, before)
	}
	b.send("GET", "/api/me", "", "Cookie", "scspg_demo="+before).wants(t, 401, codeNotSignedIn)
	b.get("/api/me").wants(t, 200, "")
}

func TestLoginAsAnotherUser(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	b.mustLogin("alice")
	b.mustLogin("bob")
	if me := b.get("/api/me"); me.Username != "bob" {
		t.Errorf("/api/me answered %s, want bob", me.body)
	}
}

func TestSecureCookie(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.store, cfg.secure = storeMemory, true
	b := newBrowser(t, serveStore(t, cfg, memstore.NewWithCleanupInterval(0)), "test")
	a := b.login("alice", "wonderland")
	cookie := a.header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-scspg_demo=") || !strings.Contains(cookie, "; Secure") || !strings.Contains(cookie, "; Path=/") {
		t.Errorf("the cookie is %q", cookie)
	}
	b.get("/api/me").wants(t, 200, "")
}

func TestCrossSitePostsAreRefused(t *testing.T) {
	t.Parallel()
	srv := serveMemory(t)
	for _, test := range []struct {
		name   string
		header []string
		status int
	}{
		{"cross-site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same site, other origin", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"origin of another host", []string{"Origin", "https://elsewhere.example"}, 403},
		{"same origin", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"own origin", []string{"Origin", srv.URL}, 200},
		{"no browser", nil, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBrowser(t, srv, "test")
			header := append([]string{"Content-Type", typeForm}, test.header...)
			code := ""
			if test.status == 403 {
				code = codeCrossOrigin
			}
			b.send("POST", "/login", credentials("alice", "wonderland"), header...).wants(t, test.status, code)
			b.mustLogin("alice")
			b.send("POST", "/logout", "", test.header...).wants(t, test.status, code)
			if signedIn := b.get("/api/me").status == 200; signedIn != (test.status == 403) {
				t.Errorf("signed in after the logout: %t", signedIn)
			}
		})
	}
}

// Forms of the page get the page back, also where something is wrong.
func TestPageForms(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	b.submit("/login", credentials("alice", "wrong")).redirects(t, "/?notice="+codeBadCredentials)
	b.get("/?notice="+codeBadCredentials).contains(t, `role="alert">Wrong username or password.`)
	b.submit("/sessions/x/revoke", "").redirects(t, "/?notice="+codeNotSupported)
	b.submit("/login", credentials("alice", "wonderland")).redirects(t, "/")
	b.get("/").contains(t, "Signed in as <strong>Alice</strong>")
	b.submit("/logout", "").redirects(t, "/?notice="+noticeSignedOut)
	b.get("/?notice="+noticeSignedOut).contains(t, `role="status">You are signed out on this device.`)
}

func TestPage(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	a := b.get("/?notice=" + url.QueryEscape("<b>Anything</b>"))
	a.wants(t, 200, "")
	a.contains(t, "<!DOCTYPE html>", `<html lang="en">`, "<title>Sign in",
		`<form method="post" action="/login"`, `name="username"`, `name="password" type="password"`,
		"<strong>memory</strong>", "-store postgres")
	a.lacks(t, "Anything", "role=\"alert\"", "Signed in as", " style=", " onclick=", "<script>")
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": contentPolicy,
		"X-Content-Type-Options":  "nosniff",
		"Cache-Control":           "no-store",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}

	b.mustLogin("alice")
	a = b.get("/")
	a.contains(t, "Signed in as <strong>Alice</strong>", `action="/logout"`, "<strong>memory</strong>")
	a.lacks(t, "<table", "The store</h2>", "data-signed-in", `name="password"`)
}

// Static files must not read a session, or keep it alive.
func TestStaticFilesHaveNoSession(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveMemory(t), "test")
	b.mustLogin("alice")
	a := b.get("/static/app.css")
	if a.header.Get("Set-Cookie") != "" || a.header.Get("Vary") != "" {
		t.Errorf("a stylesheet came with %v", a.header)
	}
	if got := a.header.Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("a stylesheet came as %q", got)
	}
}

// brokenStore finds nothing and stores nothing.
type brokenStore struct{}

var errBroken = errors.New("postgres://user:secret@host/db is down")

func (brokenStore) Delete(string) error                    { return errBroken }
func (brokenStore) Find(string) ([]byte, bool, error)      { return nil, false, errBroken }
func (brokenStore) Commit(string, []byte, time.Time) error { return errBroken }

// A store that fails is a 500 with one body, which does not tell the cause.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveStore(t, testConfig(t), brokenStore{}), "test")
	for name, a := range map[string]answer{
		"load":   b.send("GET", "/api/me", "", "Cookie", "scspg_demo=x"),
		"commit": b.login("alice", "wonderland"),
		"delete": b.post("/logout"),
	} {
		a.wants(t, 500, codeInternal)
		if strings.Count(a.body, "{") != 1 || strings.Contains(a.body, "secret") {
			t.Errorf("%s: answered %s", name, a.body)
		}
	}
	a := b.send("GET", "/", "", "Cookie", "scspg_demo=x", "Accept", "text/html")
	if a.status != 500 || !strings.HasPrefix(a.body, "Something went wrong") || strings.Contains(a.body, "secret") {
		t.Errorf("the page answered %d %s", a.status, a.body)
	}
	// What needs no session does not ask for one.
	const cookie = "scspg_demo=x"
	b.send("GET", "/static/app.css", "", "Cookie", cookie).wants(t, http.StatusOK, "")
	b.send("GET", "/api/nowhere", "", "Cookie", cookie).wants(t, http.StatusNotFound, codeNotFound)
	b.send("GET", "/nowhere", "", "Cookie", cookie).wants(t, http.StatusNotFound, "")
	a = b.send("POST", "/api/me", "", "Cookie", cookie)
	a.wants(t, http.StatusMethodNotAllowed, codeMethodNotAllowed)
	if allow := a.header.Get("Allow"); !strings.Contains(allow, "GET") {
		t.Errorf("Allow: %q", allow)
	}
}

// Renewing a token keeps the session's values. They must not pass from one user to
// the next on the same device, and must stay with one who signs in again.
func TestSignInKeepsValuesOfTheSameUserOnly(t *testing.T) {
	t.Parallel()
	s := newServer(testConfig(t), memstore.NewWithCleanupInterval(0), slog.New(slog.DiscardHandler))
	ctx, err := s.sm.Load(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ username, want string }{
		{"alice", "userID"}, {"alice", "basket userID"}, {"bob", "userID"},
	} {
		if err := s.signIn(ctx, users[test.username]); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.sm.Keys(ctx), " "); got != test.want {
			t.Errorf("after the sign-in of %s the session holds %s, want %s", test.username, got, test.want)
		}
		s.sm.Put(ctx, "basket", "one rabbit hole")
	}
}
