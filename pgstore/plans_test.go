package pgstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// recorder notes the statements that are sent, and the round trips that they take.
type recorder struct {
	mu         sync.Mutex
	statements map[string][]any
	trips      int
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.note(data.SQL, data.Args)
	r.trip()
	return ctx
}

func (*recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		r.note(q.SQL, q.Arguments)
	}
	r.trip()
	return ctx
}

func (*recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func (r *recorder) note(sql string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.statements == nil {
		r.statements = make(map[string][]any)
	}
	r.statements[sql] = args
}

func (r *recorder) trip() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trips++
}

// take returns the round trips since the last call.
func (r *recorder) take() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.trips
	r.trips = 0
	return n
}

func traced(r *recorder) pgtest.Option {
	return func(c *pgxpool.Config) { c.ConnConfig.Tracer = r }
}

func TestOperationsTakeFewRoundTrips(t *testing.T) {
	t.Parallel()
	rec := &recorder{}
	schema := pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, schema))
	pool := pgtest.PoolIn(t, schema, traced(rec))
	a := newApp(t, pool, pgstore.Config{UserLimit: 2})
	b := a.browser(t)
	check := func(what string, want int, f func()) {
		t.Helper()
		rec.take()
		f()
		if got := rec.take(); got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	// A sign-in takes two, and the answer one more: it sets the cookie if nobody has ended the session since.
	check("a new session signs in", 3, func() { b.must("/login", "user", "alice") })
	check("nothing changed", 1, func() { b.must("/me") })
	check("data written", 2, func() { b.must("/put", "key", "k", "value", "v") })                  // found, updated
	check("signed in again, at the limit", 5, func() { b.must("/login", "user", "alice") })        // found, renewed, signed in, asked
	check("a third device evicts one", 3, func() { a.browser(t).must("/login", "user", "alice") }) // signed in, asked
	check("a fourth one, too", 3, func() { b = a.browser(t); b.must("/login", "user", "alice") })  // the same
	age(t, pool, "2 minutes")
	check("touched", 2, func() { b.must("/me") })
	check("listed", 1, func() { _, _ = a.store.Sessions(t.Context(), "alice") })
	check("counted", 1, func() { _, _ = a.store.Count(t.Context(), "alice") })
	check("revoked", 1, func() { _, _ = a.store.Revoke(t.Context(), "alice", pgstore.IDOf(b.token())) })
	check("all revoked", 2, func() { _, _ = a.store.RevokeAll(t.Context(), "alice") })
	check("deleted", 1, func() { _ = a.store.Delete("token") })
}

const (
	manySessions = 1_000_000
	perUser      = 3
)

// Every statement that the store sends uses an index, at a million sessions, with
// the plan for its arguments and with the one for any.
func TestPlansUseIndexesAtAMillionSessions(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "its plans are of tasks on shards")
	rec := &recorder{}
	schema := pgtest.Schema(t)
	setup := pgtest.PoolIn(t, schema, pgtest.MaxConns(2))
	migrate(t, setup)
	pgtest.Exec(t, setup, `INSERT INTO scs_sessions (id, user_id, data, expiry)
		SELECT md5(n::text)::uuid, 'user' || n / $2::int, '\x0001000000', now() + (n % 86400) * interval '1 second' - interval '1 hour'
		FROM generate_series(1, $1::int) n`, manySessions, perUser)
	pgtest.Exec(t, setup, `INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM scs_sessions`)
	pgtest.Exec(t, setup, `INSERT INTO scs_users SELECT DISTINCT user_id FROM scs_sessions`)
	pgtest.Exec(t, setup, `VACUUM ANALYZE scs_sessions`)
	pgtest.Exec(t, setup, `VACUUM ANALYZE scs_user_sessions`)
	pgtest.Exec(t, setup, `VACUUM ANALYZE scs_users`)

	pool := pgtest.PoolIn(t, schema, traced(rec), pgtest.MaxConns(2))
	for _, limit := range []int{0, 3} {
		a := newApp(t, pool, pgstore.Config{UserLimit: limit, TouchAfter: time.Nanosecond})
		b := a.browser(t)
		b.must("/put", "key", "k", "value", "v")
		b.must("/login", "user", "user300000")
		b.must("/me")
		b.must("/put", "key", "k", "value", "w")
		b.must("/poll", "put", "x")
		finish := b.hold("after", "put")
		other := a.browser(t)
		other.setToken(b.token())
		other.must("/put", "key", "k", "value", "x")
		finish()
		b.must("/renew")
		b.must("/put", "key", userKey, "value", "user200000")
		b.must("/revoke-others")
		if _, err := a.store.Sessions(t.Context(), "user200001"); err != nil {
			t.Error(err)
		}
		if _, err := a.store.Count(t.Context(), "user200001"); err != nil {
			t.Error(err)
		}
		for _, err := range a.store.Each(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if _, err := a.store.Revoke(t.Context(), "user200000", pgstore.IDOf(b.token())); err != nil {
			t.Error(err)
		}
		if _, err := a.store.Forget(t.Context(), "user200002"); err != nil {
			t.Error(err)
		}
		o, err := a.store.Overview(t.Context())
		if err != nil || o.Live < manySessions*9/10 || o.OldestExpired.IsZero() {
			t.Errorf("%+v, %v", o, err)
		}
		b.must("/logout")
	}
	shareReads(t, pool, rec)

	seen := 0
	for sql, args := range rec.statements {
		if !strings.Contains(sql, "scs_") || strings.Contains(sql, "pg_class") || strings.Contains(sql, "count(DISTINCT") ||
			strings.Contains(sql, "UPDATE scs_sessions SET expiry = expiry -") {
			continue // Overview counts every row, or a sample; the rest is the test's own
		}
		seen++
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			checkPlan(t, setup, mode, sql, args)
		}
	}
	if seen < 20 {
		t.Errorf("only %d statements were seen", seen)
	}
}

