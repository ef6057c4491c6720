package pgstore_test

import (
	"encoding/gob"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// state is the row that an unchanged request must leave alone.
type state struct {
	Version      int64
	Expiry, Seen time.Time
	Place        string // where the row's current version is: any update moves it
}

func rowOf(t testing.TB, pool *pgxpool.Pool, token string) (s state) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT version, expiry, last_seen_at, ctid::text FROM scs_sessions WHERE id = $1`, pgstore.IDOf(token)).
		Scan(&s.Version, &s.Expiry, &s.Seen, &s.Place)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// age makes the session older, as if time had passed.
func age(t testing.TB, pool *pgxpool.Pool, by string) {
	t.Helper()
	// Without a time zone this is immutable, which is all that Citus lets an UPDATE compute of a column.
	pgtest.Exec(t, pool, `UPDATE scs_sessions SET expiry = (expiry AT TIME ZONE 'UTC' - $1::interval) AT TIME ZONE 'UTC',
		last_seen_at = (last_seen_at AT TIME ZONE 'UTC' - $1::interval) AT TIME ZONE 'UTC'`, by)
}

func TestUnchangedRequestWritesNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	before, counted := rowOf(t, a.pool, b.token()), a.store.Stat()
	for range 5 {
		b.must("/me")
		b.must("/put", "key", userKey, "value", "alice") // modified, and yet the same
	}
	if after := rowOf(t, a.pool, b.token()); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	if st := a.store.Stat(); st.Skips-counted.Skips != 10 || st.Touches != 0 {
		t.Errorf("%d skips, %d touches", st.Skips-counted.Skips, st.Touches)
	}
}

func TestTouchWhenDue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after time.Duration
		by    string
		want  bool
	}{
		{"default, not yet", 0, "59 seconds", false}, // 5% of 30 minutes, at most 1 minute
		{"default, due", 0, "61 seconds", true},
		{"as set, not yet", 10 * time.Minute, "9 minutes", false},
		{"as set, due", 10 * time.Minute, "11 minutes", true},
		{"never beyond half the window", time.Hour, "16 minutes", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{TouchAfter: tt.after})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			age(t, a.pool, tt.by)
			before := rowOf(t, a.pool, b.token())
			b.must("/me")
			after := rowOf(t, a.pool, b.token())
			if after.Version != before.Version {
				t.Error("a touch changed the version")
			}
			if touched := after != before; touched != tt.want {
				t.Errorf("touched %t, want %t", touched, tt.want)
			}
			if tt.want && (!after.Expiry.After(before.Expiry) || !after.Seen.After(before.Seen)) {
				t.Errorf("%+v became %+v", before, after)
			}
		})
	}
}

func TestTouchNeverMovesExpiryBack(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() + interval '2 hours', last_seen_at = now() - interval '2 minutes'`)
	before := rowOf(t, a.pool, b.token())
	b.must("/me")
	if after := rowOf(t, a.pool, b.token()); !after.Expiry.Equal(before.Expiry) || !after.Seen.After(before.Seen) {
		t.Errorf("%+v became %+v", before, after)
	}
}

// A poll that writes does not keep its session alive. A touch that it crosses is left to the
// next request.
func TestTouchThatCrossesAPollIsLeftToTheNextRequest(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	age(t, a.pool, "20 minutes")
	other := a.browser(t)
	other.setToken(b.token())
	finish := b.hold()
	other.must("/poll", "put", "1")
	if status, body := finish(); status != http.StatusOK || !strings.HasPrefix(body, "state=active") {
		t.Errorf("%d %s", status, body)
	}
	me := b.must("/me")
	if left := pgtest.Query[float64](t, a.pool, `SELECT extract(epoch FROM expiry - now())::float8 / 60 FROM scs_sessions`); left < 29 {
		t.Errorf("%.1f of 30 minutes are left", left)
	}
	if !strings.Contains(me, "polled") {
		t.Error(me)
	}
}

func TestNoTouchLeavesExpiryAndLastSeen(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	age(t, a.pool, "20 minutes")
	before := rowOf(t, a.pool, b.token())
	b.must("/poll")
	if after := rowOf(t, a.pool, b.token()); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	b.must("/poll", "put", "1")
	after := rowOf(t, a.pool, b.token())
	if !after.Expiry.Equal(before.Expiry) || !after.Seen.Equal(before.Seen) || after.Version != before.Version+1 {
		t.Errorf("with data, %+v became %+v", before, after)
	}
}

