package pgstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// watcher receives what Watch yields.
type watcher struct {
	t     *testing.T
	heard chan pgstore.Event
	stop  func() error // ends the context, and returns what the loop ended with
}

// watch starts a watcher, and returns once it listens.
func watch(t *testing.T, store *pgstore.Store) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	w := &watcher{t: t, heard: make(chan pgstore.Event, 100_000), stop: sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}
	go func() {
		var last error
		for event, err := range store.Watch(ctx) {
			if last = err; err == nil {
				w.heard <- event
			}
		}
		ended <- last
	}()
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Watch ended with %v", err)
		}
	})
	w.wants(pgstore.Event{Gap: true})
	return w
}

func (w *watcher) next() pgstore.Event {
	w.t.Helper()
	select {
	case event := <-w.heard:
		return event
	case <-time.After(time.Minute):
		w.t.Fatal("no event within a minute")
		return pgstore.Event{}
	}
}

func (w *watcher) wants(list ...pgstore.Event) {
	w.t.Helper()
	for i, want := range list {
		if got := w.next(); got != want {
			w.t.Errorf("event %d: %+v, want %+v", i, got, want)
		}
	}
}

func ended(token, user string, reason pgstore.EndReason) pgstore.Event {
	return pgstore.Event{ID: pgstore.IDOf(token), UserID: user, Reason: reason}
}

// signedIn stores a session of the user under the token.
func signedIn(t *testing.T, store *pgstore.Store, token, user string) {
	t.Helper()
	expiry := time.Now().Add(time.Hour)
	data, err := pgstore.Codec{UserKey: userKey}.Encode(expiry, map[string]any{userKey: user})
	if err == nil {
		err = store.Commit(token, data, expiry)
	}
	if err != nil {
		t.Error(err)
	}
}

// endOne ends a session, so that a watcher has something to hear.
func endOne(t *testing.T, store *pgstore.Store, token string) pgstore.Event {
	t.Helper()
	signedIn(t, store, token, "sentinel")
	if err := store.Delete(token); err != nil {
		t.Error(err)
	}
	return ended(token, "sentinel", pgstore.SignedOut)
}

func TestWatchHearsEachEndOnceOnEveryNode(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		schema := pgtest.Schema(t)
		pool := pgtest.PoolIn(t, schema)
		migrate(t, pool)
		a := newApp(t, pool, pgstore.Config{UserLimit: 2, Notify: true})
		other := newStore(t, pgtest.PoolIn(t, schema), pgstore.Config{Schema: schema})
		here, there := watch(t, a.store), watch(t, other)
		wants := func(list ...pgstore.Event) {
			t.Helper()
			here.wants(list...)
			there.wants(list...)
		}
		login := func(user string) (*browser, string) {
			b := a.browser(t)
			b.must("/login", "user", user)
			return b, b.token()
		}
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}

		first, token := login("alice")
		first.must("/logout")
		first.must("/logout")
		wants(ended(token, "alice", pgstore.SignedOut))
		visitor := a.browser(t)
		visitor.must("/put", "key", "k", "value", "v")
		token = visitor.token()
		visitor.must("/logout")
		wants(ended(token, "", pgstore.SignedOut))

		_, token = login("alice")
		if ok, err := a.store.Revoke(t.Context(), "bob", pgstore.IDOf(token)); ok || err != nil {
			t.Error(ok, err)
		}
		for range 2 {
			must(a.store.Revoke(t.Context(), "alice", pgstore.IDOf(token)))
		}
		wants(ended(token, "alice", pgstore.Revoked))

		_, token = login("alice")
		_, second := login("alice")
		_, third := login("alice")
		wants(ended(token, "alice", pgstore.Evicted))
		must(a.store.RevokeOthers(t.Context(), "alice", third))
		wants(ended(second, "alice", pgstore.Revoked))
		for range 2 {
			must(a.store.RevokeAll(t.Context(), "alice"))
		}
		wants(ended(third, "alice", pgstore.Revoked))

		_, token = login("bob")
		must(a.store.Forget(t.Context(), "bob"))
		wants(ended(token, "bob", pgstore.Revoked))

		// Another user signs in with the same browser.
		first, token = login("carol")
		first.must("/login", "user", "dave")
		wants(ended(token, "carol", pgstore.SignedOut))
		token = first.token()
		first.must("/logout")
		wants(ended(token, "dave", pgstore.SignedOut))
	})
}

