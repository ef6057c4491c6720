package pgstore_test

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

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
