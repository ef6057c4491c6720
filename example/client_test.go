package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
)

// testConfig is the default configuration.
func testConfig(t testing.TB) config {
	t.Helper()
	cfg, err := parseFlags(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// serveStore serves the demo on store.
func serveStore(t testing.TB, cfg config, store scs.Store) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(newServer(cfg, store, slog.New(slog.DiscardHandler)).handler())
	if cfg.secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

// serveMemory serves the demo on scs's memory store.
func serveMemory(t *testing.T) *httptest.Server {
	t.Helper()
	cfg := testConfig(t)
	cfg.store = storeMemory
	return serveStore(t, cfg, memstore.NewWithCleanupInterval(0))
}

// browser is one device with its cookies. It does not follow redirects.
type browser struct {
	t         testing.TB
	url       string
	userAgent string
	client    *http.Client
}

func newBrowser(t testing.TB, srv *httptest.Server, userAgent string) *browser {
	t.Helper()
	b := newBrowserAt(t, srv.URL, userAgent)
	b.client.Transport = srv.Client().Transport // which knows the server's certificate
	return b
}

func newBrowserAt(t testing.TB, url, userAgent string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, url: url, userAgent: userAgent, client: &http.Client{
		Timeout: time.Minute,
		Jar:     jar,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

// answer is what came back. Its JSON fields are those of all answers together.
type answer struct {
	status int
	header http.Header
	body   string

	Error       string        `json:"error"`
	Code        string        `json:"code"`
	Success     bool          `json:"success"`
	Username    string        `json:"username"`
	Sessions    []sessionJSON `json:"sessions"`
	Limit       int           `json:"limit"`
	Revoked     *int          `json:"revoked"`
	ExpiresAt   time.Time     `json:"expires_at"`
	SecondsLeft *int64        `json:"seconds_left"`
}

// send sends a request. header holds pairs of names and values.
func (b *browser) send(method, path, body string, header ...string) answer {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("User-Agent", b.userAgent)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(raw)}
	if resp.Header.Get("Content-Type") == typeJSON {
		if err := json.Unmarshal(raw, &a); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return a
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, path, "")
}

func (b *browser) post(path string) answer {
	b.t.Helper()
	return b.send(http.MethodPost, path, "")
}

// login signs in as a program does, with a form but without asking for HTML.
func (b *browser) login(username, password string) answer {
	b.t.Helper()
	return b.send(http.MethodPost, "/login", credentials(username, password), "Content-Type", typeForm)
}

// submit sends a form as the page does.
func (b *browser) submit(path, form string) answer {
	b.t.Helper()
	return b.send(http.MethodPost, path, form, "Content-Type", typeForm,
		"Accept", "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Site", "same-origin")
}

// mustLogin signs in and fails the test where that is refused.
func (b *browser) mustLogin(username string) {
	b.t.Helper()
	if a := b.login(username, passwordOf(username)); a.status != http.StatusOK || !a.Success {
		b.t.Fatalf("login of %s: %d %s", username, a.status, a.body)
	}
}

// cookie is the session cookie that the browser holds, "" if none.
func (b *browser) cookie() string {
	b.t.Helper()
	u, err := url.Parse(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		return c.Value
	}
	return ""
}

// wants checks the status of an answer and the code of its error, "" for none.
func (a answer) wants(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status || a.Code != code || (code != "") != (a.Error != "") {
		t.Errorf("answered %d %s, want %d with code %q", a.status, strings.TrimSpace(a.body), status, code)
	}
}

// redirects checks that an answer sends the browser to location.
func (a answer) redirects(t *testing.T, location string) {
	t.Helper()
	if got := a.header.Get("Location"); a.status != http.StatusSeeOther || got != location {
		t.Errorf("answered %d to %q, want 303 to %q", a.status, got, location)
	}
}

func (a answer) contains(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("the answer does not contain %q:\n%s", part, a.body)
		}
	}
}

func (a answer) lacks(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(a.body, part) {
			t.Errorf("the answer contains %q:\n%s", part, a.body)
		}
	}
}

func credentials(username, password string) string {
	return url.Values{"username": {username}, "password": {password}}.Encode()
}

func passwordOf(username string) string {
	for _, p := range demoPasswords {
		if p.username == username {
			return p.password
		}
	}
	return ""
}
