package pgstore_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// lockedBuffer is a log that requests write to at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTrackInsideLoadAndSaveIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	a := newPlainApp(t, migrated(t), pgstore.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	a.Config.Handler = a.sm.LoadAndSave(a.store.Track(a.mux)) // the wrong way round
	b := a.browser(t)
	b.must("/put", "key", "k", "value", "v")
	for range 3 {
		if got := b.must("/me"); !strings.Contains(got, "keys=k") {
			t.Error(got) // it works all the same, as a plain store does
		}
	}
	if n := strings.Count(log.String(), "store.Track(sm.LoadAndSave(mux))"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if a.store.Stat().Untracked == 0 {
		t.Error("nothing was counted")
	}
}

func TestTrackTwiceIsHarmless(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.Config.Handler = a.store.Track(a.Config.Handler)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	b.must("/renew")
	if b.user() != "alice" || a.store.Stat().Untracked != 0 {
		t.Errorf("%q, %d untracked", b.user(), a.store.Stat().Untracked)
	}
}

// Two managers with a store each around one handler do not see each other.
func TestTwoManagersAroundOneHandlerDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
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

// A goroutine of the request may go on while Track touches its sessions.
func TestRenewalIsSafeWhileTrackTouches(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "who waits for a lock waits on a worker, under another name")
	schema := pgtest.Schema(t)
	observer := pgtest.PoolIn(t, schema)
	migrate(t, observer)
	a := newApp(t, pgtest.PoolIn(t, schema, named(schema)), pgstore.Config{})
	a.sm.IdleTimeout = 0
	second := newManager(a.store) // to have two sessions in one request
	second.IdleTimeout = 0
	one, two := a.browser(t), a.browser(t)
	one.must("/login", "user", "bob")
	two.must("/login", "user", "alice")
	pgtest.Exec(t, observer, `UPDATE scs_sessions SET last_seen_at = now() - interval '1 hour' WHERE user_id = 'bob'`)
	tx, err := observer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, pgstore.IDOf(one.token())); err != nil {
		t.Fatal(err)
	}
	loaded := make(chan context.Context, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		under(a.store, func(ctx context.Context) {
			if _, err := a.sm.Load(ctx, one.token()); err != nil {
				t.Error(err)
			}
			goesOn, err := second.Load(ctx, two.token())
			if err != nil {
				t.Error(err)
			}
			loaded <- goesOn
		})
	})
	goesOn := <-loaded
	pgtest.Eventually(t, "the touch waits", func() bool {
		return pgtest.Query[int](t, observer, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, schema) == 1
	})
	if err := second.RenewToken(goesOn); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(two.token())); err != nil {
		t.Error(err)
	}
	if _, _, err := second.Commit(goesOn); err != nil {
		t.Error(err)
	}
	if n := live(t, observer, "alice"); n != 0 {
		t.Errorf("%d live sessions after the revocation", n)
	}
}
