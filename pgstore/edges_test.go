package pgstore_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// A visitor's session may hold what reads as a user's id, such as the name last typed.
func TestFenceOfLongAgoDoesNotMistakeAVisitorsValueForAUser(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.browser(t).must("/login", "user", "alice")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	b := a.browser(t)
	b.do(set("last_username", "alice"))
	pgtest.Eventually(t, "a sign-in without SignIn", func() bool { // not within the coarseness of the clock
		b.do(renew, set(userKey, "alice"))
		return b.user() == "alice"
	})
}

// A session is renewed between the moment at which a sign-in picks it to make room and the
// moment at which it ends it: it is evicted all the same.
func TestEvictionThatCrossesARenewalEndsIt(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]bool{"then forgotten": true, "then renewed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
			b, c := a.browser(t), a.browser(t)
			b.must("/login", "user", "alice")
			tx, err := a.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), `SELECT 1 FROM scs_sessions WHERE id = $1 FOR UPDATE`, pgstore.IDOf(b.token())); err != nil {
				t.Fatal(err)
			}
			waiting := func(n int) {
				pgtest.Eventually(t, "they wait for the row", func() bool {
					return pgtest.Query[int](t, a.pool, `SELECT count(*) FROM pg_locks WHERE NOT granted
						AND pid IN (SELECT pid FROM pg_locks WHERE relation = 'scs_sessions'::regclass)`) >= n
				})
			}
			r := b.begin(renew, wait)
			waiting(1)
			x := c.begin(signIn("alice"))
			waiting(2)
			if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
			r.pause()
			x.token()
			if forget {
				if _, err := a.store.Forget(t.Context(), "alice"); err != nil {
					t.Fatal(err)
				}
			}
			r.finish()
			if n := live(t, a.pool, "alice"); forget && n != 0 {
				t.Errorf("%d live sessions of a deleted account", n)
			}
			if !forget && c.user() != "alice" {
				t.Error("the later sign-in was evicted by the session that it had evicted")
			}
		})
	}
}

func TestLimitMayBeLargerThanAPage(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	data, err := pgstore.Codec{UserKey: userKey}.Encode(time.Now().Add(time.Hour), map[string]any{userKey: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions (user_id, id, created_at)
		SELECT 'alice', md5(n::text)::uuid, now() - n * interval '1 second' FROM generate_series(1, 1001) n`)
	pgtest.Exec(t, pool, `INSERT INTO scs_sessions (id, user_id, data, expiry, last_seen_at)
		SELECT md5(n::text)::uuid, 'alice', $1, now() + interval '1 hour', now() FROM generate_series(1, 1001) n`, data)
	a := newApp(t, pool, pgstore.Config{UserLimit: 5000})
	a.browser(t).must("/login", "user", "alice")
	if n := live(t, pool, "alice"); n != 1002 {
		t.Errorf("%d live", n)
	}
}

func TestSignInThatAFenceRefusesKeepsTheVisitorsCart(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.do(put("cart"))
	s := b.start(wait, func(s *script, r *http.Request) error {
		if err := signIn("alice")(s, r); err == nil {
			t.Error("signed in")
		}
		return nil
	})
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	s.finish()
	a.expect(t, "the visitor's", b.token(), "nobody: cart")
}

func TestStatusOfFollowsALaterFind(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	under(a.store, func(ctx context.Context) {
		find := func(left string) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() + $1::text::interval`, left)
			if _, ok, err := a.store.FindCtx(ctx, b.token()); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		find("10 minutes")
		find("1 hour") // another request has extended it
		if st := a.store.StatusOf(ctx); st.State != pgstore.Active || st.Remaining < 50*time.Minute {
			t.Errorf("%v, %s left", st.State, st.Remaining)
		}
	})
}

// A handler commits itself, and LoadAndSave again: the cookie is extended as the row is.
func TestPersistentCookieIsExtendedByACommitInTheHandler(t *testing.T) {
	t.Parallel()
	overHTTP(t, func(t *testing.T, a *app) {
		a.sm.Cookie.Persist = true
		a.mux.HandleFunc("/commit", func(_ http.ResponseWriter, r *http.Request) {
			a.sm.Put(r.Context(), "k", time.Now().String())
			if _, _, err := a.sm.Commit(r.Context()); err != nil {
				t.Error(err)
			}
		})
		b := a.tab(t)
		b.must("/login", "user", "alice")
		age(t, a.pool, "20 minutes")
		c := a.session(b.answer(http.MethodGet, "/commit"))
		if left := time.Until(rowOf(t, a.pool, b.token()).Expiry); left > 29*time.Minute && c == nil {
			t.Errorf("the row has %s left, and no cookie was sent", left)
		}
	})
}

// A sign-out comes after a sign-in in another tab has replaced its session.
func TestLateSignOutLeavesTheCookieOfASignInAlone(t *testing.T) {
	t.Parallel()
	commit := func(s *script, r *http.Request) error { _, _, err := s.app.sm.Commit(r.Context()); return err }
	for name, late := range map[string][]action{
		"signs out":                       {wait, destroy},
		"signs out, and leaves a message": {wait, destroy, put("flash")},
		"has renewed before":              {wait, renew, commit, wait, destroy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			s, next := b.start(late...), b.start(wait, signIn("alice"))
			if len(late) == 5 {
				s.goOn()
			}
			next.finish()
			s.finish()
			if b.user() != "alice" {
				t.Errorf("user %q; %d live", b.user(), live(t, a.pool, "alice"))
			}
		})
	}
}

// A request that revokes its own session may sign in again, but only by SignIn: to renew the
// token, before or after, is not enough.
func TestRevokeAllEndsTheSessionThatItsOwnRequestRenews(t *testing.T) {
	t.Parallel()
	revokeAll := func(s *script, r *http.Request) error {
		_, err := s.app.store.RevokeAll(r.Context(), "alice")
		return err
	}
	for name, steps := range map[string][]action{
		"revokes": {revokeAll}, "revokes, renews": {revokeAll, renew}, "renews, revokes": {renew, revokeAll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			b.do(steps...)
			if n := live(t, a.pool, "alice"); n != 0 || b.user() != "" {
				t.Errorf("%d live, %q", n, b.user())
			}
		})
	}
}

func TestNoTouchRenewalDoesNotExtend(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	age(t, a.pool, "20 minutes")
	b.do(func(s *script, r *http.Request) error {
		pgstore.NoTouch(r.Context())
		return s.app.sm.RenewToken(r.Context())
	})
	if left := time.Until(rowOf(t, a.pool, b.token()).Expiry); left > 11*time.Minute {
		t.Errorf("%s left", left)
	}
}
