package integration_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// named marks the connections of a pool, so that they can be found and ended.
func named(name string) poolOption { return param("application_name", name) }

func killConnections(t testing.TB, name string) {
	t.Helper()
	mustExec(t, adminPool(t), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, name)
}

func TestDroppedConnectionsAreSurvived(t *testing.T) {
	t.Parallel()
	name := newSchema(t)
	a := newApp(t, migrated(t, named(name)), pgstore.Config{UserLimit: 2}, true)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	for _, step := range []func(){
		func() { b.must("/me") },
		func() { b.must("/put", "key", "k", "value", "v") },
		func() { b.must("/renew") },
		func() { b.must("/login", "user", "alice") },
		func() {
			if _, err := a.store.Sessions(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
		func() {
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
		func() { b.must("/logout") },
	} {
		killConnections(t, name)
		step()
	}
	if a.store.Stat().Retries() == 0 {
		t.Error("nothing was retried: were the connections ended?")
	}
}

func TestServerCrashIsSurvived(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	pool := newPoolOn(t, srv.DSN, "")
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	a := newApp(t, pool, pgstore.Config{}, true)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	if err := srv.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	status, body := b.get("/me")
	if status != http.StatusInternalServerError || !strings.Contains(body, "pgstore: find session: ") {
		t.Errorf("while it is down: %d %s", status, body)
	}
	if strings.Contains(body, b.token()) || strings.Contains(body, pool.Config().ConnConfig.Password) {
		t.Error("the error holds a secret")
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if user := b.user(); user != "alice" {
		t.Errorf("after the restart the user is %q", user)
	}
}

// An operation has a deadline of its own, and says so.
func TestTimeoutNamesTheOperation(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	store := newStore(t, pool, pgstore.Config{Timeout: 200 * time.Millisecond})
	if err := store.Commit("token", []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `LOCK TABLE scs_sessions`); err != nil {
		t.Fatal(err)
	}
	_, _, err = store.Find("token")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "find session") || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("error %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	schema := newSchema(t)
	migrate(t, newPool(t, schema))
	role := strings.ReplaceAll(schema, "t_", "r_")
	mustExec(t, adminPool(t), `CREATE ROLE `+role+` LOGIN PASSWORD 'verysecret'`)
	mustExec(t, adminPool(t), `GRANT USAGE ON SCHEMA `+schema+` TO `+role)
	t.Cleanup(func() {
		mustExec(t, adminPool(t), `DROP OWNED BY `+role)
		mustExec(t, adminPool(t), `DROP ROLE `+role)
	})
	for want, pool := range map[string]*pgxpool.Pool{
		"run migrations.Up": newPool(t, newSchema(t)),
		"lacks a privilege": newPool(t, schema, func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "verysecret" }),
		"read-only":         newPool(t, schema, param("default_transaction_read_only", "on")),
		"failed to connect": newPoolOn(t, "postgres://u:verysecret@127.0.0.1:1/db", ""),
	} {
		store := newStore(t, pool, pgstore.Config{})
		err := store.Commit("verysecrettoken", []byte("x"), time.Now().Add(time.Hour))
		if err == nil || !strings.HasPrefix(err.Error(), "pgstore: commit session: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		} else if strings.Contains(err.Error(), "verysecret") {
			t.Errorf("the error holds a secret: %v", err)
		}
	}
}

func TestWrongUserIDsAreRefusedWhole(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	a.mux.HandleFunc("/login-as", func(w http.ResponseWriter, r *http.Request) {
		ids := map[string]any{"struct": struct{ ID int }{1}, "float": 1.5, "nul": "a\x00b", "latin-1": "\xe9", "long": strings.Repeat("x", 256), "empty": ""}
		if err := a.store.SignIn(r.Context(), a.sm, ids[r.FormValue("id")]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	token := b.token()
	for id, want := range map[string]string{"struct": "struct { ID int }", "float": "float64", "nul": "NUL", "latin-1": "UTF-8", "long": "256 bytes", "empty": "empty"} {
		status, body := b.get("/login-as", "id", id)
		if status != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", id, status, body)
		}
		if _, err := a.store.Sessions(t.Context(), map[string]string{"nul": "a\x00b", "latin-1": "\xe9", "long": strings.Repeat("x", 256)}[id]); err == nil {
			t.Errorf("%s: no error from Sessions", id)
		}
	}
	if b.token() != token || b.user() != "alice" {
		t.Error("a refused id has cost the session")
	}
}

func TestUnencodableValueIsNamed(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	a.mux.HandleFunc("/unencodable", func(_ http.ResponseWriter, r *http.Request) { a.sm.Put(r.Context(), "callback", func() {}) })
	if status, body := a.browser(t).get("/unencodable"); status != http.StatusInternalServerError || !strings.Contains(body, `"callback"`) {
		t.Errorf("%d %s", status, body)
	}
}

// A client that hangs up loses neither the write nor the sign-out, and its request
// gives its connection back in good order.
func TestVanishedClientLosesNothing(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		gone := make(chan struct{})
		a.mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
			a.arrived <- struct{}{}
			<-r.Context().Done()
			if r.FormValue("do") == "logout" {
				if err := a.sm.Destroy(r.Context()); err != nil {
					t.Error(err)
				}
			} else {
				a.sm.Put(r.Context(), "late", "yes")
			}
			gone <- struct{}{}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		for _, do := range []string{"put", "logout"} {
			conn, err := net.Dial("tcp", a.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("GET /slow?do=" + do + " HTTP/1.1\r\nHost: x\r\nCookie: session=" + b.token() + "\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			<-a.arrived
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			<-gone
			if do == "put" {
				eventually(t, "the write is there", func() bool { return strings.Contains(b.must("/me"), "late") })
			} else {
				eventually(t, "the session is over", func() bool { return live(t, a.pool, "alice") == 0 })
			}
		}
		eventually(t, "all connections are back", func() bool { return a.pool.Stat().AcquiredConns() == 0 })
		if st := a.pool.Stat(); st.CanceledAcquireCount() != 0 || st.NewConnsCount() != int64(st.TotalConns()) {
			t.Errorf("%d connections were made, %d are left, %d acquires were cancelled", st.NewConnsCount(), st.TotalConns(), st.CanceledAcquireCount())
		}
	})
}

// Whatever isolation the database defaults to.
func TestDefaultIsolationDoesNotMatter(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t, param("default_transaction_isolation", level))
			a := newApp(t, pool, pgstore.Config{UserLimit: 2, Timeout: time.Minute}, true)
			done := make(chan struct{})
			for range 8 {
				go func() {
					defer func() { done <- struct{}{} }()
					b := a.browser(t)
					for range 5 {
						// Evicted since it was loaded: nothing to renew.
						if status, body := b.get("/login", "user", "alice"); status != http.StatusOK && body != pgstore.ErrEnded.Error() {
							t.Errorf("%d %s", status, body)
						}
						b.must("/put", "key", "k", "value", "v")
					}
				}()
			}
			for range 8 {
				<-done
			}
			if n := live(t, pool, "alice"); n > 2 {
				t.Errorf("%d live sessions", n)
			}
			checkIndex(t, pool, a.store, "alice")
		})
	}
}
