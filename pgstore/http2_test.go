package pgstore_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

// http2 serves the app's routes over HTTP/2. All requests share one connection, as
// those of several clients do behind a proxy.
func (a *app) http2(t *testing.T) (get func(path, token string) (status int, body, newToken string)) {
	srv := httptest.NewUnstartedServer(a.Config.Handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client := srv.Client()
	return func(path, token string) (int, string, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Error(err)
			return 0, "", ""
		}
		if token != "" {
			req.AddCookie(&http.Cookie{Name: "session", Value: token})
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, "", ""
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.ProtoMajor != 2 {
			t.Errorf("this is HTTP/%d", resp.ProtoMajor)
		}
		for _, c := range resp.Cookies() {
			token = c.Value
		}
		return resp.StatusCode, string(body), token
	}
}

// Two requests with one session, on one connection at the same time.
func TestRequestsOfOneHTTP2ConnectionAreToldApart(t *testing.T) {
	t.Parallel()
	type steps struct{ started, act, acted, end chan struct{} }
	tests := map[string]struct {
		want int // live sessions
		run  func(t *testing.T, a *app, start func(name string), x, y steps, ended func(name string))
	}{
		"both renew": {1, func(_ *testing.T, _ *app, start func(string), x, y steps, ended func(string)) {
			start("x")
			start("y")
			close(x.act)
			<-x.acted
			close(y.act)
			<-y.acted
			close(x.end)
			ended("x")
			close(y.end)
		}},
		"one renews, the other ends, then all are revoked": {0, func(t *testing.T, a *app, start func(string), x, y steps, ended func(string)) {
			start("y")
			start("x")
			close(x.act)
			<-x.acted
			close(y.end)
			ended("y")
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
			close(x.end)
		}},
		"one revokes all, the other renews": {0, func(_ *testing.T, _ *app, start func(string), x, y steps, _ func(string)) {
			start("y")
			start("revoke-x")
			close(x.act)
			<-x.acted
			close(y.act)
			<-y.acted
			close(y.end)
			close(x.end)
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			reqs, ended := map[string]steps{}, map[string]chan struct{}{}
			for _, n := range []string{"x", "y"} {
				reqs[n] = steps{make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})}
				ended[n] = make(chan struct{})
			}
			a.mux.HandleFunc("/steps", func(_ http.ResponseWriter, r *http.Request) {
				name, revokes := strings.CutPrefix(r.FormValue("name"), "revoke-")
				s := reqs[name]
				close(s.started)
				select {
				case <-s.end:
					return
				case <-s.act:
				}
				var err error
				if revokes {
					_, err = a.store.RevokeAll(r.Context(), "alice")
				} else {
					err = a.sm.RenewToken(r.Context())
				}
				if err != nil {
					t.Error(err)
				}
				close(s.acted)
				<-s.end
			})
			get := a.http2(t)
			_, _, token := get("/login?user=alice", "")
			var wg sync.WaitGroup
			start := func(name string) {
				short := strings.TrimPrefix(name, "revoke-")
				wg.Go(func() {
					get("/steps?name="+name, token)
					close(ended[short])
				})
				<-reqs[short].started
			}
			test.run(t, a, start, reqs["x"], reqs["y"], func(name string) { <-ended[name] })
			wg.Wait()
			if n := live(t, a.pool, "alice"); n != test.want {
				t.Errorf("%d live sessions, want %d", n, test.want)
			}
		})
	}
}

// Whoever revokes on the connection of another client's request is not taken for it.
func TestRevokeStopsARenewalOnTheSameHTTP2Connection(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"Revoke", "RevokeAll"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			a.mux.HandleFunc("/revoke", func(_ http.ResponseWriter, r *http.Request) {
				var err error
				if by == "Revoke" {
					_, err = a.store.Revoke(r.Context(), "alice", r.FormValue("id"))
				} else {
					_, err = a.store.RevokeAll(r.Context(), "alice")
				}
				if err != nil {
					t.Error(err)
				}
			})
			get := a.http2(t)
			_, _, stolen := get("/login?user=alice", "")
			_, _, admin := get("/login?user=admin", "")
			done := make(chan string)
			go func() {
				_, _, token := get("/hold?after=renew", stolen)
				done <- token
			}()
			<-a.arrived
			get("/revoke?id="+pgstore.IDOf(stolen), admin)
			a.proceed <- struct{}{}
			if _, who, _ := get("/me", <-done); !strings.HasPrefix(who, "user= ") {
				t.Error(who)
			}
		})
	}
}
