package pgstore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// old is a table of scs's own stores, and how their app writes to it.
type old struct {
	t     testing.TB
	pool  *pgxpool.Pool
	table string
	codec scs.Codec
}

// newOld makes the table, as the README of pgxstore says.
func newOld(t testing.TB, pool *pgxpool.Pool) *old {
	t.Helper()
	return newOldTable(t, pool, "sessions")
}

func newOldTable(t testing.TB, pool *pgxpool.Pool, name string) *old {
	t.Helper()
	o := &old{t: t, pool: pool, table: name, codec: scs.GobCodec{}}
	pgtest.Exec(t, pool, `CREATE TABLE `+name+` (token text PRIMARY KEY, data bytea NOT NULL, expiry timestamptz NOT NULL)`)
	return o
}

// put is a commit of the old app: the session is good for so long.
func (o *old) put(token string, left time.Duration, values ...any) {
	o.t.Helper()
	m := make(map[string]any)
	for i := 0; i+1 < len(values); i += 2 {
		m[values[i].(string)] = values[i+1]
	}
	data, err := o.codec.Encode(noon, m)
	if err != nil {
		o.t.Fatal(err)
	}
	o.raw(token, left, data)
}

func (o *old) raw(token string, left time.Duration, data []byte) {
	o.t.Helper()
	pgtest.Exec(o.t, o.pool, `INSERT INTO `+o.table+` VALUES ($1, $2, now() + $3::float8 * interval '1 microsecond')
		ON CONFLICT (token) DO UPDATE SET data = excluded.data, expiry = excluded.expiry`, token, data, left.Microseconds())
}

func (o *old) delete(token string) {
	o.t.Helper()
	pgtest.Exec(o.t, o.pool, `DELETE FROM `+o.table+` WHERE token = $1`, token)
}

// noon is the deadline of the old app's sessions.
var noon = time.Date(2100, 1, 1, 12, 0, 0, 0, time.UTC)

var imports = pgstore.ImportOptions{Codec: pgstore.Codec{UserKey: userKey}}

// importing runs an import, and returns its counts: "read 1 imported 1".
func importing(t testing.TB, store *pgstore.Store, o pgstore.ImportOptions) string {
	t.Helper()
	r, err := store.Import(t.Context(), o)
	if err != nil {
		t.Error(err)
	}
	return counts(r)
}

func counts(r pgstore.ImportResult) string {
	var text []string
	for _, c := range []struct {
		what string
		n    int
	}{{"read", r.Read}, {"imported", r.Imported}, {"updated", r.Updated}, {"signed out", r.SignedOut}, {"fenced", r.Fenced}, {"unreadable", r.Unreadable}} {
		if c.n != 0 {
			text = append(text, fmt.Sprint(c.what, " ", c.n))
		}
	}
	return strings.Join(text, ", ")
}

// holding is a browser with a cookie of the old app.
func (a *app) holding(t testing.TB, token string) *browser {
	b := a.browser(t)
	b.setToken(token)
	return b
}