// Without an idle timeout scs commits nothing; the session is still seen.
func TestSessionWithoutIdleTimeoutIsSeen(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.sm.IdleTimeout = 0
	b := a.browser(t)
	b.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET last_seen_at = now() - interval '61 seconds'`)
	before := rowOf(t, a.pool, b.token())
	b.must("/me")
	// The handler has answered before the touch is written.
	pgtest.Eventually(t, "the session is seen", func() bool { return rowOf(t, a.pool, b.token()).Seen.After(before.Seen) })
	if after := rowOf(t, a.pool, b.token()); !after.Expiry.Equal(before.Expiry) {
		t.Error("its expiry was moved")
	}
}

// The store sends a time to live, so idle timeouts are exact whatever the clocks
// say, and so are deadlines that one app server computes and applies.
func TestClockSkewDoesNotMoveIdleTimeouts(t *testing.T) {
	t.Parallel()
	pgtest.NotOnCitus(t, "a now() of one's own is on the coordinator only")
	for _, skew := range []string{"5 minutes", "-5 minutes"} {
		t.Run(skew, func(t *testing.T) {
			t.Parallel()
			tables, clock := pgtest.Schema(t), pgtest.Schema(t)
			migrate(t, pgtest.PoolIn(t, tables))
			// now() as the store writes it finds these first.
			admin := pgtest.PoolIn(t, "")
			for _, f := range []string{"now", "clock_timestamp"} {
				pgtest.Exec(t, admin, `CREATE FUNCTION "`+clock+`".`+f+`() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT pg_catalog.`+f+`() + interval '`+skew+`' $$`)
			}
			pool := pgtest.PoolIn(t, "", pgtest.Param("search_path", `"`+clock+`", "`+tables+`", pg_catalog`))
			a := newApp(t, pool, pgstore.Config{})
			b := a.browser(t)
			check := func(what string) {
				t.Helper()
				left := pgtest.Query[float64](t, pool, `SELECT extract(epoch FROM expiry - now())::float8 FROM scs_sessions WHERE id = $1`, pgstore.IDOf(b.token()))
				if left < 1700 || left > 1800 {
					t.Errorf("%s: %.0f s left of 30 minutes", what, left)
				}
			}
			b.must("/login", "user", "alice")
			check("signed in")
			age(t, pool, "2 minutes")
			b.must("/me")
			check("touched")
			b.must("/put", "key", "k", "value", "v")
			check("written")
			age(t, pool, "31 minutes")
			if b.user() != "" {
				t.Error("it outlived its idle timeout")
			}
			if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			b.must("/login", "user", "alice")
			if b.user() != "alice" {
				t.Error("the fence is off by the skew")
			}
		})
	}
}

// gob writes a NaN that is nobody's change: a map or slice that holds one is the same.
func TestUnchangedNaNWritesNothing(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{
		"map":     map[string]float64{"a": 1, "b": math.NaN(), "c": math.Inf(1)},
		"slice":   []float64{1, math.NaN()},
		"complex": []complex128{complex(math.NaN(), 1)},
		"nested":  map[string][]float32{"a": {1, 2}, "b": {float32(math.NaN())}},
		"alone":   math.NaN(),
	} {
		gob.Register(value)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			a.mux.HandleFunc("/measure", func(_ http.ResponseWriter, r *http.Request) { a.sm.Put(r.Context(), "measured", value) })
			b := a.browser(t)
			b.must("/measure")
			before := a.store.Stat()
			for range 20 { // gob writes maps in no particular order
				b.must("/me")
			}
			if after := a.store.Stat(); after.Writes != before.Writes || after.Skips != before.Skips+20 {
				t.Errorf("%d writes, %d skips", after.Writes-before.Writes, after.Skips-before.Skips)
			}
			// Nor does such a request undo what another one has removed meanwhile.
			finish := b.hold()
			b.must("/remove", "key", "measured")
			finish()
			if got := b.keys(); got != "" {
				t.Errorf("it holds %s", got)
			}
			// One that changes another value merges with it.
			b.must("/measure")
			finish = b.hold("after", "put")
			b.must("/remove", "key", "measured")
			finish()
			if got := b.keys(); got != "held" {
				t.Errorf("it holds %s", got)
			}
		})
	}
}
