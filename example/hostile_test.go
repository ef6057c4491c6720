package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore"
)

// someoneElses are ids that are not of a session of the user who sends them.
func someoneElses(bob *browser) []string {
	return []string{bob.id(), strings.ToUpper(bob.id()), strings.ReplaceAll(bob.id(), "-", ""), "{" + bob.id() + "}", bob.cookie(),
		pgstore.IDOf("nobody's"), "\x00id:" + bob.id() + ":1", "..", "' OR 1=1 --", "\xff", strings.Repeat("x", 4096)}
}

func TestRoutesFindNoSessionOfAnothers(t *testing.T) {
	t.Parallel()
	d := servePostgres(t, nil)
	alice, bob := d.signedIn(firefox, "alice"), d.signedIn(safari, "bob")
	before := rowsOf(t, d.db)
	for _, id := range someoneElses(bob) {
		id := url.PathEscape(id)
		if id == ".." {
			id = "%2E%2E" // else the way to another route
		}
		alice.send("DELETE", "/api/sessions/"+id, "").wants(t, 404, codeNotFound)
		alice.send("POST", "/sessions/"+id+"/revoke", "").wants(t, 404, codeNotFound)
		visitor := d.browser(firefox)
		visitor.send("DELETE", "/api/sessions/"+id, "").wants(t, 401, codeNotSignedIn)
		visitor.send("POST", "/sessions/"+id+"/revoke", "").wants(t, 401, codeNotSignedIn)
	}
	if after := rowsOf(t, d.db); after != before {
		t.Errorf("%s\nbefore:\n%s", after, before)
	}
	revoked := alice.send("POST", "/api/sessions/revoke-others", "")
	revoked.wants(t, 200, "")
	if *revoked.Revoked != 0 {
		t.Errorf("%d of others revoked", *revoked.Revoked)
	}
	for _, s := range alice.get("/api/sessions").Sessions {
		if s.ID != alice.id() {
			t.Errorf("alice's list has %s", s.ID)
		}
	}
	bob.get("/api/me").wants(t, 200, "")
}

// rowsOf is all that the tables hold of sessions, but for when they were seen.
func rowsOf(t testing.TB, db *pgxpool.Pool) (rows string) {
	t.Helper()
	err := db.QueryRow(context.WithoutCancel(t.Context()), `SELECT concat((SELECT jsonb_agg(to_jsonb(s) - 'last_seen_at' - 'expiry' - 'sweep_at' ORDER BY id) FROM scs_sessions s),
		(SELECT jsonb_agg(u ORDER BY id) FROM scs_user_sessions u))`).Scan(&rows)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Whatever path and cookie a signed-in user sends, no route fails, and nobody else's
// session ends.
func FuzzRoutes(f *testing.F) {
	d := servePostgres(f, nil)
	alice, bob := d.signedIn(firefox, "alice"), d.signedIn(safari, "bob")
	token := alice.cookie()
	methods := []string{"GET", "POST", "DELETE", "HEAD"}
	for i := range methods {
		for _, id := range someoneElses(bob) {
			f.Add(i, "/api/sessions/"+id, "")
			f.Add(i, "/sessions/"+id+"/revoke", id)
		}
		for _, path := range []string{"/", "/login", "/api/me", "/api/sessions", "/static/../main.go", "/static/app.css", "//", "/?notice=%00"} {
			f.Add(i, path, "scspg_demo=")
		}
	}
	f.Fuzz(func(t *testing.T, method int, path, cookie string) {
		r := httptest.NewRequestWithContext(t.Context(), methods[uint(method)%uint(len(methods))], "/", strings.NewReader(path))
		r.URL = &url.URL{Path: path}
		if u, err := url.ParseRequestURI(path); err == nil {
			r.URL = u
		}
		r.Header.Set("Cookie", cookie+"; scspg_demo="+token)
		w := httptest.NewRecorder()
		d.Config.Handler.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s %q, cookie %q: %d %s", r.Method, path, cookie, w.Code, w.Body)
		}
		if bob.t = t; bob.get("/api/me").status != 200 {
			t.Fatalf("%s %q, cookie %q: bob is not signed in any more", r.Method, path, cookie)
		}
		if alice.t = t; alice.get("/api/me").status != 200 { // she may have signed out
			alice.mustLogin("alice")
			token = alice.cookie()
		}
	})
}
