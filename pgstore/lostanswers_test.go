package pgstore_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// losing makes connections that break when they are told to: around the next statement
// with a given text.
type losing struct{ next atomic.Pointer[loss] }

// loss is how a connection breaks.
type loss struct {
	text   string // of the statement
	unsent bool   // the server gets but a part of it, and does nothing; else the answer is lost
	then   func() // runs before the client learns of it; may be nil
}

// answer loses the answer to the statement: the server has done it, and the client cannot
// know.
func (l *losing) answer(text string, then func()) { l.next.Store(&loss{text: text, then: then}) }

// statement loses the statement itself, which looks the same to the client.
func (l *losing) statement(text string, then func()) {
	l.next.Store(&loss{text: text, unsent: true, then: then})
}

// lost reports whether the connection has broken.
func (l *losing) lost() bool { return l.next.Load() == nil }

func (l *losing) option() pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text is sent each time
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &losingConn{Conn: conn, losing: l}, err
		}
	}
}

type losingConn struct {
	net.Conn
	losing *losing
	broken atomic.Pointer[loss]
	told   atomic.Bool
}

func (c *losingConn) Write(p []byte) (int, error) {
	loss := c.losing.next.Load()
	if loss == nil || !bytes.Contains(p, []byte(loss.text)) || !c.losing.next.CompareAndSwap(loss, nil) {
		return c.Conn.Write(p)
	}
	c.broken.Store(loss)
	if !loss.unsent {
		return c.Conn.Write(p)
	}
	// Without the Sync at its end, PostgreSQL does not commit.
	if n, err := c.Conn.Write(p[:len(p)/2]); err != nil {
		return n, err
	}
	return len(p), c.Close()
}

func (c *losingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	loss := c.broken.Load() // only now: pgx may have begun to read while it was still writing
	if loss == nil {
		return n, err
	}
	// By the time that it answers, the server has done all of it.
	if err != nil && !loss.unsent {
		return 0, err
	}
	_ = c.Close()
	if loss.then != nil && !c.told.Swap(true) {
		loss.then()
	}
	return 0, io.ErrUnexpectedEOF
}

// losingApps are an app whose connections break as l says, and another one on the same
// tables.
func losingApps(t *testing.T, newApp newAppFunc, cfg pgstore.Config) (l *losing, a, other *app) {
	t.Helper()
	l = &losing{}
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema)
	migrate(t, pool)
	return l, newApp(t, pgtest.PoolIn(t, schema, l.option()), cfg), newApp(t, pool, cfg)
}

// on is the same browser on another app that knows its sessions.
func (b *browser) on(a *app) *browser {
	b.t.Helper()
	other := a.browser(b.t)
	other.setToken(b.token())
	return other
}

func TestLostAnswersUndoNothingAndRepeatNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string // of the statement whose answer is lost
		do   func(t *testing.T, a *app, b *browser)
		want string // as /me shows it
	}{
		"renewal": {"end_reason = $2", func(_ *testing.T, _ *app, b *browser) { b.must("/renew") }, "user=alice state=active reason= keys=cart,userID"},
		"sign-in": {"end_reason = $2", func(_ *testing.T, _ *app, b *browser) { b.must("/login", "user", "alice") }, "user=alice state=active reason= keys=cart,userID"},
		"sign-in's end": {"INSERT INTO scs_sessions", func(_ *testing.T, _ *app, b *browser) { b.must("/login", "user", "alice") },
			"user=alice state=active reason= keys=cart,userID"},
		"write": {"SET data = $2", func(_ *testing.T, _ *app, b *browser) { b.must("/put", "key", "k", "value", "v") },
			"user=alice state=active reason= keys=cart,k,userID"},
		"user change": {"SET user_id = $2", func(_ *testing.T, _ *app, b *browser) { b.must("/become") }, "user=dave state=active reason= keys=cart,second,userID"},
		"revocation": {"end_reason = $2", func(t *testing.T, a *app, b *browser) {
			// What it reports is what the last attempt has ended.
			if _, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(b.token())); err != nil {
				t.Error(err)
			}
		}, "user= state=ended reason=revoked keys="},
		"revocation of all": {"end_reason = $2", func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		}, "user= state=ended reason=revoked keys="},
		"forgetting": {"end_reason = $2", func(t *testing.T, a *app, _ *browser) {
			if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		}, "user= state=ended reason=revoked keys="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				l, a, _ := losingApps(t, newApp, pgstore.Config{UserLimit: 1})
				a.mux.HandleFunc("/become", func(w http.ResponseWriter, r *http.Request) {
					for _, key := range []string{userKey, "second"} {
						a.sm.Put(r.Context(), key, map[string]string{userKey: "dave", "second": "x"}[key])
						if _, _, err := a.sm.Commit(r.Context()); err != nil {
							http.Error(w, err.Error(), http.StatusInternalServerError)
						}
					}
				})
				b := a.browser(t)
				b.must("/put", "key", "cart", "value", "1")
				b.must("/login", "user", "alice")
				l.answer(tt.text, nil)
				tt.do(t, a, b)
				if !l.lost() {
					t.Fatal("no such statement was sent")
				}
				want := tt.want
				if !a.tracked {
					_, keys, _ := strings.Cut(want, "keys=")
					user, _, _ := strings.Cut(want, " ")
					want = user + " state=none reason= keys=" + keys
				}
				if got := b.must("/me"); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				checkIndex(t, a.pool, a.store, "alice", "dave")
			})
		})
	}
}

