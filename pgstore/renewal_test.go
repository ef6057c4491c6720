package pgstore_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

func TestRevokeStopsAPendingRenewal(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	id := pgstore.IDOf(b.token())
	finish := b.hold("before", "renew")
	if _, err := a.store.Revoke(t.Context(), "alice", id); err != nil {
		t.Error(err)
	}
	finish()
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d sessions live", n)
	}
}

func TestRevokeAllStopsAPendingRenewal(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	finish := b.hold("before", "renew")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if status, body := finish(); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	stays(t, a, b.token())
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d sessions live after RevokeAll", n)
	}
}

// A handler may give the session manager another context than its request's. What has
// been ended stays so all the same.
func TestRevokeAllStopsARenewalUnderAnotherContext(t *testing.T) {
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
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{})
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
		}
	}
}

// Here the handler's context has ended before it renews, for good or only for reading.
func TestRevokeAllStopsARenewalAfterTheClientHasGone(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
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
}
