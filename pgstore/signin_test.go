package pgstore_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// A sign-in from an anonymous session carries over what another request has put
// into it meanwhile, and the session of a signed-in user never leaks into the next.
func TestSignInCarriesOverTheAnonymousSessionOnly(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/put", "key", "cart", "value", "1")
	other := a.browser(t)
	other.setToken(b.token())
	finish := b.hold("after", "signin", "user", "alice")
	other.must("/put", "key", "wish", "value", "1")
	finish()
	if got := b.keys(); got != "cart,userID,wish" {
		t.Errorf("keys %s", got)
	}
	other.setToken(b.token())
	finish = b.hold("after", "put-user", "user", "bob")
	other.must("/put", "key", "secret", "value", "alice's")
	finish()
	if got := b.must("/me"); !strings.HasPrefix(got, "user=bob ") || strings.Contains(got, "secret") {
		t.Errorf("bob's session: %s", got)
	}
}

// A session that has timed out as it begins does not take anybody's place.
func TestSignInThatIsOverEvictsNobody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		late := newManager(a.store)
		late.Lifetime = -time.Hour
		a.mux.HandleFunc("/late", func(_ http.ResponseWriter, r *http.Request) {
			ctx, err := late.Load(r.Context(), "")
			if err != nil {
				t.Error(err)
			}
			if err := a.store.SignIn(ctx, late, "alice"); !errors.Is(err, pgstore.ErrEnded) {
				t.Error(err)
			}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		a.browser(t).must("/late")
		if b.user() != "alice" {
			t.Error("alice was evicted")
		}
	})
}

// number is a user id whose text is not its value's.
type number int

func (n number) String() string { return fmt.Sprintf("no. %d", int(n)) }

func init() { gob.Register(number(0)) }

func TestSignInTakesUserIDsThatAreNoStrings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id   any
		user string
	}{{int(42), "42"}, {int64(-7), "-7"}, {uint32(0), "0"}, {number(3), "no. 3"}} {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
		a.mux.HandleFunc("/as", func(w http.ResponseWriter, r *http.Request) {
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
			a.sm.Put(r.Context(), userKey, c.id)
		})
		a.mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
			v := a.sm.Get(r.Context(), userKey)
			fmt.Fprintf(w, "%T %v", v, v)
		})
		var last *browser
		for range 4 {
			last = a.browser(t)
			last.must("/as")
		}
		if got, want := last.must("/who"), fmt.Sprintf("%T %v", c.id, c.id); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if n, err := a.store.Count(t.Context(), c.user); err != nil || n != 2 {
			t.Errorf("%v: %d sessions of %q, %v", c.id, n, c.user, err)
		}
	}
}

type unregistered string

func (u unregistered) String() string { return string(u) }

// An id that cannot be stored is an error before the session has been touched.
func TestSignInRefusesAnIDThatGobDoesNotKnow(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		a.mux.HandleFunc("/odd", func(_ http.ResponseWriter, r *http.Request) {
			if err := a.store.SignIn(r.Context(), a.sm, unregistered("bob")); err == nil || !strings.Contains(err.Error(), "gob.Register") {
				t.Error(err)
			}
		})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		b.must("/odd")
		if b.user() != "alice" {
			t.Error("alice was signed out")
		}
	})
}

