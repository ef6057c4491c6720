package pgstore_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// contract is scs's Store, with contexts or without.
type contract struct {
	find   func(token string) ([]byte, bool, error)
	commit func(token string, b []byte, expiry time.Time) error
	delete func(token string) error
	all    func() (map[string][]byte, error)
}

func TestStoreKeepsToTheContract(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain methods", "context methods"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, migrated(t), pgstore.Config{})
			c := contract{store.Find, store.Commit, store.Delete, store.All}
			if name == "context methods" {
				ctx := t.Context()
				c = contract{
					func(token string) ([]byte, bool, error) { return store.FindCtx(ctx, token) },
					func(token string, b []byte, e time.Time) error { return store.CommitCtx(ctx, token, b, e) },
					func(token string) error { return store.DeleteCtx(ctx, token) },
					func() (map[string][]byte, error) { return store.AllCtx(ctx) },
				}
			}
			testContract(t, c)
		})
	}
}

func testContract(t *testing.T, c contract) {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	if all, err := c.all(); err != nil || all == nil || len(all) != 0 {
		t.Errorf("all of nothing: %v, %v: want an empty map, not nil", all, err)
	}
	tokens := map[string]string{
		"usual": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ", "8 KB": strings.Repeat("t", 8192),
		"binary": "\x00\xff\xfe'\";--", "empty": "",
	}
	for name, token := range tokens {
		if b, found, err := c.find(token); found || b != nil || err != nil {
			t.Errorf("%s, missing: %v, %t, %v", name, b, found, err)
		}
		if err := c.delete(token); err != nil {
			t.Errorf("%s, deleting the absent: %v", name, err)
		}
		for _, data := range []string{"first", "second", ""} { // written, overwritten
			if err := c.commit(token, []byte(data), in(time.Hour)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if b, found, err := c.find(token); !found || string(b) != data || b == nil || err != nil {
				t.Errorf("%s: %q, %t, %v, want %q", name, b, found, err, data)
			}
		}
	}
	if all, err := c.all(); err != nil || len(all) != len(tokens) {
		t.Errorf("%d of %d sessions, %v", len(all), len(tokens), err)
	}
	for name, token := range tokens {
		for range 2 {
			if err := c.delete(token); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, found, err := c.find(token); found || err != nil {
			t.Errorf("%s is found after its deletion: %v", name, err)
		}
	}
	if err := c.commit("expired", []byte("x"), in(-time.Second)); err != nil {
		t.Error(err)
	}
	if _, found, err := c.find("expired"); found || err != nil {
		t.Errorf("expired: %t, %v", found, err)
	}
	if all, err := c.all(); err != nil || len(all) != 0 {
		t.Errorf("all holds what is over: %d, %v", len(all), err)
	}
	for name, expiry := range map[string]time.Time{"far": time.Unix(1<<40, 0), "zero": {}} {
		if err := c.commit(name, []byte("x"), expiry); err != nil {
			t.Errorf("expiry %v: %v", expiry, err)
		}
		if _, found, _ := c.find(name); found != (name == "far") {
			t.Errorf("expiry %v: found %t", expiry, found)
		}
	}
}

func TestLargeDataRoundTrips(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{Timeout: time.Minute})
	data := bytes.Repeat([]byte("0123456789"), 1<<20)
	if err := store.Commit("large", data, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if b, found, err := store.Find("large"); !found || err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %t, %v", len(b), found, err)
	}
	err := store.Commit("too large", make([]byte, 1<<30), time.Now().Add(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "1073741824 bytes") {
		t.Errorf("over the limit of PostgreSQL: %v", err)
	}
}

func TestHashTokenInStoreKeepsSessionAndLimit(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		a.sm.HashTokenInStore = true
		first, second := a.browser(t), a.browser(t)
		first.must("/login", "user", "alice")
		first.must("/renew")
		first.must("/put", "key", "k", "value", "v")
		if first.user() != "alice" {
			t.Error("the session was lost")
		}
		second.must("/login", "user", "alice")
		if first.user() != "" || second.user() != "alice" {
			t.Error("the limit did not hold")
		}
	})
}

func TestRememberMeSurvives(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.mux.HandleFunc("/remember", func(_ http.ResponseWriter, r *http.Request) { a.sm.RememberMe(r.Context(), true) })
	b := a.browser(t)
	b.must("/login", "user", "alice")
	b.must("/remember")
	resp, err := b.Get(a.URL + "/put?key=k&value=v")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if c := resp.Cookies(); len(c) != 1 || c[0].MaxAge < 1700 {
		t.Errorf("cookies %v", c)
	}
}