func TestWatchHearsNothingElse(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	a := newApp(t, pool, pgstore.Config{UserLimit: 2, TouchAfter: time.Nanosecond, Notify: true})
	silent := newStore(t, pool, pgstore.Config{}) // without Notify
	w := watch(t, a.store)
	b := a.browser(t)
	b.must("/put", "key", "k", "value", "v")
	b.must("/login", "user", "alice") // which renews
	b.must("/me")
	b.must("/put", "key", "k", "value", "w")
	b.must("/renew")
	b.must("/login", "user", "alice")
	if st := a.store.Stat(); st.Touches == 0 || st.Ended < 3 {
		t.Errorf("%+v", st)
	}
	signedIn(t, silent, "timed out", "alice")
	pgtest.Exec(t, pool, `UPDATE scs_sessions SET expiry = now() WHERE id = $1`, pgstore.IDOf("timed out"))
	if _, err := a.store.RevokeOthers(t.Context(), "alice", b.token()); err != nil {
		t.Error(err)
	}
	endOne(t, silent, "unannounced")
	w.wants(endOne(t, a.store, "token"))
}

func TestWatchOfOneSchemaHearsNothingOfAnother(t *testing.T) {
	t.Parallel()
	first, second := newStore(t, migrated(t), pgstore.Config{Notify: true}), newStore(t, migrated(t), pgstore.Config{Notify: true})
	ofFirst, ofSecond := watch(t, first), watch(t, second)
	ofFirst.wants(endOne(t, first, "1"))
	ofSecond.wants(endOne(t, second, "2"))
	ofFirst.wants(endOne(t, first, "3"))
}

// A page in one transaction, and with the longest of user ids.
func TestWatchHearsTenThousandEndsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 10_000
	user := strings.Repeat("ä", 127)
	for reason, end := range map[pgstore.EndReason]func(*testing.T, *pgstore.Store){
		pgstore.Revoked: func(t *testing.T, store *pgstore.Store) {
			if ended, err := store.RevokeAll(t.Context(), user); ended != n || err != nil {
				t.Error(ended, err)
			}
		},
		pgstore.Evicted: func(t *testing.T, store *pgstore.Store) { signedIn(t, store, "another", user) },
	} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			pgtest.Exec(t, pool, `INSERT INTO scs_sessions (id, user_id, data, expiry)
				SELECT md5(n::text)::uuid, $2, '\x0001000000', now() + interval '1 hour' FROM generate_series(1, $1::int) n`, n, user)
			pgtest.Exec(t, pool, `INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM scs_sessions`)
			store := newStore(t, pool, pgstore.Config{UserLimit: 1, Notify: true, Timeout: time.Minute})
			w := watch(t, store)
			end(t, store)
			heard := make(map[string]bool)
			for range n {
				event := w.next()
				if event.UserID != user || event.Reason != reason || event.Gap || heard[event.ID] {
					t.Fatalf("%+v", event)
				}
				heard[event.ID] = true
			}
			w.wants(endOne(t, store, "after"))
		})
	}
}

