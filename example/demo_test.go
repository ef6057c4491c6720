package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore"
)

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	safari  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)

// postgresDemo is the demo on a schema of its own.
type postgresDemo struct {
	*httptest.Server
	t  testing.TB
	db *pgxpool.Pool
}

func servePostgres(t testing.TB, change func(*config)) *postgresDemo {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	dsn := newSchema(t)
	opened, err := openPostgres(t.Context(), cfg, dsn, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.close(); err != nil {
			t.Error(err)
		}
	})
	db, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return &postgresDemo{Server: serveStore(t, cfg, opened.store), t: t, db: db}
}

// newSchema creates an empty schema and returns the DSN whose search_path it is.
func newSchema(t testing.TB) string {
	t.Helper()
	base := testDatabase(t)
	admin, err := pgxpool.New(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	name := "demo_" + strings.ToLower(rand.Text())
	if _, err := admin.Exec(t.Context(), "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if _, err := admin.Exec(context.WithoutCancel(t.Context()), "DROP SCHEMA "+name+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	return withParameter(t, base, "search_path", name)
}

// withParameter adds a connection parameter to a DSN of either form.
func withParameter(t testing.TB, dsn, name, value string) string {
	t.Helper()
	if !strings.Contains(dsn, "://") {
		return dsn + " " + name + "=" + value
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func (d *postgresDemo) browser(userAgent string) *browser {
	d.t.Helper()
	return newBrowser(d.t, d.Server, userAgent)
}

// signedIn is a browser on which username has signed in.
func (d *postgresDemo) signedIn(userAgent, username string) *browser {
	d.t.Helper()
	b := d.browser(userAgent)
	b.mustLogin(username)
	return b
}

// expire lets the session of b time out.
func (d *postgresDemo) expire(b *browser) {
	d.t.Helper()
	tag, err := d.db.Exec(d.t.Context(),
		"UPDATE scs_sessions SET expiry = now() - interval '1 second' WHERE id = $1", b.id())
	if err != nil || tag.RowsAffected() != 1 {
		d.t.Fatalf("expiring a session: %d rows, %v", tag.RowsAffected(), err)
	}
}

// id is the id of the session that b holds the cookie of.
func (b *browser) id() string {
	b.t.Helper()
	return pgstore.IDOf(b.cookie())
}

// replay asks who a stolen cookie signs in.
func (d *postgresDemo) replay(cookie string) answer {
	d.t.Helper()
	return d.browser("thief").send("GET", "/api/me", "", "Cookie", "scspg_demo="+cookie)
}

func TestListAndRevoke(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	laptop := d.signedIn(firefox, "alice")
	phone := d.signedIn(safari, "alice")
	bob := d.signedIn(firefox, "bob")

	list := laptop.get("/api/sessions")
	list.wants(t, 200, "")
	if len(list.Sessions) != 2 || list.Limit != 5 {
		t.Fatalf("listed %s", list.body)
	}
	for i, want := range []struct {
		id, userAgent string
		current       bool
	}{{phone.id(), safari, false}, {laptop.id(), firefox, true}} {
		got := list.Sessions[i]
		if got.ID != want.id || got.UserAgent != want.userAgent || got.Current != want.current ||
			got.IP.String() != "127.0.0.1" || got.CreatedAt.IsZero() || got.LastSeenAt.Before(got.CreatedAt) ||
			!got.ExpiresAt.After(got.LastSeenAt) {
			t.Errorf("session %d is %+v, want %+v", i, got, want)
		}
	}

	bob.send("DELETE", "/api/sessions/"+phone.id(), "").wants(t, 404, codeNotFound)
	phone.get("/api/me").wants(t, 200, "")

	a := laptop.send("DELETE", "/api/sessions/"+phone.id(), "")
	a.wants(t, 204, "")
	if a.body != "" {
		t.Errorf("204 came with %q", a.body)
	}
	for _, path := range []string{"/api/me", "/api/session", "/api/sessions"} {
		phone.get(path).wants(t, 401, codeSessionRevoked)
	}
	phone.send("DELETE", "/api/sessions/"+laptop.id(), "").wants(t, 401, codeSessionRevoked)
	phone.post("/api/sessions/revoke-others").wants(t, 401, codeSessionRevoked)
	laptop.send("DELETE", "/api/sessions/"+phone.id(), "").wants(t, 404, codeNotFound)
	laptop.send("DELETE", "/api/sessions/nonsense", "").wants(t, 404, codeNotFound)

	if list := laptop.get("/api/sessions"); len(list.Sessions) != 1 || !list.Sessions[0].Current {
		t.Errorf("after the revoke: %s", list.body)
	}
	// Its own session is one of the user's too.
	laptop.send("DELETE", "/api/sessions/"+laptop.id(), "").wants(t, 204, "")
	laptop.get("/api/me").wants(t, 401, codeSessionRevoked)
	phone.mustLogin("alice")
	phone.get("/api/me").wants(t, 200, "")
}

func TestHealthTellsWhatTheStoreNeedsToTheLogOnly(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	if a := b.get("/healthz"); a.status != 200 || a.body != "{\"ok\":true}\n" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Set-Cookie") != "" {
		t.Errorf("%d %s, %v", a.status, a.body, a.header)
	}
	if _, err := d.db.Exec(t.Context(), "ALTER TABLE scs_users RENAME TO others"); err != nil {
		t.Fatal(err)
	}
	a := b.get("/healthz")
	a.wants(t, 503, codeUnhealthy)
	a.lacks(t, "scs_users", "migrations")
	if a := newBrowser(t, serveMemory(t), "test").get("/healthz"); a.status != 200 {
		t.Errorf("in memory: %d %s", a.status, a.body)
	}
}

func TestRenameADevice(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b, bob := d.signedIn(firefox, "alice"), d.signedIn(firefox, "bob")
	path := "/api/sessions/" + b.id()
	rename := func(b *browser, body, mediaType string) answer {
		return b.send("PATCH", path, body, "Content-Type", mediaType)
	}
	rename(b, `{"label":"the laptop"}`, typeJSON).wants(t, 204, "")
	rename(bob, `{"label":"bob's"}`, typeJSON).wants(t, 404, codeNotFound)
	rename(b, `label=x`, typeForm).wants(t, 415, codeUnsupportedMedia)
	rename(b, `{"label":1}`, typeJSON).wants(t, 400, codeBadRequest)
	rename(d.browser(firefox), `{"label":"x"}`, typeJSON).wants(t, 401, codeNotSignedIn)
	if list := b.get("/api/sessions"); len(list.Sessions) != 1 || list.Sessions[0].Label != "the laptop" {
		t.Errorf("listed %s", list.body)
	}
}

func TestTrustedProxySaysWhereADeviceIs(t *testing.T) {
	t.Parallel()
	for network, want := range map[string]string{"127.0.0.0/8": "203.0.113.9", "192.0.2.1": "127.0.0.1"} {
		d := servePostgres(t, func(cfg *config) {
			if err := cfg.trust(network); err != nil {
				t.Fatal(err)
			}
		})
		b := d.browser(firefox)
		b.send("POST", "/login", credentials("alice", "wonderland"), "Content-Type", typeForm, "X-Forwarded-For", "6.6.6.6, 203.0.113.9").wants(t, 200, "")
		if list := b.get("/api/sessions"); len(list.Sessions) != 1 || list.Sessions[0].IP.String() != want {
			t.Errorf("%s: listed %s", network, list.body)
		}
	}
}

func TestRevokeOthers(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	laptop, phone, tablet := d.signedIn(firefox, "alice"), d.signedIn(safari, "alice"), d.signedIn(safari, "alice")
	bob := d.signedIn(firefox, "bob")
	for _, want := range []int{2, 0} {
		a := laptop.post("/api/sessions/revoke-others")
		a.wants(t, 200, "")
		if a.Revoked == nil || *a.Revoked != want {
			t.Errorf("revoke-others answered %s, want %d", a.body, want)
		}
	}
	laptop.get("/api/me").wants(t, 200, "")
	phone.get("/api/me").wants(t, 401, codeSessionRevoked)
	tablet.get("/api/me").wants(t, 401, codeSessionRevoked)
	bob.get("/api/me").wants(t, 200, "")
}

// Of two devices that sign out all others at once, one loses, and is told so.
func TestRevokeOthersFromASessionThatEndsMeanwhile(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	// The request waits for this lock once it has loaded its session.
	tx, err := d.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // As a rule, it is committed.
	if _, err := tx.Exec(t.Context(), "SELECT FROM scs_users WHERE user_id = 'alice' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan answer, 1)
	go func() { answered <- b.post("/api/sessions/revoke-others") }()
	d.awaitBlocked(tx)
	if _, err := tx.Exec(t.Context(), "UPDATE scs_sessions SET end_reason = 'revoked', data = '' WHERE id = $1", b.id()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-answered; a.status != 401 || a.Revoked != nil {
		t.Errorf("answered %d %s, want 401", a.status, a.body)
	}
	b.get("/api/me").wants(t, 401, codeSessionRevoked)
}

// awaitBlocked returns once another connection waits for a lock of tx.
func (d *postgresDemo) awaitBlocked(tx pgx.Tx) {
	d.t.Helper()
	giveUp := time.After(time.Minute)
	often := time.NewTicker(10 * time.Millisecond)
	defer often.Stop()
	for {
		var blocked bool
		if err := d.db.QueryRow(d.t.Context(),
			"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))",
			tx.Conn().PgConn().PID()).Scan(&blocked); err != nil {
			d.t.Fatal(err)
		}
		if blocked {
			return
		}
		select {
		case <-often.C:
		case <-giveUp:
			d.t.Fatal("nobody waits for the lock")
		}
	}
}

func TestSignedOutReplay(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	stolen := b.cookie()
	b.post("/logout").wants(t, 200, "")
	if b.cookie() != "" {
		t.Error("the cookie is still there")
	}
	b.get("/api/me").wants(t, 401, codeNotSignedIn)
	d.replay(stolen).wants(t, 401, codeSessionSignedOut)
}

func TestRenewedReplay(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	old := b.cookie()
	b.mustLogin("alice")
	if list := b.get("/api/sessions"); len(list.Sessions) != 1 {
		t.Errorf("a second sign-in on one device left %s", list.body)
	}
	d.replay(old).wants(t, 401, codeNotSignedIn)
}

func TestAnotherUserOnOneDevice(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	old := b.cookie()
	b.mustLogin("bob")
	if me := b.get("/api/me"); me.Username != "bob" {
		t.Errorf("/api/me answered %s, want bob", me.body)
	}
	d.replay(old).wants(t, 401, codeSessionSignedOut)
	if list := d.signedIn(safari, "alice").get("/api/sessions"); len(list.Sessions) != 1 {
		t.Errorf("alice has %s", list.body)
	}
}

func TestLimitEvicts(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, func(c *config) { c.limit = 1 })
	laptop := d.signedIn(firefox, "alice")
	phone := d.signedIn(safari, "alice")
	laptop.get("/api/me").wants(t, 401, codeSessionEvicted)
	if list := phone.get("/api/sessions"); len(list.Sessions) != 1 || list.Limit != 1 {
		t.Errorf("listed %s", list.body)
	}
}

func TestLimitEvictsLeastRecent(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, func(c *config) { c.limit, c.policy = 2, pgstore.EvictLeastRecent })
	first, second := d.signedIn(firefox, "alice"), d.signedIn(safari, "alice")
	if _, err := d.db.Exec(t.Context(),
		"UPDATE scs_sessions SET last_seen_at = now() - interval '5 minutes' WHERE id = $1", second.id()); err != nil {
		t.Fatal(err)
	}
	d.signedIn(safari, "alice")
	first.get("/api/me").wants(t, 200, "")
	second.get("/api/me").wants(t, 401, codeSessionEvicted)
}

func TestLimitRejects(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, func(c *config) { c.limit, c.policy = 1, pgstore.Reject })
	laptop := d.signedIn(firefox, "alice")
	phone := d.browser(safari)
	phone.login("alice", "wonderland").wants(t, 409, codeSessionLimit)
	if cookie := phone.cookie(); cookie != "" {
		t.Errorf("a refused sign-in set the cookie %q", cookie)
	}
	var live int
	if err := d.db.QueryRow(t.Context(), "SELECT count(*) FROM scs_sessions").Scan(&live); err != nil || live != 1 {
		t.Errorf("the table holds %d sessions, %v, want that of the laptop only", live, err)
	}
	phone.get("/api/me").wants(t, 401, codeNotSignedIn)
	phone.submit("/login", credentials("alice", "wonderland")).redirects(t, "/?notice="+codeSessionLimit)
	phone.get("/?notice="+codeSessionLimit).contains(t, `role="alert">You are signed in on as many devices as you may be.`)
	laptop.get("/api/me").wants(t, 200, "")
	laptop.post("/logout").wants(t, 200, "")
	phone.mustLogin("alice")
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	d.expire(b)
	a := b.get("/api/me")
	a.wants(t, 401, codeSessionTimeout)
	if got, want := a.body, `{"error":"Session expired","code":"SESSION_TIMEOUT"}`+"\n"; got != want {
		t.Errorf("answered %s, want %s", got, want)
	}
	b.get("/api/sessions").wants(t, 401, codeSessionTimeout)
	b.get("/api/session").wants(t, 401, codeSessionTimeout)
}

// A page that asks all the time how long the session has left must not keep it
// from timing out.
func TestAskingDoesNotExtend(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	d := servePostgres(t, func(c *config) { c.idleTimeout = idle })
	b := d.signedIn(firefox, "alice")
	first := b.get("/api/session")
	first.wants(t, 200, "")
	if first.SecondsLeft == nil || *first.SecondsLeft < 0 || *first.SecondsLeft > 1 {
		t.Errorf("answered %s, want 0 or 1 whole seconds", first.body)
	}
	giveUp := time.After(time.Minute)
	often := time.NewTicker(idle / 20)
	defer often.Stop()
	for {
		a := b.get("/api/session")
		if a.status == 401 {
			a.wants(t, 401, codeSessionTimeout)
			return
		}
		if !a.ExpiresAt.Equal(first.ExpiresAt) {
			t.Fatalf("asking moved the expiry from %v to %v", first.ExpiresAt, a.ExpiresAt)
		}
		select {
		case <-often.C:
		case <-giveUp:
			t.Fatalf("still signed in: %s", a.body)
		}
	}
}

// The page says why the session ended, until the next sign-in.
func TestPageSaysWhyTheSessionEnded(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, func(c *config) { c.limit = 1 })
	for _, test := range []struct {
		user, says string
		end        func(*browser)
	}{
		{"alice", "Your session timed out.", d.expire},
		{"alice", "You were signed out because you signed in on another device", func(*browser) { d.signedIn(safari, "alice") }},
		{"bob", "You were signed out from another device.", func(b *browser) { b.send("DELETE", "/api/sessions/"+b.id(), "") }},
		{"bob", "You signed out of this session.", func(b *browser) {
			// Another tab signs out, and this one still holds the cookie.
			b.send("POST", "/logout", "")
		}},
	} {
		b := d.signedIn(firefox, test.user)
		cookie := "scspg_demo=" + b.cookie()
		page := d.browser(firefox)
		page.send("GET", "/", "", "Cookie", cookie).lacks(t, test.says, "<title>Sign in")
		test.end(b)
		page.send("GET", "/", "", "Cookie", cookie).contains(t, `role="alert">`+test.says, "<title>Sign in")
		// A form of a page that is still open leads to the same.
		a := page.send("POST", "/api/sessions/revoke-others", "", "Cookie", cookie,
			"Content-Type", typeForm, "Accept", "text/html")
		page.get(a.header.Get("Location")).contains(t, test.says)
	}
}

func TestPageListsDevices(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	laptop := d.signedIn(firefox, "alice")
	laptop.get("/").contains(t, "Firefox on Linux", "this device", "<button disabled>Sign out all other devices")
	phone := d.signedIn(safari, "alice")
	d.signedIn(`<script>alert("1")</script>`, "alice")

	a := laptop.get("/")
	a.contains(t, "Firefox on Linux", "Safari on iPhone", "127.0.0.1", "data-signed-in", "&lt;script&gt;",
		`action="/sessions/`+phone.id()+`/revoke"`, `aria-label="Sign out Safari on iPhone, 127.0.0.1"`,
		"<button>Sign out all other devices")
	a.lacks(t, "<script>", "The store</h2>")
	if n := strings.Count(a.body, `class="current"`); n != 1 {
		t.Errorf("%d sessions are marked as current", n)
	}

	laptop.submit("/sessions/"+phone.id()+"/revoke", "").redirects(t, "/?notice="+noticeRevoked)
	phone.get("/api/me").wants(t, 401, codeSessionRevoked)
	laptop.submit("/sessions/"+phone.id()+"/revoke", "").redirects(t, "/?notice="+codeNotFound)
	laptop.submit("/api/sessions/revoke-others", "").redirects(t, "/?notice="+noticeOthersRevoked)
	if list := laptop.get("/api/sessions"); len(list.Sessions) != 1 {
		t.Errorf("after signing out the others: %s", list.body)
	}
}

func TestPageOfTheOperator(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	d.signedIn(firefox, "alice")
	d.signedIn(firefox, "admin").get("/").contains(t,
		"The store</h2>", "<dt>Signed in</dt><dd>2</dd>", "<dt>Users signed in</dt><dd>2</dd>", "<dt>Sign-ins and renewals</dt><dd>2</dd>")
}

func TestDatabaseErrorsStayInside(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	b := d.signedIn(firefox, "alice")
	if _, err := d.db.Exec(t.Context(), "DROP TABLE scs_sessions"); err != nil {
		t.Fatal(err)
	}
	a := b.get("/api/me")
	a.wants(t, 500, codeInternal)
	if strings.Contains(a.body, "scs_sessions") {
		t.Errorf("the answer tells about the database: %s", a.body)
	}
}
