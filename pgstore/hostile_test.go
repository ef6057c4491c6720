package pgstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

var unknownCookies = flag.Int("unknown-cookies", 4000, "cookies that nobody knows to send in TestUnknownCookiesLeaveNothing")

// Whatever a client sends as its cookie. The requests are made without a socket: what
// net/http refuses on the way is tried, too.
func TestUnknownCookiesLeaveNothing(t *testing.T) { // not parallel: it looks at the memory of the process
	a := makeApp(t, migrated(t), pgstore.Config{UserLimit: 5})
	h := a.store.Track(a.sm.LoadAndSave(a.mux))
	send := func(n int) {
		for range n {
			if w := sendCookie(t, a, h, rand.Text()); w.Code != http.StatusOK || w.Header().Get("Set-Cookie") != "" {
				t.Fatalf("%d %q", w.Code, w.Header())
			}
		}
	}
	inUse := func() (heap uint64, goroutines int) {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools keep goes with the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	send(100)
	heap, goroutines := inUse()
	send(*unknownCookies)
	heapAfter, goroutinesAfter := inUse()
	if most := heap + 64*uint64(*unknownCookies); heapAfter > most { // less than a token takes
		t.Errorf("%d bytes in use, %d before", heapAfter, heap)
	}
	if goroutinesAfter > goroutines {
		t.Errorf("%d goroutines, %d before", goroutinesAfter, goroutines)
	}
	for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
		if n := pgtest.Query[int](t, a.pool, "SELECT count(*) FROM "+table); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
}

// sendCookie sends a request with that cookie, byte for byte.
func sendCookie(t testing.TB, a *app, h http.Handler, value string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/me", nil)
	r.Header.Set("Cookie", a.sm.Cookie.Name+"="+value)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// No cookie opens a session but the one that was given out, and none is an error.
func FuzzCookie(f *testing.F) {
	a := makeApp(f, migrated(f), pgstore.Config{})
	h := a.store.Track(a.sm.LoadAndSave(a.mux))
	a.serve(f, h)
	b := a.browser(f)
	b.must("/login", "user", "alice")
	token, id := b.token(), pgstore.IDOf(b.token())
	for _, value := range []string{
		"", token[:42], strings.ToUpper(token), id, strings.ReplaceAll(id, "-", ""),
		"\x00id:" + id + ":1", "%00id:" + id + ":1", strings.Repeat("a", 1<<16), "\xff\xfe", "a\r\nSet-Cookie: x=y", "=;,\t",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if w := sendCookie(t, a, h, value); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "alice") {
			t.Errorf("%q: %d %s", value, w.Code, w.Body)
		}
		// An app may take tokens from elsewhere, where there is no cookie's syntax.
		if data, found, err := a.store.Find(value); found || err != nil {
			t.Errorf("Find(%q): %d bytes, %t, %v", value, len(data), found, err)
		}
	})
}

// userCalls are the calls that take a user's id, and something of a client's.
var userCalls = map[string]func(s *pgstore.Store, ctx context.Context, user, what string) (done bool, err error){
	"Sessions": func(s *pgstore.Store, ctx context.Context, user, _ string) (bool, error) {
		list, err := s.Sessions(ctx, user)
		return len(list) > 0, err
	},
	"Count": func(s *pgstore.Store, ctx context.Context, user, _ string) (bool, error) {
		n, err := s.Count(ctx, user)
		return n > 0, err
	},
	"Revoke": func(s *pgstore.Store, ctx context.Context, user, id string) (bool, error) {
		return s.Revoke(ctx, user, id)
	},
	"RevokeOthers": func(s *pgstore.Store, ctx context.Context, user, keep string) (bool, error) {
		n, err := s.RevokeOthers(ctx, user, keep)
		if errors.Is(err, pgstore.ErrNotLive) {
			err = nil
		}
		return n > 0, err
	},
	"RevokeAll": func(s *pgstore.Store, ctx context.Context, user, _ string) (bool, error) {
		n, err := s.RevokeAll(ctx, user)
		return n > 0, err
	},
	"Forget": func(s *pgstore.Store, ctx context.Context, user, _ string) (bool, error) {
		n, err := s.Forget(ctx, user)
		return n > 0, err
	},
}