func TestImportTakesOverLiveSessionsAndIndexesTheirUsers(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
		o := newOld(t, a.pool)
		o.put("of alice", time.Hour, userKey, "alice", "cart", 3)
		o.put("of 42", 2*time.Hour, userKey, 42)
		o.put("anonymous", time.Hour, "cart", 1)
		o.put("expired", -time.Second, userKey, "alice")
		if got := importing(t, a.store, imports); got != "read 3, imported 3" {
			t.Error(got)
		}
		if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions s JOIN sessions o
			ON s.id = encode(substr(sha256(convert_to(o.token, 'UTF8')), 1, 16), 'hex')::uuid
			WHERE s.expiry = o.expiry`); n != 3 {
			t.Errorf("%d sessions are good for exactly as long as before", n)
		}
		alice, bob, nobody := a.holding(t, "of alice"), a.holding(t, "of 42"), a.holding(t, "anonymous")
		if alice.keys() != "cart,userID" || alice.user() != "alice" || nobody.keys() != "cart" || a.holding(t, "expired").keys() != "" {
			t.Error("the sessions are not what they were")
		}
		if bob.must("/me"); live(t, a.pool, "42") != 1 {
			t.Error("an integer under UserKey is not a user's id")
		}
		checkIndex(t, a.pool, a.store, "alice", "42")
		alice.must("/put", "key", "k", "value", "v")
		if alice.keys() != "cart,k,userID" {
			t.Error(alice.keys())
		}
	})
}

// bag is a type that gob never writes in the same order.
type bag map[string]int

func TestImportWritesNothingTheSecondTime(t *testing.T) {
	t.Parallel()
	gob.Register(bag{})
	rec := &recorder{}
	pool := migrated(t, traced(rec))
	store := newStore(t, pool, pgstore.Config{})
	o := newOld(t, pool)
	for n := range 450 { // more than two pages
		o.put(fmt.Sprint("token", n), time.Hour, userKey, fmt.Sprint("user", n/3), "bag", bag{"a": 1, "b": 2, "c": 3})
	}
	var progress []int
	repeated := imports
	repeated.Progress = func(r pgstore.ImportResult) { progress = append(progress, r.Imported) }
	if got := importing(t, store, repeated); got != "read 450, imported 450" || fmt.Sprint(progress) != "[200 400 450]" {
		t.Error(got, progress)
	}
	before := pgtest.Query[string](t, pool, `SELECT string_agg(s::text, ';' ORDER BY id) FROM scs_sessions s`)
	rec.statements = nil
	if got := importing(t, store, imports); got != "read 450" {
		t.Error(got)
	}
	if rec.has("INSERT") || rec.has("BEGIN") || before != pgtest.Query[string](t, pool, `SELECT string_agg(s::text, ';' ORDER BY id) FROM scs_sessions s`) {
		t.Error("it wrote or locked")
	}
}

// What has happened on either side between two imports, and who is right.
func TestImportRepeated(t *testing.T) {
	t.Parallel()
	const token = "token"
	put := func(left time.Duration, user, value string) func(*old, *app) {
		return func(o *old, _ *app) { o.put(token, left, userKey, user, "k", value) }
	}
	there := func(f func(b *browser)) func(*old, *app) {
		return func(o *old, a *app) { f(a.holding(o.t, token)) }
	}
	nothing := func(*old, *app) {}
	left := func(o *old, _ *app) { // by the old app's user
		o.delete(token)
		o.put("another", time.Hour)
	}
	expire := func(o *old, _ *app) { // both, and the old app has swept
		pgtest.Exec(o.t, o.pool, `UPDATE scs_sessions SET version = (extract(epoch FROM now())::bigint - 9) << 28, expiry = now() - interval '9 seconds'`)
	}
	for name, tt := range map[string]struct {
		old, new    func(*old, *app)
		want        string
		user, value string
	}{
		"nothing":                     {nothing, nothing, "read 1", "alice", "1"},
		"touched there":               {put(2*time.Hour, "alice", "1"), nothing, "read 1, updated 1", "alice", "1"},
		"written there":               {put(time.Hour, "alice", "2"), nothing, "read 1, updated 1", "alice", "2"},
		"written there, touched here": {put(time.Hour, "alice", "2"), func(o *old, a *app) { age(o.t, o.pool, "2 minutes"); a.holding(o.t, token).must("/me") }, "read 1, updated 1", "alice", "2"},
		"written on both sides":       {put(2*time.Hour, "alice", "2"), there(func(b *browser) { b.must("/put", "key", "k", "value", "3") }), "read 1", "alice", "3"},
		"written here":                {nothing, there(func(b *browser) { b.must("/put", "key", "k", "value", "3") }), "read 1", "alice", "3"},
		"signed out here":             {put(2*time.Hour, "alice", "2"), there(func(b *browser) { b.must("/logout") }), "read 1", "", ""},
		"renewed here":                {put(2*time.Hour, "alice", "2"), there(func(b *browser) { b.must("/renew") }), "read 1", "", ""},
		"revoked here":                {put(2*time.Hour, "alice", "2"), func(o *old, a *app) { _, _ = a.store.RevokeAll(o.t.Context(), "alice") }, "read 1", "", ""},
		"its user there":              {put(time.Hour, "bob", "2"), nothing, "read 1, updated 1", "bob", "2"},
		"nobody's there":              {put(time.Hour, "", "2"), nothing, "read 1, updated 1", "", "2"},
		"signed out there":            {left, nothing, "read 1, imported 1, signed out 1", "", ""},
		"signed out there, used here": {left, there(func(b *browser) { b.must("/put", "key", "k", "value", "3") }), "read 1, imported 1, signed out 1", "", ""},
		"swept there, touched here": {left, func(o *old, a *app) {
			expire(o, a)
			pgtest.Exec(o.t, o.pool, `UPDATE scs_sessions SET expiry = now() + interval '1 hour'`)
		}, "read 1, imported 1", "alice", "1"},
		"all swept there":              {func(o *old, _ *app) { o.delete(token) }, nothing, "", "alice", "1"},
		"expired here, but not there":  {put(2*time.Hour, "alice", "1"), expire, "read 1, updated 1", "alice", "1"},
		"swept here, but not there":    {put(2*time.Hour, "alice", "1"), func(o *old, _ *app) { pgtest.Exec(o.t, o.pool, `DELETE FROM scs_sessions`) }, "read 1, imported 1", "alice", "1"},
		"expired on both sides":        {put(-time.Second, "alice", "1"), expire, "", "", ""},
		"its user there, fenced here":  {put(time.Hour, "bob", "2"), func(o *old, a *app) { _, _ = a.store.RevokeAll(o.t.Context(), "bob") }, "read 1, fenced 1", "alice", "1"},
		"others revoked here, kept it": {put(time.Hour, "alice", "2"), there(func(b *browser) { b.must("/revoke-others") }), "read 1, updated 1", "alice", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 5})
			a.mux.HandleFunc("/k", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, a.sm.GetString(r.Context(), "k")) })
			o := newOld(t, a.pool)
			o.put(token, time.Hour, userKey, "alice", "k", "1")
			if got := importing(t, a.store, imports); got != "read 1, imported 1" {
				t.Fatal(got)
			}
			tt.new(o, a)
			tt.old(o, a)
			dry := imports
			dry.DryRun = true
			if got := importing(t, a.store, dry); got != tt.want {
				t.Errorf("dry run: %s, want %s", got, tt.want)
			}
			for _, want := range []string{tt.want, again(tt.want)} {
				if got := importing(t, a.store, imports); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
			b := a.holding(t, token)
			if user, value := b.user(), b.must("/k"); user != tt.user || value != tt.value {
				t.Errorf("it is of %q and holds %q, want %q and %q", user, value, tt.user, tt.value)
			}
			checkIndex(t, a.pool, a.store, "alice", "bob")
			if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_user_sessions u
				WHERE NOT EXISTS (SELECT FROM scs_sessions s WHERE s.id = u.id AND s.user_id = u.user_id)`); n != 0 {
				t.Errorf("%d rows of the index are of no session of their user", n)
			}
		})
	}
}

