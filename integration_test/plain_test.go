package integration_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// A handler may give the session manager another context than its request's. What has
// been ended stays so all the same.
func TestRenewalUnderAnotherContext(t *testing.T) {
	t.Parallel()
	contexts := map[string]func(context.Context) (context.Context, context.CancelFunc){
		"its own": func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
		"cancelled early": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		},
		"never cancelled": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithoutCancel(ctx), func() {}
		},
	}
	for name, derive := range contexts {
		for _, when := range []string{"before", "after"} {
			t.Run(name+", revoked "+when, func(t *testing.T) {
				bothWays(t, func(t *testing.T, tracked bool) {
					a := newApp(t, migrated(t), pgstore.Config{}, tracked)
					a.mux.HandleFunc("/renew-there", func(w http.ResponseWriter, r *http.Request) {
						if when == "before" {
							a.arrived <- struct{}{}
							<-a.proceed
						}
						ctx, cancel := derive(r.Context())
						if err := a.sm.RenewToken(ctx); err != nil {
							t.Error(err)
						}
						cancel()
						if when == "after" {
							a.arrived <- struct{}{}
							<-a.proceed
						}
					})
					b := a.browser(t)
					b.must("/login", "user", "alice")
					done := make(chan struct{})
					go func() { defer close(done); b.must("/renew-there") }()
					<-a.arrived
					if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
						t.Error(err)
					}
					a.proceed <- struct{}{}
					<-done
					if n := live(t, a.pool, "alice"); n != 0 || b.user() != "" {
						t.Errorf("%d live sessions", n)
					}
				})
			})
		}
	}
}

// Here the handler's context has ended before it renews, for good or only for reading.
func TestRenewalAfterTheClientHasGone(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		gone := make(chan struct{})
		a.mux.HandleFunc("/late", func(_ http.ResponseWriter, r *http.Request) {
			a.arrived <- struct{}{}
			<-r.Context().Done()
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
			gone <- struct{}{}
			<-a.proceed
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		conn, err := net.Dial("tcp", a.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: session=%s\r\n\r\n", b.token()); err != nil {
			t.Fatal(err)
		}
		<-a.arrived
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		<-gone
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		a.proceed <- struct{}{}
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if n := live(t, a.pool, "alice"); n != 0 {
			t.Errorf("%d live sessions", n)
		}
	})
}

// A connection is used again: what one request has done is not taken for the next one's.
func TestRequestsOfOneConnectionAreToldApart(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3}, tracked)
		b := a.browser(t)
		for range 3 {
			b.must("/login", "user", "alice")
			mustExec(t, a.pool, `UPDATE scs_user_sessions SET created_at = now() - interval '1 day'`)
			token := b.token()
			b.must("/logout")
			mustExec(t, a.pool, `UPDATE scs_sessions SET end_reason = 'revoked' WHERE id = $1`, pgstore.IDOf(token))
		}
		b.must("/login", "user", "alice")
		list, err := a.store.Sessions(t.Context(), "alice")
		if err != nil || len(list) != 1 || time.Since(list[0].CreatedAt) > time.Hour {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// A request may revoke its own session, and sign in again.
func TestSignInAfterRevokingItsOwnSession(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"Revoke", "RevokeAll", "RevokeAll elsewhere"} {
		t.Run(by, func(t *testing.T) {
			bothWays(t, func(t *testing.T, tracked bool) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2}, tracked)
				a.mux.HandleFunc("/again", func(w http.ResponseWriter, r *http.Request) {
					var err error
					switch by {
					case "Revoke":
						_, err = a.store.Revoke(r.Context(), "alice", pgstore.IDOf(a.sm.Token(r.Context())))
					case "RevokeAll":
						_, err = a.store.RevokeAll(r.Context(), "alice")
					default:
						ctx, cancel := context.WithCancel(r.Context())
						_, err = a.store.RevokeAll(ctx, "alice")
						cancel()
					}
					if err == nil {
						err = a.store.SignIn(r.Context(), a.sm, "alice")
					}
					if err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
					}
				})
				b := a.browser(t)
				b.must("/login", "user", "alice")
				b.must("/again")
				if user := b.user(); user != "alice" {
					t.Errorf("user %q", user)
				}
			})
		})
	}
}

// What a refused sign-in leaves in memory is not stored as a session of nobody's.
func TestRefusedSignInStoresNothingOfTheRevokedSession(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		b := a.browser(t)
		b.must("/login", "user", "alice")
		b.must("/put", "key", "role", "value", "admin")
		finish := b.hold("after", "signin", "user", "alice")
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if status, body := finish(); status != http.StatusConflict || body != pgstore.ErrEnded.Error() {
			t.Errorf("%d %s", status, body)
		}
		if got := b.must("/me"); !strings.HasSuffix(got, "keys=") {
			t.Error(got)
		}
	})
}