// An end is announced by the transaction that brings it about: not if that fails, and once
// if its answer is lost and it is tried again.
func TestWatchHearsAnEndOnceIfItIsRetried(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, schema))
	var l losing
	store := newStore(t, pgtest.PoolIn(t, schema, l.option()), pgstore.Config{UserLimit: 1, Notify: true})
	w := watch(t, newStore(t, pgtest.PoolIn(t, schema), pgstore.Config{}))
	for name, lose := range map[string]func(text string, then func()){"the answer is lost": l.answer, "the statement is lost": l.statement} {
		for what, end := range map[string]func(token string) pgstore.Event{
			"sign-out": func(token string) pgstore.Event {
				if err := store.Delete(token); err != nil {
					t.Error(err)
				}
				return ended(token, "alice", pgstore.SignedOut)
			},
			"revocation": func(token string) pgstore.Event {
				if _, err := store.RevokeAll(t.Context(), "alice"); err != nil {
					t.Error(err)
				}
				return ended(token, "alice", pgstore.Revoked)
			},
			"eviction": func(token string) pgstore.Event {
				signedIn(t, store, "next "+token, "alice")
				return ended(token, "alice", pgstore.Evicted)
			},
		} {
			token := name + what
			if _, err := store.RevokeAll(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
			for before := endOne(t, store, "before "+token); w.next() != before; {
			}
			signedIn(t, store, token, "alice")
			lose("pg_notify", nil)
			want := end(token)
			if !l.lost() {
				t.Errorf("%s: %s: the connection has not broken", what, name)
			}
			w.wants(want, endOne(t, store, "after "+token))
		}
	}
}

func TestWatchGoesOnAfterAGapIfItsConnectionBreaks(t *testing.T) {
	t.Parallel()
	admin, name := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	store := newStore(t, migrated(t, named(name)), pgstore.Config{Notify: true})
	w := watch(t, store)
	w.wants(endOne(t, store, "before"))
	killConnections(t, admin, name)
	w.wants(pgstore.Event{Gap: true})
	w.wants(endOne(t, store, "after"))
}

// Nothing says that the connection is dead: what is sent on it goes nowhere.
func TestWatchNoticesADeadConnection(t *testing.T) {
	t.Parallel()
	schema := pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, schema))
	var cut atomic.Int32
	pool := pgtest.PoolIn(t, schema, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() }) // the pool would say goodbye to the dead one, and wait
			}
			return &cutConn{conn, &cut, cut.Load()}, err
		}
	})
	w := watch(t, newStore(t, pool, pgstore.Config{Timeout: 500 * time.Millisecond}))
	store := newStore(t, pgtest.PoolIn(t, schema), pgstore.Config{Notify: true})
	w.wants(endOne(t, store, "before"))
	cut.Add(1)
	endOne(t, store, "unheard")
	w.wants(pgstore.Event{Gap: true})
	w.wants(endOne(t, store, "after"))
}

// cutConn goes nowhere once another cut has been made.
type cutConn struct {
	net.Conn
	cuts *atomic.Int32
	made int32
}

func (c *cutConn) Read(p []byte) (int, error) {
	for {
		if n, err := c.Conn.Read(p); err != nil || c.cuts.Load() == c.made {
			return n, err
		}
	}
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.cuts.Load() != c.made {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// The tables are in another schema by now.
func TestWatchFollowsTheTables(t *testing.T) {
	t.Parallel()
	before, after := pgtest.Schema(t), pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, before))
	store := newStore(t, pgtest.PoolIn(t, "", pgtest.Param("search_path", `"`+after+`", "`+before+`"`)), pgstore.Config{Notify: true, Timeout: 500 * time.Millisecond})
	w := watch(t, store)
	w.wants(endOne(t, store, "before"))
	for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
		pgtest.Exec(t, pgtest.PoolIn(t, before, pgtest.MaxConns(1)), `ALTER TABLE `+table+` SET SCHEMA "`+after+`"`)
	}
	w.wants(pgstore.Event{Gap: true})
	w.wants(endOne(t, store, "after"))
}

