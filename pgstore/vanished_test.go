package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// vanishing is a host that vanishes once it has sent a statement with a given text: the
// server hears nothing more of its connections, not even that they have ended.
type vanishing struct {
	t    *testing.T
	next atomic.Pointer[string]
	cut  bool // before all of the batch is sent
	gone atomic.Bool
}

func (v *vanishing) after(text string) { v.next.Store(&text) }

func (v *vanishing) option() pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text is sent each time
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if v.gone.Load() {
				return nil, errors.New("the host has vanished")
			}
			conn, err := dial(ctx, network, addr)
			if err == nil {
				v.t.Cleanup(func() { _ = conn.Close() })
			}
			return &vanishingConn{conn, v}, err
		}
	}
}

type vanishingConn struct {
	net.Conn
	host *vanishing
}

func (c *vanishingConn) Write(p []byte) (int, error) {
	if c.host.gone.Load() {
		return len(p), nil
	}
	send := p
	if text := c.host.next.Load(); text != nil && bytes.Contains(p, []byte(*text)) {
		c.host.gone.Store(true)
		if c.host.cut {
			send = p[:len(p)-5] // the Sync
		}
	}
	_, err := c.Conn.Write(send)
	return len(p), err
}

func (c *vanishingConn) Close() error {
	if c.host.gone.Load() {
		return c.SetDeadline(time.Now())
	}
	return c.Conn.Close()
}

// The server would notice by itself only when TCP gives up, in two hours by default.
func TestVanishedHostKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	signIn := func(_ *testing.T, b *browser) { b.must("/login", "user", "alice") }
	revokeAll := func(t *testing.T, b *browser) {
		if _, err := b.app.store.RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
	}
	forget := func(t *testing.T, b *browser) {
		if _, err := b.app.store.Forget(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
	}
	write := func(_ *testing.T, b *browser) { b.must("/put", "key", "k", "value", "v") }
	how := map[string]bool{"between two batches": false}
	if pgtest.Query[bool](t, pgtest.PoolIn(t, ""), `SELECT current_setting('transaction_timeout', true) IS NOT NULL`) { // since PostgreSQL 17
		how["in the middle of one"] = true
	}
	const user, row = "INSERT INTO scs_users", "FOR UPDATE"
	for name, tt := range map[string]struct {
		vanish func(b *browser)
		after  string
		next   func(t *testing.T, b *browser)
	}{
		"a sign-in before a sign-in":    {func(b *browser) { b.get("/login", "user", "alice") }, user, signIn},
		"a sign-in before a revocation": {func(b *browser) { b.get("/login", "user", "alice") }, user, revokeAll},
		"a sign-in before a forgetting": {func(b *browser) { b.get("/login", "user", "alice") }, user, forget},
		"a merge before a write":        {nil, row, write},
		"a revocation before a sign-in": {func(b *browser) { _, _ = b.app.store.RevokeAll(b.t.Context(), "alice") }, user, signIn},
	} {
		for what, cut := range how {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				schema := pgtest.Schema(t)
				pool := pgtest.PoolIn(t, schema)
				migrate(t, pool)
				host := &vanishing{t: t, cut: cut}
				vanished := newApp(t, pgtest.PoolIn(t, schema, host.option()), pgstore.Config{Timeout: 2 * time.Second})
				other := newApp(t, pool, pgstore.Config{Timeout: time.Minute})
				then := other.browser(t)
				then.must("/login", "user", "alice")
				b := then.on(vanished)
				vanish := tt.vanish
				if vanish == nil { // a merge
					finish := b.hold("before", "put")
					then.must("/put", "key", "theirs", "value", "yes")
					vanish = func(*browser) { finish() }
				}
				host.after(tt.after)
				done := make(chan struct{})
				go func() { defer close(done); vanish(b) }()
				pgtest.Eventually(t, "the host has vanished", host.gone.Load)
				tt.next(t, then)
				<-done
			})
		}
	}
}

// If the app was merely slow, its transaction is begun anew. A role may be less patient than
// the store.
func TestTransactionThatTheServerHasEndedIsBegunAnew(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	admin := pgtest.PoolIn(t, schema)
	migrate(t, admin)
	gate := &pgtest.Gate{}
	a := newApp(t, pgtest.PoolIn(t, schema, gate.Option(), pgtest.Param("idle_in_transaction_session_timeout", "50ms")), pgstore.Config{Timeout: time.Minute})
	ended := false
	gate.Hook(func(trip pgtest.Trip) {
		if !ended && slices.Contains(trip.SQL, "COMMIT") {
			ended = true
			pgtest.Eventually(t, "the server has ended the transaction", func() bool {
				return pgtest.Query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE pid = $1`, trip.Conn.PgConn().PID()) == 0
			})
		}
	})
	a.browser(t).must("/login", "user", "alice")
	if live(t, admin, "alice") != 1 || a.store.Stat().Retries != 1 {
		t.Errorf("%d live, %+v", live(t, admin, "alice"), a.store.Stat())
	}
}
