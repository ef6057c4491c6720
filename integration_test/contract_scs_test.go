package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/pgstore"
)

// contract is scs's Store, with contexts or without.
type contract struct {
	find   func(token string) ([]byte, bool, error)
	commit func(token string, b []byte, expiry time.Time) error
	delete func(token string) error
	all    func() (map[string][]byte, error)
}

func TestStoreContract(t *testing.T) {
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

func TestIterateChangesAndDestroysSessions(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	alice, bob := a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	seen := 0
	err := a.sm.Iterate(context.Background(), func(ctx context.Context) error {
		seen++
		if a.sm.GetString(ctx, userKey) == "alice" {
			return a.sm.Destroy(ctx)
		}
		a.sm.Put(ctx, "notice", "hello")
		_, _, err := a.sm.Commit(ctx)
		return err
	})
	if err != nil || seen != 2 {
		t.Fatalf("%d sessions seen, %v", seen, err)
	}
	if alice.user() != "" {
		t.Error("alice's session was not destroyed")
	}
	if got := bob.must("/me"); got != "user=bob state=active reason= keys=notice,userID" {
		t.Errorf("bob's session: %s", got)
	}
	checkIndex(t, a.pool, a.store, "alice", "bob")
}

// An operator's request changes the sessions of others: it is not who signs them in, it
// does not continue them, and does not bring back what has gone.
func TestIterateFromARequest(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 3}, tracked)
		a.mux.HandleFunc("/notify", func(_ http.ResponseWriter, r *http.Request) {
			if err := a.sm.Iterate(r.Context(), func(ctx context.Context) error {
				switch {
				case a.sm.GetString(ctx, "cart") != "":
					mustExec(t, a.pool, `DELETE FROM scs_sessions WHERE user_id IS NULL`)
				case a.sm.GetString(ctx, userKey) == "bob":
					return a.sm.Destroy(ctx)
				}
				a.sm.Put(ctx, "notice", "hello")
				_, _, err := a.sm.Commit(ctx)
				return err
			}); err != nil {
				t.Error(err)
			}
			if err := a.store.SignIn(r.Context(), a.sm, "bob"); err != nil {
				t.Error(err)
			}
		})
		alice, bob, anonymous, operator := a.browser(t), a.browser(t), a.browser(t), a.browser(t)
		alice.must("/login", "user", "alice")
		bob.must("/login", "user", "bob")
		anonymous.must("/put", "key", "cart", "value", "1")
		mustExec(t, a.pool, `UPDATE scs_user_sessions SET user_agent = 'theirs', created_at = now() - interval '1 day'`)
		before := a.store.Stat()
		operator.must("/notify")
		if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || list[0].UserAgent != "theirs" {
			t.Errorf("alice: %+v, %v", list, err)
		}
		if list, err := a.store.Sessions(t.Context(), "bob"); err != nil || len(list) != 1 || time.Since(list[0].CreatedAt) > time.Hour {
			t.Errorf("bob: %+v, %v", list, err)
		}
		if n := query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE user_id IS NULL`); n != 0 {
			t.Errorf("%d anonymous sessions are back", n)
		}
		if n := a.store.Stat().SignIns() - before.SignIns(); n != 1 {
			t.Errorf("%d sign-ins", n)
		}
		if got := alice.must("/me"); !strings.HasSuffix(got, "keys=notice,userID") {
			t.Error(got)
		}
	})
}

func TestStandInsOpenNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	a.browser(t).must("/login", "user", "alice")
	all, err := a.store.All()
	if err != nil || len(all) != 1 {
		t.Fatal(len(all), err)
	}
	for standIn := range all {
		if _, found, err := a.store.Find(standIn); found || err != nil {
			t.Errorf("a stand-in was found: %v", err)
		}
		if err := a.store.Delete(standIn); err != nil {
			t.Error(err)
		}
		// It never inserts.
		if err := a.store.Commit(standIn+"x", []byte("x"), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
	}
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d sessions of alice live", n)
	}
}

func TestHashTokenInStore(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
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
	a := newApp(t, migrated(t), pgstore.Config{}, true)
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

// jsonCodec stands for any codec that is not ours.
type jsonCodec struct{}

func (jsonCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"deadline": deadline, "values": values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var v struct {
		Deadline time.Time
		Values   map[string]any
	}
	err := json.Unmarshal(b, &v)
	return v.Deadline, v.Values, err
}

func TestOtherCodecs(t *testing.T) {
	t.Parallel()
	for name, codec := range map[string]scs.Codec{"gob": scs.GobCodec{}, "json": jsonCodec{}} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, tracked bool) {
				a := newApp(t, migrated(t), pgstore.Config{}, tracked)
				a.sm.Codec = codec
				b := a.browser(t)
				for _, key := range []string{"a", "b", "c", "d"} {
					b.must("/put", "key", key, "value", "v")
				}
				before := a.store.Stat()
				b.must("/renew")
				if got := b.must("/me"); !strings.HasSuffix(got, "keys=a,b,c,d") {
					t.Errorf("%s", got)
				}
				b.must("/me")
				if wrote := a.store.Stat().Writes() - before.Writes(); tracked && wrote != 1 {
					t.Errorf("%d writes, want the renewal's only", wrote)
				}
				b.must("/logout")
				if got := b.must("/me"); !strings.HasSuffix(got, "keys=") {
					t.Errorf("%s", got)
				}
			})
		})
	}
}

// Moving over: rows that scs's codec has written are read by ours.
func TestGobRowsAreRead(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	a.sm.Codec = scs.GobCodec{}
	b := a.browser(t)
	b.must("/put", "key", "cart", "value", "1")
	a.sm.Codec = pgstore.Codec{UserKey: userKey}
	if got := b.must("/me"); !strings.HasSuffix(got, "keys=cart") {
		t.Errorf("%s", got)
	}
	b.must("/login", "user", "alice")
	if got := b.must("/me"); got != "user=alice state=active reason= keys=cart,userID" {
		t.Errorf("%s", got)
	}
}

func TestDamagedRowIsNotFoundAndDoesNotWedge(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"frame cut short": `UPDATE scs_sessions SET data = substring(data FROM 1 FOR octet_length(data) - 1)`,
		"gob cut short":   `UPDATE scs_sessions SET data = '\x40ff810301'`,
		"empty":           `UPDATE scs_sessions SET data = ''`,
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, tracked bool) {
				a := newApp(t, migrated(t), pgstore.Config{}, tracked)
				b := a.browser(t)
				b.must("/login", "user", "alice")
				mustExec(t, a.pool, damage)
				if user := b.user(); user != "" {
					t.Errorf("user %q", user)
				}
				if name == "frame cut short" && a.store.Stat().BadRows() == 0 {
					t.Error("the damaged row was not counted")
				}
				b.must("/login", "user", "alice")
				if user := b.user(); user != "alice" {
					t.Errorf("user %q after signing in again", user)
				}
			})
		})
	}
}

func TestMergeSession(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		a.mux.HandleFunc("/merge", func(w http.ResponseWriter, r *http.Request) {
			if err := a.sm.MergeSession(r.Context(), r.FormValue("token")); err != nil {
				t.Error(err)
			}
		})
		lost, b := a.browser(t), a.browser(t)
		lost.must("/login", "user", "alice")
		lost.must("/put", "key", "cart", "value", "1")
		b.must("/put", "key", "state", "value", "x")
		b.must("/merge", "token", b.token())
		b.must("/merge", "token", lost.token())
		want := "user=alice state=" + map[bool]string{true: "active", false: "none"}[tracked] + " reason= keys=cart,state,userID"
		if got := b.must("/me"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if lost.user() != "" {
			t.Error("the merged session still lives")
		}
		checkIndex(t, a.pool, a.store, "alice")
	})
}

func TestCommitInTheHandlerAndAgain(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
		a.mux.HandleFunc("/twice", func(_ http.ResponseWriter, r *http.Request) {
			for _, key := range []string{"a", "b"} {
				a.sm.Put(r.Context(), key, "v")
				a.sm.Put(r.Context(), userKey, "alice")
				if _, _, err := a.sm.Commit(r.Context()); err != nil {
					t.Error(err)
				}
			}
			a.sm.Put(r.Context(), "c", "v")
		})
		b := a.browser(t)
		b.must("/twice")
		b.must("/twice")
		if got := b.must("/me"); !strings.HasSuffix(got, "keys=a,b,c,userID") {
			t.Errorf("%s", got)
		}
		if n := live(t, a.pool, "alice"); n != 1 {
			t.Errorf("%d live sessions", n)
		}
	})
}

// Two managers with a store each around one handler do not see each other.
func TestTwoManagersAroundOneHandler(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, true)
	other := newStore(t, migrated(t), pgstore.Config{})
	sm := newManager(other)
	sm.Cookie.Name = "other"
	a.mux.HandleFunc("/both", func(w http.ResponseWriter, r *http.Request) {
		if err := a.store.SignIn(r.Context(), a.sm, "alice"); err != nil {
			t.Error(err)
		}
		if err := other.SignIn(r.Context(), sm, "bob"); err != nil {
			t.Error(err)
		}
		if x, y := a.store.StatusOf(r.Context()), other.StatusOf(r.Context()); x.UserID != "alice" || y.UserID != "bob" || x.ID == y.ID {
			t.Errorf("%+v, %+v", x, y)
		}
	})
	a.Config.Handler = a.store.Track(other.Track(a.sm.LoadAndSave(sm.LoadAndSave(a.mux))))
	b := a.browser(t)
	b.must("/both")
	if b.user() != "alice" || live(t, a.pool, "alice") != 1 {
		t.Error("the first manager lost its session")
	}
	if n, err := other.Count(t.Context(), "bob"); n != 1 || err != nil {
		t.Errorf("the second has %d, %v", n, err)
	}
}

func TestUserAgentAndAddressOfSignIns(t *testing.T) {
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