func TestWatchTakesWhatItCannotReadForAGap(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	store := newStore(t, pool, pgstore.Config{Notify: true})
	w := watch(t, store)
	for _, payload := range []string{"", "revoked", "revoked AAAA alice", "revoked no-base64 alice"} {
		pgtest.Exec(t, pool, `SELECT pg_notify('scs_ended_' || quote_ident(current_schema())::regnamespace::oid, $1)`, payload)
		w.wants(pgstore.Event{Gap: true}, endOne(t, store, payload+"!"))
	}
}

// A receiver that is slow costs bounded memory, and neither the server nor those who end
// sessions wait for it.
func TestWatchLeavesOutWhatASlowReceiverHasNotRead(t *testing.T) {
	t.Parallel()
	warned := make(chan struct{}, 1)
	store := newStore(t, migrated(t), pgstore.Config{Notify: true, Logger: slog.New(warning(func(text string) {
		if strings.Contains(text, "too slow") {
			select {
			case warned <- struct{}{}:
			default:
			}
		}
	}))})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var list []pgstore.Event
	for event, err := range store.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, event); len(list) == 1 { // the first gap: it listens
			var wg sync.WaitGroup
			for n := range 8 {
				wg.Go(func() {
					for i := range 70 {
						endOne(t, store, fmt.Sprint(n, " ", i))
					}
				})
			}
			wg.Wait()
			select {
			case <-warned:
			case <-time.After(time.Minute):
				t.Fatal("it was not too slow")
			}
			endOne(t, store, "last")
		}
		if event.ID == pgstore.IDOf("last") {
			cancel()
		}
	}
	if len(list) < 2 || !list[1].Gap || len(list) > 100 {
		t.Errorf("%d events, %+v", len(list), list[:min(len(list), 5)])
	}
}

// warning is called with the text of each log record.
type warning func(string)

func (warning) Enabled(context.Context, slog.Level) bool { return true }
func (w warning) Handle(_ context.Context, r slog.Record) error {
	w(r.Message)
	return nil
}
func (w warning) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w warning) WithGroup(string) slog.Handler      { return w }

// That it leaves no goroutine is seen when all tests are done.
func TestWatchLeavesNoConnection(t *testing.T) {
	t.Parallel()
	admin, name := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	pool := migrated(t, named(name), pgtest.MaxConns(1))
	store := newStore(t, pool, pgstore.Config{Notify: true})
	open := func() int {
		return pgtest.Query[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, name)
	}
	loop := func(ctx context.Context, body func(pgstore.Event) bool) {
		defer pgtest.Eventually(t, "only the pool's connection is left", func() bool { return open() <= 1 })
		for event, err := range store.Watch(ctx) {
			if err != nil {
				t.Error(err)
			}
			if !body(event) {
				break
			}
		}
	}
	loop(t.Context(), func(event pgstore.Event) bool {
		if event.Gap {
			endOne(t, store, "token") // though the pool has one connection only
			if n := open(); n != 2 {
				t.Errorf("%d connections", n)
			}
		}
		return event.Gap
	})
	ctx, cancel := context.WithCancel(t.Context())
	loop(ctx, func(pgstore.Event) bool { cancel(); return true })
	func() {
		defer func() { _ = recover() }()
		loop(t.Context(), func(pgstore.Event) bool { panic("of the loop body") })
	}()
	if err := store.Delete("token"); err != nil {
		t.Error(err)
	}
}

func TestWatchSaysWhyItCannotBegin(t *testing.T) {
	t.Parallel()
	closed := migrated(t)
	closed.Close()
	for want, pool := range map[string]*pgxpool.Pool{
		"run migrations.Up": pgtest.Pool(t),
		"closed pool":       closed,
		"LISTEN hears nothing": migrated(t, func(c *pgxpool.Config) {
			c.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
		}),
	} {
		n := 0
		for event, err := range newStore(t, pool, pgstore.Config{Timeout: 500 * time.Millisecond}).Watch(t.Context()) {
			if n++; n > 1 || event != (pgstore.Event{}) || err == nil || !strings.HasPrefix(err.Error(), "pgstore: watch sessions: ") || !strings.Contains(err.Error(), want) {
				t.Fatalf("%q: %d: %+v, %v", want, n, event, err)
			}
		}
		if n == 0 {
			t.Errorf("%q: no error", want)
		}
	}
}

