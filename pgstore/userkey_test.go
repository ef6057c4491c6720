package pgstore_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore"
)

// newUnkeyedApp is an app as it was before UserKey was set.
func newUnkeyedApp(t *testing.T, pool *pgxpool.Pool, codec scs.Codec) *app {
	t.Helper()
	a := newApp(t, pool, pgstore.Config{})
	a.sm.Codec = codec
	return a
}

func unkeyedCodecs() map[string]scs.Codec {
	return map[string]scs.Codec{"Codec without UserKey": pgstore.Codec{}, "GobCodec": scs.GobCodec{}}
}

// Nobody knows when it began: of a session that held its user before the store knew, the
// fence lets nothing pass.
func TestUserKeyAddedLaterPassesNoFence(t *testing.T) {
	t.Parallel()
	for name, codec := range unkeyedCodecs() {
		for when, during := range map[string]bool{"before its request": false, "during its request": true} {
			for what, after := range map[string]string{"write": "put", "renewal": "renew", "unchanged": ""} {
				t.Run(name+", "+when+", "+what, func(t *testing.T) {
					t.Parallel()
					pool := migrated(t)
					old := newUnkeyedApp(t, pool, codec)
					b := old.browser(t)
					b.must("/put", "key", userKey, "value", "alice")
					a := newApp(t, pool, pgstore.Config{UserLimit: 2})
					revoke := func() {
						if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
							t.Error(err)
						}
					}
					moved := b.on(a)
					if !during {
						revoke()
					}
					finish := moved.hold("after", after)
					if during {
						revoke()
					}
					if status, body := finish(); status != http.StatusOK || !strings.Contains(body, "reason=revoked") {
						t.Errorf("%d %s", status, body)
					}
					if n := live(t, pool, "alice"); n != 0 {
						t.Errorf("%d live", n)
					}
					// The password signs in all the same.
					moved.must("/login", "user", "alice")
					if n := live(t, pool, "alice"); n != 1 || moved.user() != "alice" {
						t.Errorf("%d live, user %q", n, moved.user())
					}
					checkIndex(t, pool, a.store, "alice")
				})
			}
		}
	}
}

func TestUserKeyAddedLaterIndexesLiveSessions(t *testing.T) {
	t.Parallel()
	for name, codec := range unkeyedCodecs() {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				pool := migrated(t)
				b := newUnkeyedApp(t, pool, codec).browser(t)
				b.must("/put", "key", userKey, "value", "alice")
				b.must("/put", "key", "cart", "value", "1")
				a := newApp(t, pool, pgstore.Config{UserLimit: 2})
				moved := b.on(a)
				if moved.user() != "alice" || moved.keys() != "cart,userID" || live(t, pool, "alice") != 1 {
					t.Errorf("user %q, keys %s, %d live", moved.user(), moved.keys(), live(t, pool, "alice"))
				}
				checkIndex(t, pool, a.store, "alice")
			})
		})
	}
}

// In a rolling deploy, nodes with UserKey and without serve the same sessions.
func TestUserKeyMissingOnOneNodeFailsNoUnchangedRequest(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"old", "new"} { // which node has made the session
		t.Run("made by the "+first+" one", func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			old := newUnkeyedApp(t, pool, pgstore.Codec{})
			a := newApp(t, pool, pgstore.Config{UserLimit: 2})
			b := a.browser(t)
			if first == "old" {
				onOld := old.browser(t)
				onOld.must("/put", "key", userKey, "value", "alice")
				b = onOld.on(a)
				b.must("/me")
			} else {
				b.must("/login", "user", "alice")
			}
			onOld := b.on(old)
			for range 2 {
				if onOld.user() != "alice" {
					t.Error("the old node does not know alice")
				}
				age(t, pool, "2 minutes") // so that it is touched, too
			}
			onOld.must("/me")
			before := stored(t, pool, pgstore.IDOf(b.token()))
			if status, body := onOld.get("/put", "key", "k", "value", "v"); status != http.StatusInternalServerError || !strings.Contains(body, "UserKey") {
				t.Errorf("%d %s", status, body)
			}
			if after := stored(t, pool, pgstore.IDOf(b.token())); after != before {
				t.Errorf("it wrote: %s, before %s", after, before)
			}
			onOld.must("/me")
			b.must("/put", "key", "k", "value", "v")
			if got := b.keys(); got != "k,userID" || onOld.keys() != got {
				t.Errorf("it holds %s, on the old node %s", got, onOld.keys())
			}
			checkIndex(t, pool, a.store, "alice")
		})
	}
}