// again is what an import counts that follows one with these counts.
func again(counts string) string {
	read, rest, _ := strings.Cut(counts, ", ")
	if strings.HasPrefix(rest, "fenced") {
		return counts
	}
	return read
}

// A session that has come while the import ran, by another one, is not taken for deleted.
func TestImportsOverlap(t *testing.T) {
	t.Parallel()
	gate := &pgtest.Gate{}
	schema := pgtest.Schema(t)
	pool, held := pgtest.PoolIn(t, schema), pgtest.PoolIn(t, schema, gate.Option())
	migrate(t, pool)
	o := newOld(t, pool)
	o.put("z", time.Hour, userKey, "alice")
	first := newStore(t, held, pgstore.Config{})
	var wg sync.WaitGroup
	gate.ShutAfter(t)
	wg.Go(func() {
		if got := importing(t, first, imports); got != "read 1" {
			t.Error(got)
		}
	})
	pgtest.Eventually(t, "the first has read the table", func() bool { return gate.Held() == 1 })
	o.put("a", time.Hour, userKey, "alice")
	if got := importing(t, newStore(t, pool, pgstore.Config{}), imports); got != "read 2, imported 2" {
		t.Error(got)
	}
	gate.Open()
	wg.Wait()
	if n := live(t, pool, "alice"); n != 2 {
		t.Errorf("%d live, want 2", n)
	}
}

