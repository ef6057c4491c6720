package pgstore_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// settling is an app for which part of what others have committed is not visible at first, as
// on Citus, where a commit becomes visible shard by shard.
type settling struct {
	*app
	other *app // on the same tables
	gate  pgtest.Gate
}

func newSettling(t *testing.T, cfg pgstore.Config) *settling {
	t.Helper()
	s := &settling{}
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema)
	migrate(t, pool)
	pgtest.Exec(t, pool, `CREATE TABLE hidden (LIKE scs_sessions)`)
	s.app = newApp(t, pgtest.PoolIn(t, schema, s.gate.Option()), cfg)
	s.other = newApp(t, pool, pgstore.Config{})
	return s
}

// hide hides the session, or that it is its user's, until a statement with a given text comes
// for the nth time, as it has not been found before, or until settle is called.
func (s *settling) hide(t *testing.T, b *browser, how, text string, nth int) (settle func()) {
	t.Helper()
	id := pgstore.IDOf(b.token())
	pgtest.Exec(t, s.other.pool, `INSERT INTO hidden SELECT * FROM scs_sessions WHERE id = $1`, id)
	pgtest.Exec(t, s.other.pool, how+` WHERE id = $1`, id)
	settle = sync.OnceFunc(func() {
		pgtest.Exec(t, s.other.pool, `DELETE FROM scs_sessions WHERE id = $1`, id)
		pgtest.Exec(t, s.other.pool, `INSERT INTO scs_sessions (id, user_id, data, version, expiry, last_seen_at, end_reason)
			SELECT id, user_id, data, version, expiry, last_seen_at, end_reason FROM hidden`)
	})
	seen := 0
	s.gate.Hook(func(trip pgtest.Trip) {
		if strings.Contains(strings.Join(trip.SQL, ";"), text) {
			if seen++; seen == nth {
				settle()
			}
		}
	})
	return settle
}

const (
	absent    = `DELETE FROM scs_sessions`
	anonymous = `UPDATE scs_sessions SET user_id = NULL` // the user has signed in in place
	byUser    = "SELECT id, created_at FROM scs_user_sessions"
)

func TestSessionThatIsNotVisibleYetIsEvicted(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]string{"absent": absent, "another's": anonymous} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSettling(t, pgstore.Config{UserLimit: 1})
			first, second := s.other.browser(t), s.browser(t)
			first.must("/login", "user", "alice")
			settle := s.hide(t, first, how, byUser, 2)
			second.must("/login", "user", "alice")
			settle()
			if n := live(t, s.pool, "alice"); n != 1 || first.user() != "" || second.user() != "alice" {
				t.Errorf("%d live, first %q, second %q", n, first.user(), second.user())
			}
			checkIndex(t, s.pool, s.store, "alice")
		})
	}
}

func TestSessionThatIsNotVisibleYetIsRevoked(t *testing.T) {
	t.Parallel()
	for _, how := range []string{absent, anonymous} {
		for name, revoke := range map[string]func(t *testing.T, s *settling, kept *browser) (int, error){
			"all": func(t *testing.T, s *settling, _ *browser) (int, error) {
				return s.store.RevokeAll(t.Context(), "alice")
			},
			"others": func(t *testing.T, s *settling, kept *browser) (int, error) {
				return s.store.RevokeOthers(t.Context(), "alice", kept.token())
			},
			"forget": func(t *testing.T, s *settling, _ *browser) (int, error) { return s.store.Forget(t.Context(), "alice") },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				s := newSettling(t, pgstore.Config{})
				b, kept := s.other.browser(t), s.other.browser(t)
				b.must("/login", "user", "alice")
				kept.must("/login", "user", "alice")
				settle := s.hide(t, b, how, byUser, 2)
				left := 0
				if name == "others" {
					left = 1
				}
				n, err := revoke(t, s, kept)
				if settle(); err != nil || n != 2-left || live(t, s.pool, "alice") != left || b.user() != "" {
					t.Errorf("%d ended, %v, %d live, user %q", n, err, live(t, s.pool, "alice"), b.user())
				}
				checkIndex(t, s.pool, s.store, "alice")
			})
		}
	}
}

// Another request has renewed the session: the link is visible, and what it leads to is not.
func TestSuccessorThatIsNotVisibleYetIsFound(t *testing.T) {
	t.Parallel()
	const ending = "end_reason = $2, data = ''"
	for name, tt := range map[string]struct {
		text string
		do   func(t *testing.T, s *settling, old *browser, id string, finish func() (int, string))
		live int
	}{
		"revoked": {ending, func(t *testing.T, s *settling, _ *browser, id string, finish func() (int, string)) {
			if ended, err := s.store.Revoke(t.Context(), "alice", id); err != nil || !ended {
				t.Errorf("%t, %v", ended, err)
			}
			finish()
		}, 0},
		"renewed": {"scs_sessions WHERE id = $1 FOR UPDATE", func(t *testing.T, _ *settling, old *browser, _ string, finish func() (int, string)) {
			if status, body := finish(); status != http.StatusOK || old.user() != "alice" {
				t.Errorf("%d %s, user %q", status, body, old.user())
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSettling(t, pgstore.Config{})
			old := s.browser(t)
			old.must("/login", "user", "alice")
			id := pgstore.IDOf(old.token())
			finish := old.hold("after", "renew")
			successor := old.on(s.other)
			successor.must("/renew")
			settle := s.hide(t, successor, absent, tt.text, 3) // the first is for the row itself
			tt.do(t, s, old, id, finish)
			settle()
			if n := live(t, s.pool, "alice"); n != tt.live {
				t.Errorf("%d live", n)
			}
			checkIndex(t, s.pool, s.store, "alice")
		})
	}
}

// Rows that somebody has deleted by hand are looked for a few times, and only once.
func TestSessionThatIsGoneForGoodIsLookedForOnce(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, a *app){
		"sign-in": func(t *testing.T, a *app) { a.browser(t).must("/login", "user", "alice") },
		"revocation": func(t *testing.T, a *app) {
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		},
	} {
		for what, tt := range map[string]struct {
			sql   string
			tries int64
		}{"gone": {`DELETE FROM scs_sessions`, 3}, "ended": {`UPDATE scs_sessions SET end_reason = 'revoked'`, 0}} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
				a.browser(t).must("/login", "user", "alice")
				pgtest.Exec(t, a.pool, tt.sql)
				for range 2 {
					do(t, a)
					if n := a.store.Stat().Retries; n != tt.tries {
						t.Errorf("%d retries, want %d", n, tt.tries)
					}
				}
				checkIndex(t, a.pool, a.store, "alice")
			})
		}
	}
}