// A server that is not there yet may come.
func TestWatchWaitsForTheServer(t *testing.T) {
	t.Parallel()
	tried, tries := make(chan struct{}), 0
	store := newStore(t, pgtest.PoolOn(t, "postgres://127.0.0.1:1/db", ""), pgstore.Config{Logger: slog.New(warning(func(string) {
		if tries++; tries == 3 {
			close(tried)
		}
	}))})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-tried; cancel() }()
	for event, err := range store.Watch(ctx) {
		t.Errorf("%+v, %v", event, err)
	}
}

func TestNotifyCostsARoundTripWhereSessionsEnd(t *testing.T) {
	t.Parallel()
	rec := &recorder{}
	schema := pgtest.Schema(t)
	migrate(t, pgtest.PoolIn(t, schema))
	store := newStore(t, pgtest.PoolIn(t, schema, traced(rec)), pgstore.Config{UserLimit: 1, Notify: true})
	check := func(what string, want int, f func()) {
		t.Helper()
		rec.take()
		f()
		if got := rec.take(); got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	check("a sign-in", 3, func() { signedIn(t, store, "1", "alice") }) // which looks for the session first
	check("one that evicts", 4, func() { signedIn(t, store, "2", "alice") })
	check("a sign-out", 2, func() { _ = store.Delete("2") })
	check("one of nobody", 2, func() { _ = store.Delete("3") })
	signedIn(t, store, "4", "alice")
	check("a revocation", 3, func() { _, _ = store.RevokeAll(t.Context(), "alice") })
}

// beginning says when the first bytes of an answer are out.
type beginning struct {
	http.ResponseWriter
	begun func()
}

func (b *beginning) FlushError() error {
	err := http.NewResponseController(b.ResponseWriter).Flush()
	b.begun()
	return err
}

// The example's streams end with their session, whatever has become of it.
func TestStreamsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	admin, name := pgtest.PoolIn(t, ""), pgtest.Schema(t)
	a := newApp(t, migrated(t, named(name)), pgstore.Config{UserLimit: 1, Notify: true})
	var streams streams
	begun := make(chan struct{})
	a.mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		streams.serve(a.store, a.sm, time.Hour)(&beginning{w, sync.OnceFunc(func() { begun <- struct{}{} })}, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { defer close(watched); streams.run(ctx, a.store) }()
	t.Cleanup(func() { cancel(); <-watched })
	for want, end := range map[string]func(b *browser){
		"ended signed_out": func(b *browser) { b.must("/logout") },
		"ended evicted":    func(*browser) { a.browser(t).must("/login", "user", "alice") },
		"ended revoked":    func(*browser) { _, _ = a.store.RevokeAll(t.Context(), "alice") },
		"ended renewed":    func(b *browser) { b.must("/renew"); b.must("/logout") },
		"expired": func(*browser) { // and a gap wakes all
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE end_reason IS NULL`)
			killConnections(t, admin, name)
		},
	} {
		b := a.browser(t)
		b.must("/login", "user", "alice")
		other := a.browser(t)
		other.setToken(b.token())
		body := make(chan string, 1)
		go func() { body <- other.must("/events") }()
		<-begun
		end(b)
		select {
		case got := <-body:
			if !strings.HasSuffix(strings.TrimSpace(got), "data: "+want) {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("the stream goes on: %s", want)
		}
	}
	streams.mu.Lock()
	defer streams.mu.Unlock()
	if len(streams.of) != 0 {
		t.Errorf("%d streams are left", len(streams.of))
	}
}