// shareReads reads in parallel until reads have shared round trips: the tests' two
// connections do not suffice for each to go alone.
func shareReads(t *testing.T, pool *pgxpool.Pool, rec *recorder) {
	t.Helper()
	store := newStore(t, pool, pgstore.Config{MaxBatch: 64})
	pgtest.Eventually(t, "reads share round trips", func() bool {
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				if _, _, err := store.Find(fmt.Sprint("token", n)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return rec.has("ANY(ARRAY[$1, $2, $3, $4")
	})
}

// has reports whether a statement with the text was seen.
func (r *recorder) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for sql := range r.statements {
		if strings.Contains(sql, text) {
			return true
		}
	}
	return false
}

// checkPlan explains a statement, and rolls back what it did.
func checkPlan(t *testing.T, pool *pgxpool.Pool, mode, sql string, args []any) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT set_config('plan_cache_mode', $1, true)`, mode); err != nil {
		t.Fatal(err)
	}
	var text []byte
	err = tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text)
	if err != nil {
		if strings.Contains(err.Error(), "duplicate key") {
			return // an insert of a session that is there by now: nothing to scan
		}
		t.Errorf("%s: %v", sql, err)
		return
	}
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "Seq Scan") {
		t.Errorf("%s: a sequential scan:\n%s\n%s", mode, sql, text)
	}
	// Pages are of a thousand rows, and the oldest expiry is sought among those of an hour.
	if blocks := plans[0].Plan.Hit + plans[0].Plan.Read; blocks > 300 && !strings.Contains(sql, "LIMIT") && !strings.Contains(sql, "ANY($1::text[])") && !strings.Contains(sql, "min(expiry)") {
		t.Errorf("%s: %d blocks:\n%s", mode, blocks, sql)
	}
}

func TestTouchesAreHOT(t *testing.T) {
	t.Parallel()
	// On a server of its own: any write transaction keeps dead rows from being pruned as
	// long as it runs, and pages fill up.
	pool := pgtest.PoolOn(t, pgtest.OwnServer(t).DSN, "")
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, pool, pgstore.Config{})
	const sessions, rounds = 100, 20
	// Within one hour of sweep_at, as most updates of a rolling session are.
	start := pgtest.Query[time.Time](t, pool, `SELECT date_bin('1 hour', now(), '2000-01-01Z') + interval '2 hours 5 minutes'`)
	for round := range rounds + 1 { // the first inserts
		for i := range sessions {
			if err := store.Commit(fmt.Sprint(i), make([]byte, 200), start.Add(time.Duration(round)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var updates, hot int
	pgtest.Eventually(t, "the statistics are in", func() bool {
		pgtest.Exec(t, pool, `SELECT pg_stat_clear_snapshot()`)
		if err := pool.QueryRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'scs_sessions'::regclass`).Scan(&updates, &hot); err != nil {
			t.Fatal(err)
		}
		return updates >= sessions*rounds
	})
	if want := updates * 9 / 10; hot < want {
		t.Errorf("%d of %d updates were HOT, want at least %d", hot, updates, want)
	}
}
