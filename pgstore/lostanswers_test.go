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

// losing makes connections that, when told to, lose the answer to the next statement
// with a given text: the server has done it, and the client cannot know.
type losing struct{ text atomic.Pointer[string] }

func (l *losing) next(text string) { l.text.Store(&text) }

// lost reports whether the answer has been lost.
func (l *losing) lost() bool { return l.text.Load() == nil }

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
	deaf   atomic.Bool
}

func (c *losingConn) Write(p []byte) (int, error) {
	if text := c.losing.text.Load(); text != nil && bytes.Contains(p, []byte(*text)) && c.losing.text.CompareAndSwap(text, nil) {
		c.deaf.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *losingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.deaf.Load() && err == nil {
		// By the time that it answers, the server has done all of it.
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
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
			if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(b.token())); !ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		}, "user= state=ended reason=revoked keys="},
		"revocation of all": {"end_reason = $2", func(t *testing.T, a *app, _ *browser) {
			if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}, "user= state=ended reason=revoked keys="},
		"forgetting": {"end_reason = $2", func(t *testing.T, a *app, _ *browser) {
			if n, err := a.store.Forget(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}, "user= state=ended reason=revoked keys="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				var l losing
				schema := pgtest.Schema(t)
				migrate(t, pgtest.PoolIn(t, schema))
				a := newApp(t, pgtest.PoolIn(t, schema, l.option()), pgstore.Config{UserLimit: 1})
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
				l.next(tt.text)
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
