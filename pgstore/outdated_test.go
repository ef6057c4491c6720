package pgstore_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// What a server has prepared for a connection goes out of date: by a migration beside the
// app, or by a pooler or an operator that resets it.
var outdating = map[string]func(t *testing.T, pool, admin *pgxpool.Pool){
	"a column added": func(t *testing.T, _, admin *pgxpool.Pool) {
		pgtest.Exec(t, admin, `ALTER TABLE scs_sessions ADD COLUMN IF NOT EXISTS note text`)
		pgtest.Exec(t, admin, `ALTER TABLE scs_sessions DROP COLUMN note`)
		pgtest.Exec(t, admin, `ALTER TABLE scs_sessions ADD COLUMN note text NOT NULL DEFAULT ''`)
	},
	"result types changed": func(t *testing.T, _, admin *pgxpool.Pool) {
		// "cached plan must not change result type" needs another type each time.
		to := "varchar(255)"
		if pgtest.Query[string](t, admin, `SELECT data_type FROM information_schema.columns
			WHERE table_schema = current_schema AND table_name = 'scs_sessions' AND column_name = 'end_reason'`) != "text" {
			to = "text"
		}
		pgtest.Exec(t, admin, `ALTER TABLE scs_sessions ALTER COLUMN end_reason TYPE `+to+`, ALTER COLUMN user_id TYPE `+to+` COLLATE "C"`)
	},
	"DEALLOCATE ALL": func(t *testing.T, pool, _ *pgxpool.Pool) { onAll(t, pool, `DEALLOCATE ALL`) },
	"DISCARD ALL":    func(t *testing.T, pool, _ *pgxpool.Pool) { onAll(t, pool, `DISCARD ALL`) },
}

// onAll runs SQL on all idle connections of the pool, behind pgx's back.
func onAll(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	conns := pool.AcquireAllIdle(t.Context())
	for _, conn := range conns {
		if err := conn.Conn().PgConn().Exec(t.Context(), sql).Close(); err != nil {
			t.Error(err)
		}
		conn.Release()
	}
	if len(conns) == 0 {
		t.Error("no connection was idle")
	}
}

func preparing() []pgx.QueryExecMode {
	return []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe}
}

// Each kind of operation meets what is out of date first.
func TestOutdatedPlansFailNoOperation(t *testing.T) {
	t.Parallel()
	for name, outdate := range outdating {
		for _, mode := range preparing() {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				t.Parallel()
				if strings.HasPrefix(name, "D") {
					pgtest.NotThroughPgBouncer(t, "it resets the search_path, and one server connection of several")
				}
				if name == "result types changed" && mode == pgx.QueryExecModeCacheStatement {
					pgtest.NotThroughPgBouncer(t, "what it has prepared for all clients stays until its RECONNECT")
				}
				bothWays(t, func(t *testing.T, newApp newAppFunc) {
					schema := pgtest.Schema(t)
					admin := pgtest.PoolIn(t, schema)
					migrate(t, admin)
					pool := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode), pgtest.MaxConns(2))
					a := newApp(t, pool, pgstore.Config{UserLimit: 2})
					b := a.browser(t)
					steps := []func(){
						func() { b.must("/put", "key", "cart", "value", "1") },
						func() { b.must("/login", "user", "alice") },
						func() { b.must("/me") },
						func() { b.must("/put", "key", "k", "value", pgtest.Schema(t)) }, // another value each time
						func() { age(t, admin, "2 minutes"); b.must("/me") },
						func() { b.must("/renew") },
						func() {
							finish := b.hold("after", "put")
							b.must("/put", "key", "theirs", "value", pgtest.Schema(t))
							if status, body := finish(); status != 200 {
								t.Errorf("%d %s", status, body)
							}
						},
						func() {
							a.browser(t).must("/login", "user", "alice")
							a.browser(t).must("/login", "user", "alice")
							b.must("/login", "user", "alice")
						},
						func() { b.must("/revoke-others") },
						func() { checkIndex(t, admin, a.store, "alice") },
						func() {
							for _, err := range a.store.Each(t.Context()) {
								if err != nil {
									t.Error(err)
								}
							}
							if _, err := a.store.All(); err != nil {
								t.Error(err)
							}
							if _, err := a.store.Overview(t.Context()); err != nil {
								t.Error(err)
							}
						},
						func() {
							if _, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(b.token())); err != nil {
								t.Error(err)
							}
						},
						func() { b.must("/logout") },
						func() {
							if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
								t.Error(err)
							}
						},
						func() {
							if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
								t.Error(err)
							}
						},
					}
					for range 2 { // so that all is prepared
						for _, step := range steps {
							step()
						}
					}
					for i, step := range steps {
						outdate(t, pool, admin)
						step()
						if t.Failed() {
							t.Fatalf("step %d", i)
						}
					}
					outdated := strings.HasPrefix(name, "D") && mode == pgx.QueryExecModeCacheStatement || name == "result types changed" && mode == pgx.QueryExecModeCacheStatement
					if n := a.store.Stat().Retries; outdated && n == 0 {
						t.Error("nothing was retried: was anything out of date?")
					}
				})
			})
		}
	}
}

// All at once, and beside traffic.
func TestOutdatedPlansFailNoRequestOfALiveApp(t *testing.T) {
	t.Parallel()
	for _, mode := range preparing() {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				schema := pgtest.Schema(t)
				admin := pgtest.PoolIn(t, schema)
				migrate(t, admin)
				if mode == pgx.QueryExecModeCacheStatement {
					pgtest.NotThroughPgBouncer(t, "what it has prepared for all clients stays until its RECONNECT")
				}
				pool := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode), pgtest.MaxConns(6))
				a := newApp(t, pool, pgstore.Config{UserLimit: 3, Timeout: time.Minute})
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for _, user := range []string{"alice", "bob", "carol", "dave"} {
					wg.Go(func() {
						b := a.browser(t)
						for i := 0; ctx.Err() == nil || i == 0; i++ {
							b.must("/login", "user", user)
							b.must("/put", "key", "k", "value", time.Now().String())
							b.must("/me")
							b.must("/renew")
							if _, err := a.store.Sessions(t.Context(), user); err != nil {
								t.Error(err)
							}
							if i%3 == 2 {
								b.must("/logout")
							}
						}
					})
				}
				for range 3 {
					for name, outdate := range outdating {
						if strings.HasPrefix(name, "D") {
							if pgtest.ThroughPgBouncer() {
								continue // it would reset the search_path
							}
							for _, conn := range pool.AcquireAllIdle(t.Context()) {
								if err := conn.Conn().PgConn().Exec(t.Context(), name).Close(); err != nil {
									t.Error(err)
								}
								conn.Release()
							}
						} else {
							outdate(t, pool, admin)
						}
						time.Sleep(20 * time.Millisecond) // for traffic to meet it
					}
				}
				stop()
				wg.Wait()
				checkIndex(t, admin, a.store, "alice", "bob", "carol", "dave")
			})
		})
	}
}