// Sign-ins that race the import find what it has brought over.
func TestImportHoldsItsUsersLocks(t *testing.T) {
	t.Parallel()
	gate := &pgtest.Gate{}
	schema := pgtest.Schema(t)
	pool, held := pgtest.PoolIn(t, schema), pgtest.PoolIn(t, schema, gate.Option())
	migrate(t, pool)
	a := newApp(t, pool, pgstore.Config{UserLimit: 2})
	o := newOld(t, pool)
	for n := range 5 {
		o.put(fmt.Sprint("token", n), time.Hour, userKey, "alice")
	}
	var wg sync.WaitGroup
	gate.Hook(func(trip pgtest.Trip) {
		if strings.Contains(strings.Join(trip.SQL, ";"), "INSERT INTO scs_sessions") { // the locks are held
			wg.Go(func() { a.browser(t).must("/login", "user", "alice") })
			pgtest.Eventually(t, "the sign-in waits", func() bool {
				return pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid)
					WHERE NOT l.granted AND a.query LIKE 'INSERT INTO scs_users%' AND $1 = ANY(pg_blocking_pids(a.pid))`, trip.Conn.PgConn().PID()) > 0
			})
		}
	})
	if got := importing(t, newStore(t, held, pgstore.Config{}), imports); got != "read 5, imported 5" {
		t.Error(got)
	}
	wg.Wait()
	if n := live(t, pool, "alice"); n != 2 {
		t.Errorf("%d live, want 2", n)
	}
	checkIndex(t, pool, a.store, "alice")
}

// Nobody is evicted by the import; by the next sign-in those go that signed in first.
func TestImportEvictsNobodyAndKnowsAges(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2})
	o := newOld(t, a.pool)
	for n, since := range []time.Duration{3, 1, 5, 2, 4} { // hours ago, of a lifetime of a day
		data, err := o.codec.Encode(time.Now().Add(24*time.Hour-since*time.Hour), map[string]any{userKey: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		o.raw(fmt.Sprint("token", n), time.Hour, data)
	}
	o.put("of bob", time.Hour, userKey, "bob") // from the future, for this lifetime
	aged := imports
	aged.Lifetime = 24 * time.Hour
	if got := importing(t, a.store, aged); got != "read 6, imported 6" || live(t, a.pool, "alice") != 5 {
		t.Errorf("%s, %d live", got, live(t, a.pool, "alice"))
	}
	a.browser(t).must("/login", "user", "alice")
	if n := live(t, a.pool, "alice"); n != 2 || a.holding(t, "token1").user() != "alice" {
		t.Errorf("%d live: not the youngest is left of those that came", n)
	}
	o.put("token1", 2*time.Hour, userKey, "alice", "k", "v")
	if got := importing(t, a.store, imports); got != "read 6, updated 1" { // which leaves its age alone
		t.Error(got)
	}
	list, err := a.store.Sessions(t.Context(), "alice")
	if bobs, err := a.store.Sessions(t.Context(), "bob"); err != nil || len(bobs) != 1 || time.Since(bobs[0].CreatedAt) < -time.Minute {
		t.Error(bobs, err)
	}
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, s := range list {
		if age := time.Since(s.CreatedAt); s.ID == pgstore.IDOf("token1") && (age < 50*time.Minute || age > 70*time.Minute) {
			t.Errorf("it is %v old", age)
		}
	}
}

// A revocation here stops what comes from there, whenever that began.
func TestImportMeetsTheFence(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	o := newOld(t, a.pool)
	const users = 20
	for n := range users {
		user := fmt.Sprint("user", n)
		o.put(user, time.Hour, userKey, user)
		if n%2 > 0 {
			continue
		}
		if _, err := a.store.RevokeAll(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	if got := importing(t, a.store, imports); got != "read 20, imported 10, fenced 10" {
		t.Error(got)
	}
	for n := range users {
		user := fmt.Sprint("user", n)
		if got := live(t, a.pool, user); got != n%2 {
			t.Errorf("%s has %d", user, got)
		}
	}
}

type unknownType struct{ X int }

func TestImportLeavesBehindWhatItCannotRead(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := newApp(t, migrated(t), pgstore.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	o := newOld(t, a.pool)
	gob.RegisterName("unknown", unknownType{}) // and below its name is replaced by another
	o.put("unknown", time.Hour, userKey, "alice", "v", unknownType{1})
	pgtest.Exec(t, a.pool, `UPDATE sessions SET data = convert_to(replace(encode(data, 'escape'), 'unknown', 'unknowm'), 'UTF8')::bytea WHERE token = 'unknown'`)
	o.raw("damaged", time.Hour, []byte("secret"))
	o.put("no id", time.Hour, userKey, []string{"secret"})
	o.put("fine", time.Hour, userKey, "alice")
	if got := importing(t, a.store, imports); got != "read 4, imported 1, unreadable 3" {
		t.Error(got)
	}
	if a.holding(t, "fine").user() != "alice" {
		t.Error("one that can be read has not come")
	}
	for _, token := range []string{"unknown", "damaged", "no id"} {
		if !strings.Contains(log.String(), pgstore.IDOf(token)) || strings.Contains(log.String(), `"`+token) || strings.Contains(log.String(), "secret") {
			t.Errorf("%s: the log names no id, or too much: %s", token, log.String())
		}
	}
}

// jsonish is an app's own codec.
type jsonish struct{ scs.Codec }

func (c jsonish) Decode(b []byte) (time.Time, map[string]any, error) {
	if !bytes.HasPrefix(b, []byte("own")) {
		return time.Time{}, nil, errors.New("not of our own")
	}
	return c.Codec.Decode(b[3:])
}

func (c jsonish) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	b, err := c.Codec.Encode(deadline, values)
	return append([]byte("own"), b...), err
}

func TestImportReadsOtherTablesAndCodecs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		codec scs.Codec
		set   func(*pgstore.ImportOptions)
	}{
		"own":              {jsonish{scs.GobCodec{}}, func(o *pgstore.ImportOptions) { o.OldCodec = jsonish{scs.GobCodec{}} }},
		"ours":             {pgstore.Codec{}, func(*pgstore.ImportOptions) {}},
		"Qu\"oted":         {scs.GobCodec{}, func(*pgstore.ImportOptions) {}},
		"old_scs_sessions": {scs.GobCodec{}, func(*pgstore.ImportOptions) {}},
	} {
		a := newApp(t, migrated(t), pgstore.Config{})
		table := pgx.Identifier{pgtest.Query[string](t, a.pool, `SELECT current_schema()`), name}
		o := newOldTable(t, a.pool, table.Sanitize())
		o.codec = tt.codec
		o.put("token", time.Hour, userKey, "alice")
		opts := imports
		opts.Table = table
		tt.set(&opts)
		if got := importing(t, a.store, opts); got != "read 1, imported 1" || a.holding(t, "token").user() != "alice" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// What comes is sealed as all else, and compared as what it holds.
func TestImportAndReindexSealWhatTheyWrite(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{Seal: newRing(t, 1), AllowPlain: true})
	o := newOld(t, a.pool)
	o.put("old", time.Hour, userKey, "alice")
	for _, want := range []string{"read 1, imported 1", "read 1"} {
		if got := importing(t, a.store, imports); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	before := newUnkeyedApp(t, a.pool, scs.GobCodec{}).browser(t)
	before.must("/put", "key", userKey, "value", "bob")
	if n, err := a.store.Reindex(t.Context(), pgstore.Codec{UserKey: userKey}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions WHERE substr(data, 1, 8) <> '\x017365616c65643a'`); n != 0 {
		t.Errorf("%d are not sealed", n)
	}
	if a.holding(t, "old").user() != "alice" || before.on(a).user() != "bob" {
		t.Error("they do not open")
	}
}

// It is what scs passes to the store that the id is made of, hashed or not.
func TestImportKeepsHashedTokens(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	o := newOld(t, pool)
	store := newStore(t, pool, pgstore.Config{})
	oldManager, sm := newManager(oldStore{o}), newManager(store)
	oldManager.HashTokenInStore, sm.HashTokenInStore = true, true
	oldManager.Codec = scs.GobCodec{}
	ctx, err := oldManager.Load(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	oldManager.Put(ctx, userKey, "alice")
	token, _, err := oldManager.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := importing(t, store, imports); got != "read 1, imported 1" {
		t.Error(got)
	}
	if ctx, err = sm.Load(t.Context(), token); err != nil || sm.GetString(ctx, userKey) != "alice" {
		t.Errorf("it holds %v, %v", sm.Keys(ctx), err)
	}
}

// oldStore is as much of pgxstore as a commit needs.
type oldStore struct{ *old }

func (o oldStore) Commit(token string, data []byte, expiry time.Time) error {
	o.raw(token, time.Until(expiry), data)
	return nil
}
func (oldStore) Find(string) ([]byte, bool, error) { return nil, false, nil }
func (o oldStore) Delete(token string) error       { o.delete(token); return nil }

func TestImportFailsBeforeItBegins(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	store := newStore(t, pool, pgstore.Config{UserLimit: 1})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	newOld(t, pool)
	for name, tt := range map[string]struct {
		ctx  context.Context
		opts pgstore.ImportOptions
		want string
	}{
		"no UserKey":        {t.Context(), pgstore.ImportOptions{}, "UserKey"},
		"negative lifetime": {t.Context(), pgstore.ImportOptions{Codec: imports.Codec, Lifetime: -1}, "Lifetime"},
		"no table":          {t.Context(), pgstore.ImportOptions{Codec: imports.Codec, Table: pgx.Identifier{"nowhere"}}, `the table "nowhere"`},
		"cancelled":         {cancelled, imports, context.Canceled.Error()},
	} {
		r, err := store.Import(tt.ctx, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "migrations.Up") || counts(r) != "" {
			t.Errorf("%s: %v, %s", name, err, counts(r))
		}
	}
}

// A failure returns what is done, and the next call goes on.
func TestImportGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	o := newOld(t, pool)
	store := newStore(t, pool, pgstore.Config{})
	for n := range 250 {
		o.put(fmt.Sprintf("token%03d", n), time.Hour, userKey, "alice")
	}
	ctx, cancel := context.WithCancel(t.Context())
	opts := imports
	opts.Progress = func(pgstore.ImportResult) { cancel() }
	if r, err := store.Import(ctx, opts); !errors.Is(err, context.Canceled) || counts(r) != "read 200, imported 200" {
		t.Errorf("%v, %s", err, counts(r))
	}
	if got := importing(t, store, imports); got != "read 250, imported 50" {
		t.Error(got)
	}
	checkIndex(t, pool, store, "alice")
}
