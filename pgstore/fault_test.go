package pgstore_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// named marks the connections of a pool, so that they can be found and ended.
func named(name string) pgtest.Option { return pgtest.Param("application_name", name) }

func killConnections(t testing.TB, admin *pgxpool.Pool, name string) {
	t.Helper()
	pgtest.Exec(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, name)
}

func TestDroppedConnectionsAreSurvived(t *testing.T) {
	t.Parallel()
	admin, name := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	a := newApp(t, migrated(t, named(name)), pgstore.Config{UserLimit: 2})
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
		killConnections(t, admin, name)
		step()
	}
	if a.store.Stat().Retries == 0 {
		t.Error("nothing was retried: were the connections ended?")
	}
}

// A restart breaks every connection of a pool, and there are more than attempts.
func TestFindSurvivesTheLossOfAllConnections(t *testing.T) {
	t.Parallel()
	admin, name := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	pool := migrated(t, named(name), pgtest.MaxConns(8))
	store := newStore(t, pool, pgstore.Config{})
	if err := store.Commit("token", []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 { // each on a connection of its own; pgx asks those that have idled for a second itself
		wg.Go(func() {
			if _, err := pool.Exec(t.Context(), `SELECT pg_sleep(0.2)`); err != nil && !errors.Is(err, pgx.ErrNoRows) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	killConnections(t, admin, name)
	pgtest.Eventually(t, "they are gone", func() bool {
		return pgtest.Query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, name) == 0
	})
	if _, found, err := store.Find("token"); !found || err != nil {
		t.Errorf("%t, %v", found, err)
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

// A primary that is demoted may keep its connections, on which it refuses to write.
func TestConnectionsToADemotedPrimaryAreGivenUp(t *testing.T) {
	t.Parallel()
	for _, choosy := range []bool{true, false} {
		pool := migrated(t, pgtest.MaxConns(1), func(c *pgxpool.Config) {
			if choosy {
				c.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
			}
		})
		store := newStore(t, pool, pgstore.Config{})
		pgtest.Exec(t, pool, `SET default_transaction_read_only = on`)
		err := store.Commit("token", []byte("x"), time.Now().Add(time.Hour))
		if choosy && err != nil || !choosy && err == nil { // what asks for any server keeps what it has got
			t.Errorf("with target_session_attrs %t: %v", choosy, err)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	admin, schema := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, schema))
	role := strings.ReplaceAll(schema, "t_", "r_")
	pgtest.Exec(t, admin, `CREATE ROLE "`+role+`" LOGIN PASSWORD 'verysecret'`)
	pgtest.Exec(t, admin, `GRANT USAGE ON SCHEMA "`+schema+`" TO "`+role+`"`)
	t.Cleanup(func() {
		pgtest.Exec(t, admin, `DROP OWNED BY "`+role+`"`)
		pgtest.Exec(t, admin, `DROP ROLE "`+role+`"`)
	})
	for want, pool := range map[string]*pgxpool.Pool{
		"run migrations.Up": pgtest.PoolIn(t, pgtest.Schema(t)),
		"lacks a privilege": pgtest.PoolIn(t, schema, func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, "verysecret" }),
		"read-only":         pgtest.PoolIn(t, schema, pgtest.Param("default_transaction_read_only", "on")),
		"failed to connect": pgtest.PoolOn(t, "postgres://u:verysecret@127.0.0.1:1/db", ""),
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

func TestSchemaThatDoesNotExistIsSaid(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]*pgstore.Store{
		"search_path": newStore(t, pgtest.PoolIn(t, "no such schema"), pgstore.Config{}),
		"Schema":      newStore(t, migrated(t), pgstore.Config{Schema: "no such schema"}),
	} {
		for op, err := range map[string]error{
			"find session":   findError(store.Find("token")),
			"commit session": store.Commit("token", []byte("x"), time.Now().Add(time.Hour)),
		} {
			if err == nil || !strings.HasPrefix(err.Error(), "pgstore: "+op+": ") ||
				!strings.Contains(err.Error(), "or does not exist: run migrations.Up (with migrations.Schema, if Schema is set)") {
				t.Errorf("%s, %s: %v", name, op, err)
			}
		}
	}
}

func findError(_ []byte, _ bool, err error) error { return err }

// Errors name the limit that was met, and whose they are.
func TestErrorsSayWhoseTheyAre(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	store := newStore(t, pool, pgstore.Config{UserLimitFunc: func(ctx context.Context, user string) (int, error) {
		if user == "slow" {
			ctx, cancel := context.WithTimeout(ctx, time.Nanosecond)
			defer cancel()
			<-ctx.Done()
			return 0, ctx.Err()
		}
		var n int
		return n, pool.QueryRow(ctx, `SELECT sessions FROM plans_of_the_app WHERE "user" = $1`, user).Scan(&n)
	}})
	passed, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, overview := store.Overview(passed)
	_, all := store.AllCtx(passed)
	var each error
	for _, err := range store.Each(passed) {
		each = err
	}
	data := func(user string) []byte {
		b, err := pgstore.Codec{UserKey: userKey}.Encode(time.Now().Add(time.Hour), map[string]any{userKey: user})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	slow := store.Commit("token", data("slow"), time.Now().Add(time.Hour))
	for name, err := range map[string]error{"Overview": overview, "AllCtx": all, "Each": each, "UserLimitFunc": slow} {
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "Config.Timeout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := store.Commit("token", data("alice"), time.Now().Add(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "Config.UserLimitFunc: ") || !strings.Contains(err.Error(), "plans_of_the_app") ||
		strings.Contains(err.Error(), "migrations.Up") {
		t.Error(err)
	}
}

// A client that hangs up loses neither the write nor the sign-out, and its request
// gives its connection back in good order.
func TestVanishedClientLosesNothing(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
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
				pgtest.Eventually(t, "the write is there", func() bool { // without Track, a request that looked could overwrite it
					return pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE position('late'::bytea IN data) > 0`) == 1
				})
			} else {
				pgtest.Eventually(t, "the session is over", func() bool { return live(t, a.pool, "alice") == 0 })
			}
		}
		pgtest.Eventually(t, "all connections are back", func() bool { return a.pool.Stat().AcquiredConns() == 0 })
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
			pool := migrated(t, pgtest.Param("default_transaction_isolation", level))
			a := newApp(t, pool, pgstore.Config{UserLimit: 2, Timeout: time.Minute})
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