func TestSignInRefusesWrongUserIDsWhole(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
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

func TestSignInStoresAnyUserAgent(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{})
	sm := newManager(store)
	for user, client := range map[string]pgstore.Client{
		"latin-1": {UserAgent: "Caf\xe9"}, "long": {UserAgent: strings.Repeat("é", 400)}, "nul": {UserAgent: "a\x00b"}, "none": {},
	} {
		ctx, err := sm.Load(pgstore.WithClient(t.Context(), client), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SignIn(ctx, sm, user); err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		list, err := store.Sessions(t.Context(), user)
		if err != nil || len(list) != 1 || len(list[0].UserAgent) > 512 || list[0].IP.IsValid() {
			t.Errorf("%s: %+v, %v", user, list, err)
		}
	}
}

// The app's code runs before anything is locked: it may use the same connection.
func TestClientIPMayUseThePool(t *testing.T) {
	t.Parallel()
	pool := migrated(t, pgtest.MaxConns(1))
	a := newApp(t, pool, pgstore.Config{UserLimit: 1, ClientIP: func(r *http.Request) netip.Addr {
		var text string
		if err := pool.QueryRow(r.Context(), `SELECT '192.0.2.1'`).Scan(&text); err != nil {
			t.Error(err)
		}
		return netip.MustParseAddr("192.0.2.1")
	}})
	a.browser(t).must("/login", "user", "alice")
	if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || list[0].IP.String() != "192.0.2.1" {
		t.Errorf("%+v, %v", list, err)
	}
}

// A connection is used again: what one request has done is not taken for the next one's.
func TestRequestsOfOneConnectionAreToldApart(t *testing.T) {
	bothWays(t, requestsOfOneConnectionAreToldApart)
}

func requestsOfOneConnectionAreToldApart(t *testing.T, newApp newAppFunc) {
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3})
	b := a.browser(t)
	for range 3 {
		b.must("/login", "user", "alice")
		pgtest.Exec(t, a.pool, `UPDATE scs_user_sessions SET created_at = now() - interval '1 day'`)
		token := b.token()
		b.must("/logout")
		pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET end_reason = 'revoked' WHERE id = $1`, pgstore.IDOf(token))
	}
	b.must("/login", "user", "alice")
	list, err := a.store.Sessions(t.Context(), "alice")
	if err != nil || len(list) != 1 || time.Since(list[0].CreatedAt) > time.Hour {
		t.Errorf("%+v, %v", list, err)
	}
}

// The client has gone, or http.TimeoutHandler has answered in the handler's place.
func TestSignInUnderAnEndedContextChangesNothing(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc, error){
			"cancelled": func(ctx context.Context) (context.Context, context.CancelFunc, error) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel, context.Canceled
			},
			"past its deadline": func(ctx context.Context) (context.Context, context.CancelFunc, error) {
				ctx, cancel := context.WithTimeout(ctx, 0)
				return ctx, cancel, context.DeadlineExceeded
			},
		} {
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
			device, b := a.signedIn(t, "alice"), a.browser(t)
			b.do(put("cart"))
			token := b.token()
			b.do(func(_ *script, r *http.Request) error {
				ctx, cancel, want := end(r.Context())
				defer cancel()
				if err := a.store.SignIn(ctx, a.sm, "alice"); !errors.Is(err, want) {
					t.Errorf("%s: %v", name, err)
				}
				return nil
			})
			a.expect(t, "the device's", device.token(), "alice:")
			a.expect(t, "the browser's", token, "nobody: cart")
			if st := a.store.Stat(); st.Evictions != 0 || st.SignIns != 1 {
				t.Errorf("%+v", st)
			}
		}
	})
}

func TestSignInAfterTheTimeoutHandlerHasAnsweredEvictsNobody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		result := make(chan error)
		app := a.Config.Handler
		a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := app
			if r.URL.Path == "/slow-login" {
				h = http.TimeoutHandler(app, time.Second, "too slow")
			}
			h.ServeHTTP(w, r)
		})
		a.mux.HandleFunc("/slow-login", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			result <- a.store.SignIn(r.Context(), a.sm, "alice")
		})
		device := a.signedIn(t, "alice")
		if status, body := a.browser(t).get("/slow-login"); status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", status, body)
		}
		if err := <-result; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		a.expect(t, "the device's", device.token(), "alice:")
		a.expectLive(t, "alice", 1)
	})
}

func TestSignInSaysThatTheManagerHasAnotherStore(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
	device := a.signedIn(t, "alice")
	for want, other := range map[string]scs.Store{
		"*memstore.MemStore": memstore.NewWithCleanupInterval(0),
		"*pgstore.Store":     newStore(t, a.pool, pgstore.Config{}),
		"<nil>":              nil,
	} {
		sm := newManager(other)
		under(a.store, func(ctx context.Context) {
			ctx, err := sm.Load(ctx, "")
			if err != nil {
				t.Fatal(err)
			}
			sm.Put(ctx, "cart", "v")
			err = a.store.SignIn(ctx, sm, "alice")
			if err == nil || errors.Is(err, pgstore.ErrEnded) || !strings.Contains(err.Error(), "SessionManager.Store is "+want+",") {
				t.Errorf("%s: %v", want, err)
			}
			if sm.Token(ctx) != "" || sm.Exists(ctx, userKey) || sm.GetString(ctx, "cart") != "v" {
				t.Errorf("%s: the session has changed", want)
			}
		})
	}
	a.expect(t, "the device's", device.token(), "alice:")
}

// What a request puts after its Destroy is nobody's.
func TestSignInKeepsWhatFollowsADestroy(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	browser := a.signedIn(t, "alice")
	token := browser.do(destroy, put("cart"), signIn("bob"))
	a.expect(t, "bob's", token, "bob: cart")
}
