package pgstore_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// ago asks how long ago the user of the browser signed in; -1 stands for never.
func (b *browser) ago() time.Duration {
	b.t.Helper()
	ago, err := time.ParseDuration(b.must("/ago"))
	if err != nil {
		b.t.Error(err)
	}
	return ago
}

func newAppOfAges(t *testing.T, newApp newAppFunc, opts ...pgtest.Option) *app {
	a := newApp(t, migrated(t, opts...), pgstore.Config{})
	a.mux.HandleFunc("/ago", func(w http.ResponseWriter, r *http.Request) {
		if user := r.FormValue("user"); user != "" {
			a.sm.Put(r.Context(), userKey, user)
		}
		at, err := a.store.SignedInAt(r.Context())
		ago := time.Since(at)
		if at.IsZero() {
			ago = -1
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(ago.String()))
	})
	return a
}

func TestSignedInAtIsOfTheSignInAndNotOfTheRenewal(t *testing.T) {
	t.Parallel()
	a := newAppOfAges(t, newApp)
	b := a.browser(t)
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := b.ago(); got < want || got > want+time.Minute {
			t.Errorf("%s: %v ago, want %v", what, got, want)
		}
	}
	check("nobody", -1)
	b.must("/put", "key", "cart", "value", "1")
	check("anonymous", -1)
	b.must("/login", "user", "alice")
	check("signed in", 0)
	pgtest.Exec(t, a.pool, `UPDATE scs_user_sessions SET created_at = created_at - interval '1 hour'`)
	check("an hour later", time.Hour)
	b.must("/put", "key", "k", "value", "v")
	check("changed", time.Hour)
	b.must("/renew")
	check("renewed", time.Hour)
	b.must("/login", "user", "alice")
	check("signed in again", 0)
	pgtest.Exec(t, a.pool, `DELETE FROM scs_user_sessions`)
	check("not in the index", -1)
	b.must("/login", "user", "alice")
	pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE user_id = 'alice'`)
	check("timed out", -1)
}

// The database's clock is a day ahead of this server's.
func TestSignedInAtDoesNotDependOnThisServersClock(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	pool := pgtest.PoolIn(t, schema, pgtest.Param("search_path", `"`+schema+`", pg_catalog`))
	migrate(t, pool)
	pgtest.Exec(t, pool, `CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT pg_catalog.now() + interval '1 day' $$`)
	a := newApp(t, pool, pgstore.Config{})
	a.mux.HandleFunc("/recent", func(_ http.ResponseWriter, r *http.Request) {
		at, err := a.store.SignedInAt(r.Context())
		if ago := time.Since(at); err != nil || ago < 0 || ago > time.Minute {
			t.Errorf("%v ago, %v", ago, err)
		}
	})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	b.must("/recent")
	if list, err := a.store.Sessions(t.Context(), "alice"); err != nil || len(list) != 1 || time.Until(list[0].CreatedAt) < 23*time.Hour {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestSignedInAtWithoutTrackIsZero(t *testing.T) {
	t.Parallel()
	b := newAppOfAges(t, newPlainApp).browser(t)
	b.must("/login", "user", "alice")
	if got := b.ago(); got != -1 {
		t.Errorf("%v ago", got)
	}
}

// Only a request that asks pays for the answer, with one read by primary key; and an error is
// told from a sign-in of long ago.
func TestSignedInAtReadsWhenItIsAsked(t *testing.T) {
	t.Parallel()
	var gate pgtest.Gate
	a := newAppOfAges(t, newApp, gate.Option())
	b := a.browser(t)
	b.must("/login", "user", "alice")
	for path, want := range map[string]int{"/me": 1, "/ago": 2} {
		gate.ShutAfter(t)
		gate.Open()
		if b.must(path); len(gate.Trips()) != want {
			t.Errorf("%s: trips %+v", path, gate.Trips())
		}
	}
	pgtest.Exec(t, a.pool, `ALTER TABLE scs_user_sessions RENAME TO elsewhere`)
	if status, body := b.get("/ago"); status != http.StatusInternalServerError || !strings.Contains(body, "pgstore: read sign-in time: ") {
		t.Errorf("%d %s", status, body)
	}
}

func TestSignedInAtKnowsOnlyItsOwnRequest(t *testing.T) {
	t.Parallel()
	store := newStore(t, migrated(t), pgstore.Config{})
	if at, err := store.SignedInAt(context.Background()); !at.IsZero() || err != nil {
		t.Errorf("%v, %v", at, err)
	}
	under(store, func(ctx context.Context) {
		if at, err := store.SignedInAt(ctx); !at.IsZero() || err != nil {
			t.Errorf("%v, %v", at, err)
		}
	})
}