// The renewed row keeps its data until the session that goes on is stored.
func TestRenewalWhoseAnswerWasLostKeepsWhatOthersWrote(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*losing, string, func()){"answer": (*losing).answer, "statement": (*losing).statement} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 1})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			createdAt := pgtest.Query[string](t, other.pool, `SELECT created_at::text FROM scs_user_sessions`)
			finish := b.hold("after", "renew")
			b.on(other).must("/put", "key", "theirs", "value", "yes")
			lose(l, "end_reason = 'renewed' WHERE id", nil)
			if status, body := finish(); status != http.StatusOK || !l.lost() {
				t.Fatalf("%d %s, lost: %t", status, body, l.lost())
			}
			if got := b.must("/me"); got != "user=alice state=active reason= keys=theirs,userID" {
				t.Error(got)
			}
			if got := pgtest.Query[string](t, other.pool, `SELECT created_at::text FROM scs_user_sessions`); got != createdAt {
				t.Errorf("signed in at %s, want %s", got, createdAt)
			}
			checkIndex(t, other.pool, a.store, "alice")
		})
	}
}

// The second attempt reads a later clock than the first, which the renewal must not pass by.
func TestRenewalWhoseAnswerWasLostIsStoppedByARevocationInBetween(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(t *testing.T, other *app, b *browser) error{
		"all": func(t *testing.T, other *app, _ *browser) error {
			_, err := other.store.RevokeAll(t.Context(), "alice")
			return err
		},
		"others": func(t *testing.T, other *app, _ *browser) error {
			safe := other.browser(t)
			safe.must("/login", "user", "alice")
			safe.must("/revoke-others")
			safe.must("/logout")
			return nil
		},
		"one": func(t *testing.T, other *app, b *browser) error {
			_, err := other.store.Revoke(t.Context(), "alice", pgstore.IDOf(b.token()))
			return err
		},
		"forget": func(t *testing.T, other *app, _ *browser) error {
			_, err := other.store.Forget(t.Context(), "alice")
			return err
		},
		// Then nothing but the fence tells.
		"all, not in the index": func(t *testing.T, other *app, _ *browser) error {
			pgtest.Exec(t, other.pool, `DELETE FROM scs_user_sessions`)
			_, err := other.store.RevokeAll(t.Context(), "alice")
			return err
		},
		"all, and swept": func(t *testing.T, other *app, _ *browser) error {
			_, err := other.store.RevokeAll(t.Context(), "alice")
			pgtest.Exec(t, other.pool, `DELETE FROM scs_sessions`)
			return err
		},
	} {
		for how, lose := range map[string]func(*losing, string, func()){"answer": (*losing).answer, "statement": (*losing).statement} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				l, a, other := losingApps(t, newApp, pgstore.Config{})
				b := a.browser(t)
				b.must("/login", "user", "alice")
				lose(l, "end_reason = 'renewed' WHERE id", func() {
					if err := revoke(t, other, b); err != nil {
						t.Error(err)
					}
				})
				b.must("/renew")
				if n := live(t, other.pool, "alice"); n != 0 || !l.lost() || b.user() != "" {
					t.Errorf("%d sessions live, user %q", n, b.user())
				}
				checkIndex(t, other.pool, a.store, "alice")
			})
		}
	}
}

func TestRevokeOthersWhoseAnswerWasLostSparesWhatWasRenewed(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(b *browser){
		"renewed":       func(b *browser) { b.must("/renew") },
		"renewed twice": func(b *browser) { b.must("/renew"); b.must("/renew") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a, other := losingApps(t, newApp, pgstore.Config{})
			b, old, late := a.browser(t), a.browser(t), other.browser(t)
			b.must("/login", "user", "alice")
			old.must("/login", "user", "alice")
			kept := b.on(other)
			l.answer("SET fence = greatest", func() {
				meanwhile(kept)
				late.must("/login", "user", "alice") // its request began after the fence
			})
			if _, err := a.store.RevokeOthers(t.Context(), "alice", b.token()); err != nil || !l.lost() {
				t.Errorf("%v, lost: %t", err, l.lost())
			}
			if kept.user() != "alice" || late.user() != "alice" || old.user() != "" || live(t, other.pool, "alice") != 2 {
				t.Errorf("kept %q, late %q, old %q, %d live", kept.user(), late.user(), old.user(), live(t, other.pool, "alice"))
			}
			checkIndex(t, other.pool, a.store, "alice")
		})
	}
}

// Nor does it say that nothing was revoked if the kept session has ended since.
func TestRevokeOthersWhoseAnswerWasLostRevokesBesideASignOut(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		l, a, other := losingApps(t, newApp, pgstore.Config{})
		b, old := a.browser(t), a.browser(t)
		b.must("/login", "user", "alice")
		old.must("/login", "user", "alice")
		l.answer("SET fence = greatest", func() { b.on(other).must("/logout") })
		if _, err := a.store.RevokeOthers(t.Context(), "alice", b.token()); err != nil || !l.lost() {
			t.Errorf("%v, lost: %t", err, l.lost())
		}
		if n := live(t, other.pool, "alice"); n != 0 {
			t.Errorf("%d live", n)
		}
	})
}
