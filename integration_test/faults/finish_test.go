//go:build linux

package faults

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// finish waits until all clients are served again, and compares what they were told with
// what is there.
func (b *bed) finish(t *testing.T) {
	t.Helper()
	j := b.judge
	j.after = b.recovered(t)
	b.end()
	var asking sync.WaitGroup
	for _, c := range b.clients {
		asking.Go(func() {
			if c.token != "" {
				c.get()
			}
			for _, e := range c.ended {
				c.probe(e)
			}
		})
	}
	asking.Wait()
	b.http.CloseIdleConnections()
	b.endWatch()

	pool := pgtest.PoolOn(t, b.truth, "")
	defer pool.Close()
	b.compareListings(t, pool)
	rows := b.rows(t, pool)
	b.nothingLeaks(t, pool)

	events := b.history.all()
	j.requests, j.failed = len(events), b.history.failures()
	j.verdict = judge(events, rows, pgstore.IDOf, userLimit)
	j.over = append(j.over, b.surplus...)
	j.done = true
	for what, list := range map[string][]string{"lost": j.lost, "revived": j.revived, "over the limit": j.over} {
		if len(list) > 0 {
			t.Errorf("%s: %d\n%s", what, len(list), strings.Join(list[:min(len(list), 10)], "\n"))
		}
	}
}

// compareListings compares what Sessions says with the tables.
func (b *bed) compareListings(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for n := range users {
		user := fmt.Sprint("user", n)
		want := pgtest.Query[[]string](t, pool, `SELECT coalesce(array_agg(id::text ORDER BY id), '{}') FROM scs_sessions
			WHERE user_id = $1 AND end_reason IS NULL AND expiry > now()`, user)
		for _, node := range b.app {
			if node.store == nil {
				continue
			}
			list, err := node.store.Sessions(context.WithoutCancel(t.Context()), user)
			if err != nil {
				t.Error(err)
			}
			got := []string{}
			for _, s := range list {
				got = append(got, s.ID)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("Sessions of %s are %v, the table has %v", user, got, want)
			}
		}
	}
}

// rows are all sessions of users that the table has.
func (b *bed) rows(t *testing.T, pool *pgxpool.Pool) []row {
	t.Helper()
	rows, err := pool.Query(context.WithoutCancel(t.Context()), `SELECT id::text, coalesce(user_id, ''), end_reason IS NULL AND expiry > now(),
		coalesce(end_reason, CASE WHEN expiry <= now() THEN 'expired' END, '') FROM scs_sessions`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s row, err error) {
		return s, r.Scan(&s.id, &s.user, &s.alive, &s.reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// nothingLeaks ends the nodes. Neither a connection nor a goroutine may be left, nor a
// transaction before that.
func (b *bed) nothingLeaks(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	count := func(where string) int {
		return pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND `+where, appRole)
	}
	pgtest.Eventually(t, "no transaction is left open", func() bool { return count(`state LIKE 'idle in transaction%'`) == 0 })
	for _, n := range b.app {
		if n.pool != nil {
			pgtest.Eventually(t, "no connection is in use", func() bool { return n.pool.Stat().AcquiredConns() == 0 })
		}
		n.close()
	}
	b.atEnd()
	pgtest.Eventually(t, "no connection is left", func() bool { return count(`true`) == 0 })
	pool.Close()
	deadline := time.Now().Add(leakPatience)
	for n, stacks := goroutines(); n > b.goroutines; n, stacks = goroutines() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, %d were there before:\n%s", n, b.goroutines, stacks)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// leakPatience is more than pgx takes to give up a connection that does not answer: 15 s.
const leakPatience = 30 * time.Second

// goroutines counts them, but for the one that scs.New starts with its default store, and
// has no way to end.
func goroutines() (int, string) {
	buf := make([]byte, 16<<20)
	stacks := string(buf[:runtime.Stack(buf, true)])
	return runtime.NumGoroutine() - strings.Count(stacks, "memstore.(*MemStore).startCleanup("), stacks
}

// mustHaveSeen says that the fault was there: the app's connections have had the error.
func (b *bed) mustHaveSeen(t *testing.T, codes ...string) {
	t.Helper()
	for _, code := range codes {
		n := 0
		for _, node := range b.app {
			n += node.codes.of(code)
		}
		if n == 0 {
			t.Error("the app has met no " + code)
		}
	}
}