// Of another user than those who are signed in, and with anything for an id or a token.
func FuzzUserCalls(f *testing.F) {
	a := newApp(f, migrated(f), pgstore.Config{})
	b := a.browser(f)
	b.must("/login", "user", "alice")
	id := pgstore.IDOf(b.token())
	before := tables(f, a)
	for _, user := range []string{"mallory", "", "ALICE", "alice ", "alice\x00", "\xff", strings.Repeat("x", 256), "%", "' OR true --"} {
		f.Add(user, id)
		f.Add(user, "\x00id:"+id+":1")
	}
	f.Add("mallory", "{"+id+"}")
	f.Fuzz(func(t *testing.T, user, what string) {
		if user == "alice" {
			t.Skip()
		}
		_, refused := pgstore.Codec{UserKey: "u"}.Encode(time.Time{}, map[string]any{"u": user})
		bad := refused != nil || user == ""
		for name, call := range userCalls {
			done, err := call(a.store, t.Context(), user, what)
			if done || err != nil && !bad || err == nil && bad && name != "RevokeOthers" { // which looks at the token first
				t.Errorf("%s(%q, %q): %t, %v", name, user, what, done, err)
			}
		}
		pgtest.Exec(t, a.pool, `DELETE FROM scs_users WHERE user_id <> 'alice'`) // fences of nobody's
		if after := tables(t, a); after != before {
			t.Errorf("after %q, %q:\n%s\nbefore:\n%s", user, what, after, before)
		}
	})
}

// tables is all that the tables hold.
func tables(t testing.TB, a *app) string {
	return pgtest.Query[string](t, a.pool, `SELECT concat((SELECT jsonb_agg(s ORDER BY id) FROM scs_sessions s),
		(SELECT jsonb_agg(u ORDER BY id) FROM scs_user_sessions u), (SELECT jsonb_agg(u ORDER BY user_id) FROM scs_users u))`)
}

// Somebody else's session, by whatever names it: nothing is found, and nothing changes.
func TestSessionsOfOthersAreOutOfReach(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		alice, bob, visitor := a.browser(t), a.browser(t), a.browser(t)
		alice.must("/login", "user", "alice")
		bob.must("/login", "user", "bob")
		visitor.must("/put", "key", "cart", "value", "1")
		all, err := a.store.All()
		if err != nil || len(all) != 3 {
			t.Fatal(len(all), err)
		}
		names := []string{bob.token(), visitor.token(), pgstore.IDOf(bob.token()), pgstore.IDOf(visitor.token())}
		for standIn := range all {
			names = append(names, standIn)
		}
		before := tables(t, a)
		for _, name := range names {
			if ok, err := a.store.Revoke(t.Context(), "alice", name); ok || err != nil {
				t.Errorf("Revoke %q: %t, %v", name, ok, err)
			}
			if n, err := a.store.RevokeOthers(t.Context(), "alice", name); n != 0 || !errors.Is(err, pgstore.ErrNotLive) {
				t.Errorf("RevokeOthers %q: %d, %v", name, n, err)
			}
		}
		for _, name := range names[2:] {
			a.expect(t, name, name, "nothing")
		}
		if after := tables(t, a); after != before {
			t.Errorf("%s\nbefore:\n%s", after, before)
		}
		for _, name := range names[2:] {
			alice.do(mergeIn(name)) // as an app that takes the token from a client
		}
		a.expect(t, "alice's", alice.token(), "alice:")
		a.expect(t, "bob's", bob.token(), "bob:")
		a.expect(t, "the visitor's", visitor.token(), "nobody: cart")
	})
}

// A user's id that is none is an error on every way in, which says what is wrong, and does
// not repeat it.
func TestUserIDsThatAreNoneAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	before := tables(t, a)
	for user, want := range map[string]string{
		strings.Repeat("hush", 1<<18): "1048576 bytes, at most 255", "hush\xff": "not valid UTF-8", "hush\x00": "NUL byte",
	} {
		check := func(what string, err error) {
			t.Helper()
			if err == nil || !strings.HasPrefix(err.Error(), "pgstore: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: got %.300v, want an error that says %q", what, err, want)
			}
		}
		for name, call := range userCalls {
			_, err := call(a.store, t.Context(), user, b.token())
			check(name, err)
		}
		_, err := a.sm.Codec.Encode(time.Now(), map[string]any{userKey: user})
		check("Encode", err)
		under(a.store, func(ctx context.Context) {
			ctx, err := a.sm.Load(ctx, b.token())
			if err != nil {
				t.Fatal(err)
			}
			check("SignIn", a.store.SignIn(ctx, a.sm, user))
			a.sm.Put(ctx, userKey, user)
			_, _, err = a.sm.Commit(ctx)
			check("Commit", err)
			// What another codec, or a hand, has framed.
			check("CommitCtx", a.store.CommitCtx(ctx, "token", framed(user), time.Now().Add(time.Hour)))
		})
	}
	if after := tables(t, a); after != before {
		t.Errorf("%s\nbefore:\n%s", after, before)
	}
}

// framed is the frame of an empty session of a user whom Codec refuses.
func framed(user string) []byte {
	n := len(user) + 1
	b := []byte{0, 1, 0, 0}
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return fmt.Append(append(b, byte(n)), user, "\x00")
}
