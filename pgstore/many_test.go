package pgstore_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// many is how many sessions a user has whom no single transaction should have to deal with.
const many = 8_000 // pages are of a thousand

// insertMany gives alice so many sessions. What was signed in last was not seen last, and
// neither is in the order of the ids.
func insertMany(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	data, err := pgstore.Codec{UserKey: userKey}.Encode(time.Now().Add(time.Hour), map[string]any{userKey: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, pool, `INSERT INTO scs_users (user_id) VALUES ('alice') ON CONFLICT DO NOTHING`)
	pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions (user_id, id, created_at)
		SELECT 'alice', md5(n::text)::uuid, now() - interval '1 day' - n * interval '1 second' FROM generate_series(1, $1) n`, many)
	pgtest.Exec(t, pool, `INSERT INTO scs_sessions (id, user_id, data, expiry, last_seen_at)
		SELECT md5(n::text)::uuid, 'alice', $2, now() + interval '1 hour', now() - interval '1 day' + n * interval '1 second' FROM generate_series(1, $1) n`, many, data)
	pgtest.Exec(t, pool, `ANALYZE`)
}

// checkManyIndex is checkIndex with time enough for so long an index.
func checkManyIndex(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	checkIndex(t, pool, newStore(t, pool, pgstore.Config{Timeout: time.Minute}), "alice")
}

// slowDown makes each UPDATE of sessions last so long, so that all pages together take longer
// than Config.Timeout.
func slowDown(t *testing.T, pool *pgxpool.Pool, by string) {
	t.Helper()
	pgtest.NotOnCitus(t, "it refuses triggers on distributed tables")
	pgtest.Exec(t, pool, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(`+by+`); RETURN NULL; END $$`)
	pgtest.Exec(t, pool, `CREATE TRIGGER slow AFTER UPDATE ON scs_sessions FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
}

// beforePage calls what it is told to before a page of a user's index is read: the pages
// before it are done, and no lock is held.
type beforePage struct {
	recorder
	page atomic.Int32
	call func(page int)
}

func (p *beforePage) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		if strings.Contains(q.SQL, "SELECT id, created_at FROM scs_user_sessions WHERE user_id = $1 AND id > $2") {
			p.call(int(p.page.Add(1)))
		}
	}
	return ctx
}

func TestRevocationsOfManyGetThrough(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		revoke func(ctx context.Context, s *pgstore.Store, keep string) (int, error)
		kept   int
	}{
		"all": {func(ctx context.Context, s *pgstore.Store, _ string) (int, error) { return s.RevokeAll(ctx, "alice") }, 0},
		"others": {func(ctx context.Context, s *pgstore.Store, keep string) (int, error) {
			return s.RevokeOthers(ctx, "alice", keep)
		}, 1},
		"forget": {func(ctx context.Context, s *pgstore.Store, _ string) (int, error) { return s.Forget(ctx, "alice") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			insertMany(t, pool)
			slowDown(t, pool, "0.1") // three times for each page: more than the timeout
			a := newApp(t, pool, pgstore.Config{Timeout: 2 * time.Second})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			began := time.Now()
			n, err := tt.revoke(t.Context(), a.store, b.token())
			if err != nil || n != many+1-tt.kept || live(t, pool, "alice") != tt.kept {
				t.Errorf("%d ended, %v, %d live", n, err, live(t, pool, "alice"))
			}
			if took := time.Since(began); took < 2*time.Second {
				t.Errorf("it took %v: no longer than one operation may", took)
			}
			if n := a.store.Stat().Ended; n != int64(many+1-tt.kept) {
				t.Errorf("%d counted", n)
			}
			if want := map[int]string{1: "alice"}[tt.kept]; b.user() != want {
				t.Errorf("user %q, want %q", b.user(), want)
			}
			checkManyIndex(t, pool)
		})
	}
}

// One page fails, after others are done: the fence stands, and a retry does the rest.
func TestRevocationsOfManyGoOnAfterAFailure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		revoke func(ctx context.Context, s *pgstore.Store, keep string) (int, error)
		fence  bool
		kept   int
	}{
		"all": {func(ctx context.Context, s *pgstore.Store, _ string) (int, error) { return s.RevokeAll(ctx, "alice") }, true, 0},
		"others": {func(ctx context.Context, s *pgstore.Store, keep string) (int, error) {
			return s.RevokeOthers(ctx, "alice", keep)
		}, true, 1},
		"forget": {func(ctx context.Context, s *pgstore.Store, _ string) (int, error) { return s.Forget(ctx, "alice") }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := pgtest.Schema(t)
			admin := pgtest.PoolIn(t, schema)
			migrate(t, admin)
			insertMany(t, admin)
			a := newApp(t, pgtest.PoolIn(t, schema), pgstore.Config{Timeout: 3 * time.Second})
			b, early := a.browser(t), a.browser(t)
			b.must("/login", "user", "alice")
			finish := early.hold("after", "signin", "user", "alice")
			tx, err := admin.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
			id := pgtest.Query[string](t, admin, `SELECT id::text FROM scs_sessions ORDER BY id OFFSET 3500 LIMIT 1`)
			if _, err := tx.Exec(t.Context(), `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE`, id); err != nil {
				t.Fatal(err)
			}
			first, err := tt.revoke(t.Context(), a.store, b.token())
			if !errors.Is(err, context.DeadlineExceeded) || first < 2_000 || first > 4_000 || live(t, admin, "alice") != many+1-first {
				t.Errorf("%d ended, %v, %d live", first, err, live(t, admin, "alice"))
			}
			status, body := finish()
			if tt.fence && (status != http.StatusConflict || body != pgstore.ErrEnded.Error()) {
				t.Errorf("a sign-in that began before the fence: %d %s", status, body)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := tt.revoke(t.Context(), a.store, b.token()); err != nil || live(t, admin, "alice") != tt.kept {
				t.Errorf("%v, %d live", err, live(t, admin, "alice"))
			}
			checkManyIndex(t, admin)
		})
	}
}

// betweenPages is an app on a user with many sessions, and another one for what goes on
// between the pages.
func betweenPages(t *testing.T, newApp newAppFunc) (p *beforePage, a, other *app) {
	t.Helper()
	p = &beforePage{}
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema)
	migrate(t, pool)
	insertMany(t, pool)
	option := func(c *pgxpool.Config) { c.ConnConfig.Tracer = p }
	return p, newApp(t, pgtest.PoolIn(t, schema, option), pgstore.Config{}), newApp(t, pool, pgstore.Config{})
}

func TestRevokeAllOfManySparesWhoSignsInAfterTheFence(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		p, a, other := betweenPages(t, newApp)
		var late []*browser
		p.call = func(page int) {
			if page%2 == 0 {
				late = append(late, other.browser(t))
				late[len(late)-1].must("/login", "user", "alice")
			}
		}
		n, err := a.store.RevokeAll(t.Context(), "alice")
		if n != many || err != nil || len(late) < 3 || live(t, other.pool, "alice") != len(late) {
			t.Errorf("%d ended, %v; %d have signed in, %d live", n, err, len(late), live(t, other.pool, "alice"))
		}
		for _, b := range late {
			if b.user() != "alice" {
				t.Error("a later sign-in was revoked")
			}
		}
		checkIndex(t, other.pool, a.store, "alice")
	})
}

func TestRevokeOthersOfManySparesTheKeptOneThroughRenewals(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		p, a, other := betweenPages(t, newApp)
		kept, renewals := other.browser(t), 0
		kept.must("/login", "user", "alice")
		p.call = func(page int) {
			if page%2 == 0 {
				kept.must("/renew")
				renewals++
			}
		}
		n, err := a.store.RevokeOthers(t.Context(), "alice", kept.token())
		if n != many || err != nil || renewals < 3 || live(t, other.pool, "alice") != 1 || kept.user() != "alice" {
			t.Errorf("%d ended, %v; %d renewals, %d live, user %q", n, err, renewals, live(t, other.pool, "alice"), kept.user())
		}
		checkIndex(t, other.pool, a.store, "alice")
	})
}

// A session that is renewed between two pages may move to one that is done already.
func TestRevokeAllOfManyFindsWhatIsRenewedBetweenPages(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		p, a, other := betweenPages(t, newApp)
		b := other.browser(t)
		b.must("/login", "user", "alice")
		held := b.hold("after", "renew") // it began before the fence
		finish := sync.OnceFunc(func() { held() })
		defer finish()
		p.call = func(page int) {
			if page == 2 && other.tracked {
				finish()
			}
		}
		if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if !other.tracked { // without Track, a renewal is a sign-in, and passes
			finish()
			return
		}
		if n := live(t, other.pool, "alice"); n != 0 || b.user() != "" {
			t.Errorf("%d live, user %q", n, b.user())
		}
		checkIndex(t, other.pool, a.store, "alice")
	})
}

func TestLimitedSignInOfManyGetsThrough(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "its own SQL joins what is distributed apart")
	const limit = 3
	newest := `SELECT count(*) FROM scs_sessions s JOIN scs_user_sessions u USING (user_id, id)
		WHERE end_reason IS NULL AND id IN (SELECT id FROM (SELECT md5(n::text)::uuid AS id FROM unnest($1::int[]) n) x)`
	for name, tt := range map[string]struct {
		policy pgstore.LimitPolicy
		stay   []int // of those that insertMany has made
	}{
		"evict oldest":       {pgstore.EvictOldest, []int{1, 2}},
		"evict least recent": {pgstore.EvictLeastRecent, []int{many, many - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				pool := migrated(t)
				insertMany(t, pool)
				slowDown(t, pool, "0.2") // 8 times that is more than the timeout
				a := newApp(t, pool, pgstore.Config{UserLimit: limit, LimitPolicy: tt.policy, Timeout: 1500 * time.Millisecond})
				b := a.browser(t)
				attempts, left := 0, many
				for {
					attempts++
					status, body := b.get("/login", "user", "alice")
					if status == http.StatusOK {
						break
					}
					if n := live(t, pool, "alice"); !strings.Contains(body, "Config.Timeout") || n >= left || attempts == 30 {
						t.Fatalf("%d %s; %d live, before %d", status, body, n, left)
					} else {
						left = n
					}
				}
				if attempts == 1 {
					t.Error("one attempt was enough")
				}
				if n := live(t, pool, "alice"); n != limit || b.user() != "alice" {
					t.Errorf("%d live, user %q", n, b.user())
				}
				// One attempt may have signed in too late for its answer: that session then has one's place.
				if n := pgtest.Query[int](t, pool, newest, tt.stay); n < len(tt.stay)-1 {
					t.Errorf("%d of those that should stay do", n)
				}
				// Each attempt but the last may have ended a page too late for its answer to count.
				if n := int(a.store.Stat().Evictions); n < many-limit-1000*(attempts-1) || n > many-limit+attempts {
					t.Errorf("%d evictions", n)
				}
				checkManyIndex(t, pool)
			})
		})
	}
}

// Under Reject none is evicted; those that are over must not refuse anybody.
func TestRejectOfManyCountsTheLiveOnes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sql    string
		status int
	}{
		"live":          {`SELECT 1`, http.StatusConflict},
		"timed out":     {`UPDATE scs_sessions SET expiry = now() - interval '1 hour'`, http.StatusOK},
		"revoked":       {`UPDATE scs_sessions SET end_reason = 'revoked', data = ''`, http.StatusOK},
		"swept":         {`DELETE FROM scs_sessions`, http.StatusOK},
		"others'":       {`UPDATE scs_sessions SET user_id = 'bob'`, http.StatusOK},
		"two live ones": {`UPDATE scs_sessions SET expiry = now() WHERE id > (SELECT id FROM scs_sessions ORDER BY id OFFSET 1 LIMIT 1)`, http.StatusOK},
		"three":         {`UPDATE scs_sessions SET expiry = now() WHERE id > (SELECT id FROM scs_sessions ORDER BY id OFFSET 2 LIMIT 1)`, http.StatusConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			insertMany(t, pool)
			pgtest.Exec(t, pool, tt.sql)
			before := live(t, pool, "alice")
			a := newApp(t, pool, pgstore.Config{UserLimit: 3, LimitPolicy: pgstore.Reject, Timeout: 20 * time.Second})
			b := a.browser(t)
			status, body := b.get("/login", "user", "alice")
			if status != tt.status || status == http.StatusConflict && body != pgstore.ErrUserLimit.Error() {
				t.Errorf("%d %s", status, body)
			}
			want := before
			if tt.status == http.StatusOK {
				want++
			}
			if n := live(t, pool, "alice"); n != want {
				t.Errorf("%d live, want %d", n, want)
			}
			if n, err := a.store.Count(t.Context(), "alice"); err != nil || n != want {
				t.Errorf("%d counted, %v", n, err)
			}
		})
	}
}
