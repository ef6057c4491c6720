package pgstore_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// stored is all that the tables hold of a session.
func stored(t testing.TB, pool *pgxpool.Pool, id string) string {
	t.Helper()
	return pgtest.Query[string](t, pool, `SELECT coalesce((SELECT s::text FROM scs_sessions s WHERE id = $1::uuid), 'none')
		|| coalesce((SELECT string_agg(u::text, ' ' ORDER BY user_id) FROM scs_user_sessions u WHERE id = $1::uuid), '')`, id)
}

// putAndCommit is what a callback of Iterate does.
func (a *app) putAndCommit(ctx context.Context, key, value string) error {
	a.sm.Put(ctx, key, value)
	_, _, err := a.sm.Commit(ctx)
	return err
}

func TestIterateCommitIsStaleOnceTheSessionHasChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, *app, *browser){
		"written":               func(_ *testing.T, _ *app, b *browser) { b.must("/put", "key", "k", "value", "v") },
		"renewed":               func(_ *testing.T, _ *app, b *browser) { b.must("/renew") },
		"signed in again":       func(_ *testing.T, _ *app, b *browser) { b.must("/login", "user", "alice") },
		"signed in as another":  func(_ *testing.T, _ *app, b *browser) { b.must("/login", "user", "bob") },
		"given to another user": func(_ *testing.T, _ *app, b *browser) { b.must("/put", "key", userKey, "value", "bob") },
		"left by its user":      func(_ *testing.T, _ *app, b *browser) { b.must("/remove", "key", userKey) },
		"given away and back": func(_ *testing.T, _ *app, b *browser) {
			b.must("/put", "key", userKey, "value", "bob")
			b.must("/put", "key", userKey, "value", "alice")
		},
		"signed out": func(_ *testing.T, _ *app, b *browser) { b.must("/logout") },
		"evicted":    func(t *testing.T, a *app, _ *browser) { a.browser(t).must("/login", "user", "alice") },
		"timed out": func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
		},
		"swept": func(t *testing.T, a *app, _ *browser) { pgtest.Exec(t, a.pool, `DELETE FROM scs_sessions`) },
		"timed out, and back in": func(t *testing.T, a *app, _ *browser) {
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now()`)
			a.browser(t).must("/login", "user", "alice")
		},
		"all of its user revoked": func(t *testing.T, a *app, _ *browser) {
			if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
		"its user forgotten": func(t *testing.T, a *app, _ *browser) {
			if n, err := a.store.Forget(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
				b := a.browser(t)
				b.must("/login", "user", "alice")
				id, before := pgstore.IDOf(b.token()), ""
				var writes int64
				err := a.sm.Iterate(t.Context(), func(ctx context.Context) error {
					change(t, a, b)
					before, writes = stored(t, a.pool, id), a.store.Stat().Writes
					return a.putAndCommit(ctx, "notice", "hello")
				})
				if !errors.Is(err, pgstore.ErrStale) {
					t.Errorf("error %v, want ErrStale", err)
				}
				if after := stored(t, a.pool, id); after != before || a.store.Stat().Writes != writes {
					t.Errorf("it wrote: %s, before %s", after, before)
				}
				checkIndex(t, a.pool, a.store, "alice", "bob")
			})
		})
	}
}

func TestIterateCommitWorksOncePerCallback(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		id := pgstore.IDOf(b.token())
		for _, key := range []string{"first", "second"} { // the next Iterate reads anew
			before := ""
			err := a.sm.Iterate(t.Context(), func(ctx context.Context) error {
				if err := a.putAndCommit(ctx, key, "yes"); err != nil {
					return err
				}
				before = stored(t, a.pool, id)
				return a.putAndCommit(ctx, "again", "yes")
			})
			if !errors.Is(err, pgstore.ErrStale) || before == "" || stored(t, a.pool, id) != before {
				t.Errorf("%s: error %v; %s, before the second commit %s", key, err, stored(t, a.pool, id), before)
			}
		}
		if got := b.keys(); got != "first,second,userID" {
			t.Errorf("it holds %s", got)
		}
		if n := pgtest.Query[int](t, a.pool, `SELECT version FROM scs_sessions WHERE id = $1`, id); n < 3 || a.tracked && n != 3 {
			t.Errorf("version %d", n)
		}
	})
}

func TestIterateCommitDoesNotExtendTheSession(t *testing.T) {
	t.Parallel()
	const times = `SELECT (expiry, last_seen_at)::text FROM scs_sessions`
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		age(t, a.pool, "5 minutes")
		before := pgtest.Query[string](t, a.pool, times)
		commit := func(ctx context.Context) error { return a.putAndCommit(ctx, "notice", "hello") }
		if err := a.sm.Iterate(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
		if after := pgtest.Query[string](t, a.pool, times); after != before {
			t.Errorf("expiry and last seen %s, before %s", after, before)
		}
		if got := b.keys(); got != "notice,userID" {
			t.Errorf("it holds %s", got)
		}
	})
}

// A touch is no change: it is kept, and so is the commit.
func TestIterateCommitKeepsATouchBesideIt(t *testing.T) {
	t.Parallel()
	const times = `SELECT (expiry, last_seen_at)::text FROM scs_sessions`
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	age(t, a.pool, "5 minutes")
	aged, touched := pgtest.Query[string](t, a.pool, times), ""
	if err := a.sm.Iterate(t.Context(), func(ctx context.Context) error {
		b.must("/me")
		touched = pgtest.Query[string](t, a.pool, times)
		return a.putAndCommit(ctx, "notice", "hello")
	}); err != nil {
		t.Error(err)
	}
	if after := pgtest.Query[string](t, a.pool, times); after != touched || touched == aged {
		t.Errorf("expiry and last seen: aged %s, touched %s, then %s", aged, touched, after)
	}
	if got := b.keys(); got != "notice,userID" {
		t.Errorf("it holds %s", got)
	}
}

// The operator's own session is among those that its request changes.
func TestIterateMeetsTheSessionOfItsOwnRequest(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.mux.HandleFunc("/notify", func(_ http.ResponseWriter, r *http.Request) {
		a.sm.Put(r.Context(), "own", "yes")
		if err := a.sm.Iterate(r.Context(), func(ctx context.Context) error { return a.putAndCommit(ctx, "notice", "hello") }); err != nil {
			t.Error(err)
		}
	})
	operator, other := a.browser(t), a.browser(t)
	operator.must("/login", "user", "alice")
	other.must("/login", "user", "bob")
	operator.must("/notify")
	if got := operator.keys(); got != "notice,own,userID" {
		t.Errorf("the operator's session holds %s", got)
	}
	if got := other.keys(); got != "notice,userID" {
		t.Errorf("the other one holds %s", got)
	}
	checkIndex(t, a.pool, a.store, "alice", "bob")
}

func TestIterateChangesNobodysUser(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(context.Context, *app) error{
		"another":   func(ctx context.Context, a *app) error { return a.putAndCommit(ctx, userKey, "mallory") },
		"the first": func(ctx context.Context, a *app) error { return a.putAndCommit(ctx, userKey, "alice") },
		"none": func(ctx context.Context, a *app) error {
			a.sm.Remove(ctx, userKey)
			return a.putAndCommit(ctx, "notice", "hello")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
				b := a.browser(t)
				if name == "the first" {
					b.must("/put", "key", "cart", "value", "1")
				} else {
					b.must("/login", "user", "alice")
				}
				id := pgstore.IDOf(b.token())
				before := stored(t, a.pool, id)
				err := a.sm.Iterate(t.Context(), func(ctx context.Context) error { return change(ctx, a) })
				if !errors.Is(err, pgstore.ErrStale) || stored(t, a.pool, id) != before {
					t.Errorf("error %v, %s, before %s", err, stored(t, a.pool, id), before)
				}
				checkIndex(t, a.pool, a.store, "alice", "mallory")
			})
		})
	}
}

func TestIterateRenewalIsAnError(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		renew := func(ctx context.Context) {
			if err := a.sm.Iterate(ctx, func(ctx context.Context) error {
				if err := a.sm.RenewToken(ctx); err == nil {
					t.Error("it was renewed")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		a.mux.HandleFunc("/renew-all", func(_ http.ResponseWriter, r *http.Request) {
			renew(r.Context())
			renew(context.Background())
		})
		alice, bob, operator := a.browser(t), a.browser(t), a.browser(t)
		alice.must("/login", "user", "alice")
		bob.must("/put", "key", "cart", "value", "1")
		ids := []string{pgstore.IDOf(alice.token()), pgstore.IDOf(bob.token())}
		before := stored(t, a.pool, ids[0]) + stored(t, a.pool, ids[1])
		operator.must("/renew-all")
		if after := stored(t, a.pool, ids[0]) + stored(t, a.pool, ids[1]); after != before {
			t.Errorf("%s, before %s", after, before)
		}
	})
}

func TestIterateDestroysWhatHasChangedSince(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		b := a.browser(t)
		b.must("/login", "user", "alice")
		if err := a.sm.Iterate(t.Context(), func(ctx context.Context) error {
			b.must("/put", "key", "k", "value", "v")
			return a.sm.Destroy(ctx)
		}); err != nil {
			t.Error(err)
		}
		if n := live(t, a.pool, "alice"); n != 0 || b.user() != "" {
			t.Errorf("%d sessions live, user %q", n, b.user())
		}
		checkIndex(t, a.pool, a.store, "alice")
	})
}

// One that began before RevokeAll, and commits after it.
func TestIterateSignsNobodyInAfterRevokeAll(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{})
		browsers := []*browser{a.browser(t), a.browser(t), a.browser(t)}
		for _, b := range browsers {
			b.must("/login", "user", "alice")
		}
		seen, stale := 0, 0
		if err := a.sm.Iterate(t.Context(), func(ctx context.Context) error {
			if seen++; seen == 1 {
				if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 3 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
			err := a.putAndCommit(ctx, "notice", "hello")
			if errors.Is(err, pgstore.ErrStale) {
				stale++
				return nil
			}
			return err
		}); err != nil || seen != 3 || stale != 3 {
			t.Errorf("%d seen, %d stale, %v", seen, stale, err)
		}
		if n := live(t, a.pool, "alice"); n != 0 {
			t.Errorf("%d sessions live", n)
		}
	})
}
