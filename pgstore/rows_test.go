package pgstore_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// endless are times that no session of ours has, but somebody's UPDATE, or an import.
var endless = []struct {
	name, expiry, lastSeen string // NULL: as it is
	alive                  bool
}{
	{"no expiry", "infinity", "", true},
	{"expired for ever", "-infinity", "", false},
	{"seen in the end", "", "infinity", true},
	{"never seen", "", "-infinity", true},
	{"both infinite", "infinity", "infinity", true},
	{"both minus infinite", "-infinity", "-infinity", false},
	{"endless and never seen", "infinity", "-infinity", true},
}

func setTimes(t *testing.T, a *app, id, expiry, lastSeen string) {
	t.Helper()
	for column, value := range map[string]string{"expiry": expiry, "last_seen_at": lastSeen} {
		if value != "" {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET `+column+` = $2::text::timestamptz WHERE id = $1`, id, value)
		}
	}
}

func TestInfiniteTimesFailNobody(t *testing.T) {
	t.Parallel()
	for _, tt := range endless {
		t.Run(tt.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 5})
				b, bob := a.browser(t), a.browser(t)
				b.must("/login", "user", "alice")
				bob.must("/login", "user", "bob")
				id := pgstore.IDOf(b.token())
				want := map[bool]int{true: 1}[tt.alive]
				set := func() { setTimes(t, a, id, tt.expiry, tt.lastSeen) }

				set()
				if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != want {
					t.Errorf("%d listed, want %d, %v", len(list), want, err)
				}
				if n, err := a.store.Count(t.Context(), "alice"); err != nil || n != want {
					t.Errorf("%d counted, want %d, %v", n, want, err)
				}
				seen := 0
				for _, err := range a.store.Each(t.Context()) {
					if seen++; err != nil {
						t.Error(err)
					}
				}
				if all, err := a.store.All(); err != nil || len(all) != want+1 || seen != want+1 {
					t.Errorf("%d in all, %d seen, want %d, %v", len(all), seen, want+1, err)
				}
				if o, err := a.store.Overview(t.Context()); err != nil || o.Live != int64(want+1) {
					t.Errorf("%d in the overview, want %d, %v", o.Live, want+1, err)
				}
				if _, err := cleanup.Sweep(t.Context(), a.pool, cleanup.Options{}); err != nil {
					t.Error(err)
				}

				wantUser := map[bool]string{true: "alice"}[tt.alive]
				if got := b.user(); got != wantUser {
					t.Errorf("user %q, want %q", got, wantUser)
				}
				if !tt.alive {
					return
				}
				for _, path := range []string{"/poll", "/put", "/poll", "/renew", "/put", "/login"} {
					setTimes(t, a, pgstore.IDOf(b.token()), tt.expiry, tt.lastSeen)
					b.must(path, "key", "k", "value", path, "put", path, "user", "alice")
				}
				if got := b.user(); got != "alice" || live(t, a.pool, "alice") != 1 {
					t.Errorf("user %q, %d live", got, live(t, a.pool, "alice"))
				}
				checkIndex(t, a.pool, a.store, "alice", "bob")
				setTimes(t, a, pgstore.IDOf(b.token()), tt.expiry, tt.lastSeen)
				b.must("/logout")
				if bob.user() != "bob" || live(t, a.pool, "alice") != 0 {
					t.Errorf("bob is %q, %d of alice live", bob.user(), live(t, a.pool, "alice"))
				}
			})
		})
	}
}

// A browser that has such a session is not what keeps its user out elsewhere.
func TestInfiniteTimesKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for _, tt := range endless {
		for name, policy := range map[string]pgstore.LimitPolicy{
			"evict oldest": pgstore.EvictOldest, "evict least recent": pgstore.EvictLeastRecent, "reject": pgstore.Reject,
		} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: policy})
				b, elsewhere := a.browser(t), a.browser(t)
				b.must("/login", "user", "alice")
				setTimes(t, a, pgstore.IDOf(b.token()), tt.expiry, tt.lastSeen)
				status, body := elsewhere.get("/login", "user", "alice")
				if refused := policy == pgstore.Reject && tt.alive; refused {
					if status != http.StatusConflict || body != pgstore.ErrUserLimit.Error() || b.user() != "alice" {
						t.Errorf("%d %s", status, body)
					}
				} else if status != http.StatusOK || elsewhere.user() != "alice" || b.user() != "" {
					t.Errorf("%d %s; user %q, before %q", status, body, elsewhere.user(), b.user())
				}
				if n := live(t, a.pool, "alice"); n != 1 {
					t.Errorf("%d live", n)
				}
				checkIndex(t, a.pool, a.store, "alice")
				if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil || live(t, a.pool, "alice") != 0 {
					t.Errorf("%d live after RevokeAll, %v", live(t, a.pool, "alice"), err)
				}
			})
		}
	}
}

func TestInfiniteExpiryLastsUntilTheDeadline(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		id := pgstore.IDOf(b.token())
		set := func(deadline time.Time) {
			data, err := pgstore.Codec{UserKey: userKey}.Encode(deadline, map[string]any{userKey: "alice"})
			if err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET data = $2, expiry = 'infinity' WHERE id = $1`, id, data)
		}
		set(time.Now().Add(time.Hour))
		if got := b.user(); got != "alice" {
			t.Errorf("before the deadline: user %q", got)
		}
		set(time.Now().Add(-time.Second))
		if got := b.user(); got != "" {
			t.Errorf("after the deadline: user %q", got)
		}
		if _, found, err := a.store.Find(b.token()); found || err != nil {
			t.Errorf("after the deadline: found %t, %v", found, err)
		}
	})
}

func TestInfiniteExpiryIsNotSwept(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	alice, bob := a.browser(t), a.browser(t)
	alice.must("/login", "user", "alice")
	bob.must("/login", "user", "bob")
	setTimes(t, a, pgstore.IDOf(alice.token()), "infinity", "-infinity")
	setTimes(t, a, pgstore.IDOf(bob.token()), "-infinity", "infinity")
	res, err := cleanup.Sweep(t.Context(), a.pool, cleanup.Options{})
	if err != nil {
		t.Errorf("%+v, %v", res, err)
	}
	if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions`); n != 1 || live(t, a.pool, "alice") != 1 {
		t.Errorf("%d rows are left", n)
	}
	checkIndex(t, a.pool, a.store, "alice", "bob")
}
