package pgstore_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestReindexGivesSessionsToTheirUsers(t *testing.T) {
	t.Parallel()
	for name, codec := range unkeyedCodecs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			before := newUnkeyedApp(t, pool, codec)
			var browsers []*browser
			for _, user := range []string{"alice", "alice", "alice", "bob"} {
				b := before.browser(t)
				b.must("/put", "key", userKey, "value", user)
				browsers = append(browsers, b)
			}
			visitor := before.browser(t)
			visitor.must("/put", "key", "cart", "value", "1")
			out := before.browser(t)
			out.must("/put", "key", userKey, "value", "alice")
			out.must("/logout")
			times := pgtest.Query[string](t, pool, `SELECT string_agg(id || expiry::text || last_seen_at, ';' ORDER BY id) FROM scs_sessions`)

			a := newApp(t, pool, pgstore.Config{UserLimit: 2})
			for _, want := range []int{4, 0} { // also a second time
				if n, err := a.store.Reindex(t.Context(), pgstore.Codec{UserKey: userKey}); n != want || err != nil {
					t.Errorf("%d, %v, want %d", n, err, want)
				}
			}
			if times != pgtest.Query[string](t, pool, `SELECT string_agg(id || expiry::text || last_seen_at, ';' ORDER BY id) FROM scs_sessions`) {
				t.Error("it has moved expiry or last-seen time")
			}
			checkIndex(t, pool, a.store, "alice", "bob")
			if live(t, pool, "alice") != 3 || live(t, pool, "bob") != 1 || visitor.on(a).keys() != "cart" {
				t.Errorf("%d of alice, %d of bob, the visitor has %s", live(t, pool, "alice"), live(t, pool, "bob"), visitor.on(a).keys())
			}
			for i, user := range []string{"alice", "alice", "alice", "bob"} {
				if got := browsers[i].on(a).user(); got != user {
					t.Errorf("browser %d is %q, want %q", i, got, user)
				}
			}
			a.browser(t).must("/login", "user", "alice")
			if n := live(t, pool, "alice"); n != 2 {
				t.Errorf("after a sign-in %d live, want 2", n)
			}
			if n, err := a.store.RevokeAll(t.Context(), "bob"); n != 1 || err != nil {
				t.Errorf("%d of bob revoked, %v", n, err)
			}
		})
	}
}

// The revocation should have found it.
func TestReindexEndsWhatAFenceShouldHave(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	b := newUnkeyedApp(t, pool, pgstore.Codec{}).browser(t)
	b.must("/put", "key", userKey, "value", "alice")
	a := newApp(t, pool, pgstore.Config{})
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if n, err := a.store.Reindex(t.Context(), pgstore.Codec{UserKey: userKey}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if got := b.on(a).must("/me"); !strings.HasPrefix(got, "user= ") || !strings.Contains(got, "reason=revoked") {
		t.Error(got)
	}
}

// What a request changes that has loaded the session before and commits it after is kept.
func TestReindexLosesNoWriteInFlight(t *testing.T) {
	t.Parallel()
	for name, codec := range unkeyedCodecs() {
		for what, after := range map[string]string{"write": "put", "renewal": "renew", "unchanged": ""} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				pool := migrated(t)
				before := newUnkeyedApp(t, pool, codec).browser(t)
				before.must("/put", "key", userKey, "value", "alice")
				a := newApp(t, pool, pgstore.Config{UserLimit: 2})
				b := before.on(a)
				finish := b.hold("after", after)
				if n, err := a.store.Reindex(t.Context(), pgstore.Codec{UserKey: userKey}); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				if status, body := finish(); status != 200 || body != "state=active reason=" {
					t.Errorf("%d %s", status, body)
				}
				want := map[string]string{"put": "held,userID", "renew": userKey, "": userKey}[after]
				if b.user() != "alice" || b.keys() != want || live(t, pool, "alice") != 1 {
					t.Errorf("user %q, keys %s, want %s, %d live", b.user(), b.keys(), want, live(t, pool, "alice"))
				}
				checkIndex(t, pool, a.store, "alice")
			})
		}
	}
}

func TestReindexGoesInSmallTransactions(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	var log bytes.Buffer
	store := newStore(t, pool, pgstore.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for n := range 1100 { // more than a page
		data, err := scs.GobCodec{}.Encode(noon, map[string]any{userKey: fmt.Sprint("user", n%3)})
		if err == nil {
			err = store.Commit(fmt.Sprint("token", n), data, time.Now().Add(time.Hour))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Commit("damaged", []byte("secret"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	codec := pgstore.Codec{UserKey: userKey}
	if n, err := store.Reindex(t.Context(), codec); n != 1100 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n := pgtest.Query[int](t, pool, `SELECT count(DISTINCT xmin::text) FROM scs_sessions WHERE user_id IS NOT NULL`); n < 6 {
		t.Errorf("%d transactions", n)
	}
	checkIndex(t, pool, store, "user0", "user1", "user2")
	if !strings.Contains(log.String(), pgstore.IDOf("damaged")) || strings.Contains(log.String(), "secret") {
		t.Error(log.String())
	}
	if _, err := store.Reindex(t.Context(), pgstore.Codec{}); err == nil || !strings.Contains(err.Error(), "UserKey") {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Reindex(cancelled, codec); err == nil || !strings.Contains(err.Error(), "reindex sessions") {
		t.Error(err)
	}
}
