package integration_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// Everything that the store, the migrations and the sweeper do, and much of what can go
// wrong: tokens and passwords are then looked for in all that was returned, logged or
// printed, and in what PostgreSQL shows and logs. So are the data of the sessions, but for
// where PostgreSQL is told to show them.
//
// Not parallel: it looks at what is logged by default.
func TestStoreSecretsAreNowhere(t *testing.T) {
	srv := pgtest.OwnServer(t, "shared_preload_libraries=pg_stat_statements", "track_activity_query_size=1MB",
		"log_connections=on", "log_error_verbosity=verbose")
	admin := pgtest.PoolOn(t, srv.DSN, "")
	pgtest.Exec(t, admin, "CREATE EXTENSION pg_stat_statements")
	said := &lockedBuffer{}
	oldLog, old := log.Writer(), slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(old); log.SetOutput(oldLog) })
	for name, test := range map[string]struct {
		mode pgx.QueryExecMode
		loud bool
		// Where session data are: in the server's log, its lines with parameters and the others,
		// and in pg_stat_activity.
		inParameters, inLog, inActivity bool
	}{
		"as pgx does by default":   {mode: pgx.QueryExecModeCacheStatement},
		"with all parameters":      {mode: pgx.QueryExecModeCacheStatement, loud: true, inParameters: true},
		"exec with all parameters": {mode: pgx.QueryExecModeExec, loud: true, inParameters: true},
		// What fails is logged by default, and what runs last is shown.
		"simple protocol": {mode: pgx.QueryExecModeSimpleProtocol, inLog: true, inActivity: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // with each other
			x := newExercise(t, srv, test.mode, test.loud)
			x.said = said
			x.run()

			tokens := append(x.tokens, x.passwords...)
			x.holdsNone("what was returned, logged or printed", x.said.String(), append(tokens, x.data))
			// Those who wait keep their last statement.
			activity := strings.Join(pgtest.Query[[]string](t, admin, `SELECT array_agg(query) FROM pg_stat_activity WHERE query <> ''`), "\n")
			statements := strings.Join(pgtest.Query[[]string](t, admin, `SELECT array_agg(query) FROM pg_stat_statements`), "\n")
			logged, err := srv.Log()
			if err != nil {
				t.Fatal(err)
			}
			x.holdsNone("pg_stat_activity", activity, tokens)
			x.holds("pg_stat_activity", activity, test.inActivity)
			x.holdsNone("pg_stat_statements", statements, append(tokens, x.data))
			x.holdsNone("the server's log", logged, tokens)
			var params, others []string
			for line := range strings.Lines(logged) {
				if strings.Contains(line, "parameters: ") {
					params = append(params, line)
				} else {
					others = append(others, line)
				}
			}
			x.holds("the parameters in the server's log", strings.Join(params, ""), test.inParameters)
			x.holds("the rest of the server's log", strings.Join(others, ""), test.inLog)
		})
	}
}

// exercise is what is done once, and its secrets.
type exercise struct {
	*testing.T
	dsn  string // of its schema
	pool *pgxpool.Pool
	mode pgx.QueryExecMode
	loud bool // the server logs all that it can

	store             *pgstore.Store
	data              string // is in each session
	tokens, passwords []string
	said              *lockedBuffer
}

func newExercise(t *testing.T, srv *pglocal.Server, mode pgx.QueryExecMode, loud bool) *exercise {
	x := &exercise{T: t, mode: mode, loud: loud, data: rand.Text()}
	schema := "x_" + strings.ToLower(rand.Text())
	pgtest.Exec(t, pgtest.PoolOn(t, srv.DSN, ""), "CREATE SCHEMA "+schema)
	u, err := url.Parse(srv.DSN)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	x.passwords = append(x.passwords, password)
	q := u.Query()
	q.Set("search_path", schema)
	q.Set("application_name", schema)
	if loud {
		q.Set("log_statement", "all")
		q.Set("log_min_duration_statement", "0")
		q.Set("log_parameter_max_length", "-1")
		q.Set("log_parameter_max_length_on_error", "-1")
	}
	u.RawQuery = q.Encode()
	x.dsn = u.String()
	x.pool = x.open(x.dsn)
	return x
}

func (x *exercise) open(dsn string) *pgxpool.Pool {
	return pgtest.PoolOn(x, dsn, "", pgtest.ExecMode(x.mode))
}

// with is the DSN with another password or host.
func (x *exercise) with(password, host string) string {
	u, err := url.Parse(x.dsn)
	if err != nil {
		x.Fatal(err)
	}
	if password != "" {
		u.User = url.UserPassword("postgres", password)
		x.passwords = append(x.passwords, password)
	}
	if host != "" {
		u.Host = host
	}
	return u.String()
}

// say notes what an app may log.
func (x *exercise) say(values ...any) {
	for _, v := range values {
		fmt.Fprintf(x.said, "%v %+v\n", v, v)
		switch err := v.(type) {
		case interface{ Unwrap() error }:
			x.say(err.Unwrap())
		case interface{ Unwrap() []error }:
			for _, e := range err.Unwrap() {
				x.say(e)
			}
		}
	}
}

// fails says an error that there has to be.
func (x *exercise) fails(what string, err error) {
	x.Helper()
	if err == nil {
		x.Errorf("%s: no error", what)
	}
	x.say(err)
}

func (x *exercise) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

func (x *exercise) newStore(pool *pgxpool.Pool, cfg pgstore.Config) *pgstore.Store {
	store, err := pgstore.New(pool, cfg)
	x.must(err)
	return store
}

// device is a browser of an app on a store.
func (x *exercise) device(store *pgstore.Store) *device {
	d := newDevice(x, store)
	d.token = rand.Text() // that nobody knows
	return d
}

// request is the device's, and notes what it gets.
func (x *exercise) request(d *device, steps ...func(context.Context) error) error {
	x.tokens = append(x.tokens, d.token)
	err := d.request(func(ctx context.Context) error {
		for _, step := range steps {
			if err := step(ctx); err != nil {
				return err
			}
		}
		x.say(d.store.StatusOf(ctx))
		if token := d.sm.Token(ctx); token != "" {
			x.tokens = append(x.tokens, token)
		}
		return nil
	})
	x.tokens = append(x.tokens, d.token)
	x.say(err)
	return err
}

func (x *exercise) signIn(d *device, user any) func(context.Context) error {
	return func(ctx context.Context) error { return d.store.SignIn(ctx, d.sm, user) }
}

func (x *exercise) put(d *device, key string) func(context.Context) error {
	return x.set(d, key, x.data)
}

func (x *exercise) set(d *device, key string, v any) func(context.Context) error {
	return func(ctx context.Context) error { d.sm.Put(ctx, key, v); return nil }
}

func (x *exercise) run() {
	x.fails("without tables", x.request(x.device(x.newStore(x.pool, pgstore.Config{}))))
	x.must(migrations.Up(x.Context(), x.pool))
	status, err := migrations.Status(x.Context(), x.pool)
	x.must(err)
	x.say(status)
	x.store = x.newStore(x.pool, pgstore.Config{UserLimit: 2, Timeout: 10 * time.Second})

	x.sessions()
	x.calls()
	x.iterate()
	x.misconfigured()
	x.faults()
	if !x.loud && x.mode == pgx.QueryExecModeCacheStatement { // alike in all modes
		x.damaged()
		x.sweeper()
	}
	if n, err := x.store.Forget(x.Context(), "alice"); err != nil || n == 0 {
		x.Errorf("forgot %d, %v", n, err)
	}
	d := x.device(x.store)
	x.must(x.request(d, x.put(d, "last"))) // what its connection has sent last stays in pg_stat_activity
}

// sessions begin, are written, merged, renewed, evicted, and end.
func (x *exercise) sessions() {
	a, b, c := x.device(x.store), x.device(x.store), x.device(x.store)
	renew := func(ctx context.Context) error { return a.sm.RenewToken(ctx) }
	x.must(x.request(a, x.put(a, "cart")))
	x.must(x.request(a, x.signIn(a, "alice"), x.set(a, "bytes", []byte(x.data))))
	x.must(x.request(a, x.put(a, "mine"), func(context.Context) error {
		overlapping := *a
		return x.request(&overlapping, x.put(&overlapping, "theirs"))
	}))
	if merges := x.store.Stat().Merges; merges != 1 {
		x.Errorf("%d merges", merges)
	}
	stolen := *a
	x.must(x.request(a, renew, x.put(a, "pin")))
	x.must(x.request(&stolen))
	x.must(x.request(b, x.signIn(b, "alice"), x.put(b, "pin")))
	x.must(x.request(c, x.signIn(c, "alice"), x.put(c, "pin")))
	x.must(x.request(a)) // evicted
	x.must(x.request(b, func(ctx context.Context) error { return b.sm.Destroy(ctx) }))
	x.must(x.request(b))
	reject := x.device(x.newStore(x.pool, pgstore.Config{UserLimit: 1, LimitPolicy: pgstore.Reject}))
	x.fails("beyond the limit", x.request(reject, x.signIn(reject, "alice"), x.put(reject, "pin")))
	x.say(x.store.Stat())
}

// calls are the methods that an app has beside scs's.
func (x *exercise) calls() {
	ctx := x.Context()
	a, b := x.device(x.store), x.device(x.store)
	for _, d := range []*device{a, b} {
		x.must(x.request(d, x.signIn(d, "bob"), x.put(d, "pin")))
	}
	list, err := x.store.Sessions(ctx, "bob")
	x.must(err)
	x.say(list)
	ok, err := x.store.Revoke(ctx, "bob", pgstore.IDOf(b.token))
	x.say(ok, err)
	_, err = x.store.RevokeOthers(ctx, "bob", b.token)
	x.fails("to keep what has ended", err)
	_, err = x.store.RevokeOthers(ctx, "bob", a.token)
	x.must(err)
	n, err := x.store.RevokeAll(ctx, "bob")
	x.say(n, err)
	for s, err := range x.store.Each(ctx) {
		x.say(s, err)
	}
	o, err := x.store.Overview(ctx)
	x.say(o, err)
	for _, user := range []string{"", strings.Repeat(x.data, 1<<20/len(x.data)), x.data + "\x00", x.data + "\xff"} {
		_, err := x.store.Sessions(ctx, user)
		x.fails("a user id that is none", err)
		x.fails("a user id that is none", x.request(a, x.signIn(a, user)))
	}
}

func (x *exercise) iterate() {
	d := x.device(x.store)
	all, err := x.store.AllCtx(x.Context())
	x.must(err)
	for key := range all {
		x.say(key)
	}
	commit := func(ctx context.Context) error {
		d.sm.Put(ctx, "swept", x.data)
		_, _, err := d.sm.Commit(ctx)
		return err
	}
	x.must(d.sm.Iterate(x.Context(), commit))
	x.fails("twice in a callback", d.sm.Iterate(x.Context(), func(ctx context.Context) error {
		return errors.Join(commit(ctx), commit(ctx))
	}))
	x.fails("a renewal", d.sm.Iterate(x.Context(), d.sm.RenewToken))
	x.must(d.sm.Iterate(x.Context(), d.sm.Destroy))
}

func (x *exercise) misconfigured() {
	_, err := pgstore.New(x.pool, pgstore.Config{UserLimit: -1})
	x.fails("a limit", err)
	d := x.device(x.store)
	x.must(x.request(d, x.signIn(d, "alice"), x.put(d, "pin")))
	x.fails("no user id", x.request(d, x.set(d, userKey, []byte(x.data))))
	x.fails("what cannot be encoded", x.request(d, x.set(d, "f", func() string { return x.data })))
	x.fails("a type that gob does not know", x.request(d, x.set(d, "s", struct{ S string }{x.data})))
	d.sm.Codec = pgstore.Codec{}
	x.fails("a limit without a UserKey", x.request(d, x.put(d, "pin")))
	other := x.device(x.newStore(x.pool, pgstore.Config{}))
	other.token, other.sm.Codec = d.token, scs.GobCodec{}
	x.say(x.request(other, x.put(other, "pin")))
}

// damaged are rows of which every byte is another one, in turn: of gob's, also the length of
// a name, into which the data that follow then fall.
func (x *exercise) damaged() {
	for _, codec := range []scs.Codec{pgstore.Codec{UserKey: userKey}, scs.GobCodec{}} {
		data, err := codec.Encode(time.Now().Add(time.Hour), map[string]any{"pin": x.data, "n": 1})
		x.must(err)
		d := x.device(x.newStore(x.pool, pgstore.Config{}))
		x.must(d.store.Commit(d.token, data, time.Now().Add(time.Hour)))
		for i := range data {
			row := slices.Clone(data)
			row[i] ^= 0x22
			pgtest.Exec(x, x.pool, `UPDATE scs_sessions SET data = decode($1, 'hex'), expiry = now() + interval '1 hour' WHERE id = $2`,
				hex.EncodeToString(row), pgstore.IDOf(d.token))
			read := *d
			x.say(x.request(&read))
		}
		pgtest.Exec(x, x.pool, `DELETE FROM scs_sessions WHERE id = $1`, pgstore.IDOf(d.token))
	}
}

// faults of the database, and of the way to it.
func (x *exercise) faults() {
	d := x.device(x.store)
	x.must(x.request(d, x.put(d, "pin"), func(context.Context) error {
		pgtest.Exec(x, x.open(x.dsn), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()`)
		return nil
	}))
	tx, err := x.pool.Begin(x.Context())
	x.must(err)
	_, err = tx.Exec(x.Context(), `SELECT 1 FROM scs_sessions FOR UPDATE`)
	x.must(err)
	impatient := x.device(x.newStore(x.pool, pgstore.Config{Timeout: 100 * time.Millisecond}))
	impatient.token = d.token
	x.fails("a row that is locked", x.request(impatient, x.put(impatient, "other")))
	x.must(tx.Rollback(x.Context()))
	// A trigger of the operator's.
	pgtest.Exec(x, x.pool, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE unique_violation; END $$`)
	pgtest.Exec(x, x.pool, `CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION refuse()`)
	x.fails("refused by a constraint", x.request(d, x.put(d, "refused")))
	fresh := x.device(x.store)
	x.fails("refused by a constraint", x.request(fresh, x.put(fresh, "refused")))
	pgtest.Exec(x, x.pool, `DROP TRIGGER refuse ON scs_sessions`)
	for what, dsn := range map[string]string{
		"a wrong password": x.with("wrong-"+rand.Text(), ""), "nobody there": x.with("absent-"+rand.Text(), "127.0.0.1:1"),
	} {
		pool := x.open(dsn)
		away := x.device(x.newStore(pool, pgstore.Config{}))
		x.fails(what, x.request(away, x.put(away, "pin")))
		x.fails(what, migrations.Up(x.Context(), pool))
		_, err := cleanup.Sweep(x.Context(), pool, cleanup.Options{})
		x.fails(what, err)
	}
	closed := x.open(x.dsn)
	closed.Close()
	x.fails("a pool that is closed", x.request(x.device(x.newStore(closed, pgstore.Config{}))))
}

func (x *exercise) sweeper() {
	pgtest.Exec(x, x.pool, `UPDATE scs_sessions SET expiry = now() - interval '1 year' WHERE user_id IS NULL`)
	for _, args := range [][]string{
		{"-dry-run"}, {"-json", "-orphans"},
		{"-dsn", x.with("wrong-"+rand.Text(), ""), "-json"}, {"-dsn", x.with("absent-"+rand.Text(), "127.0.0.1:1")},
		{"-dsn", x.with("fragment-"+rand.Text(), "") + "#"}, {"-schema", x.dsn}, {x.dsn}, {"-batch", x.dsn},
	} {
		cmd := exec.CommandContext(x.Context(), sweeperBinary(x), args...)
		cmd.Env = []string{"DATABASE_URL=" + x.dsn}
		stdout, stderr, status := output(x, cmd)
		x.say(stdout, stderr, status)
	}
}

// holdsNone fails for each secret that stands in text as it is or, as PostgreSQL shows
// bytes, in hexadecimal.
func (x *exercise) holdsNone(what, text string, secrets []string) {
	x.Helper()
	for _, s := range secrets {
		if i := indexOf(text, s); s != "" && i >= 0 {
			x.Errorf("%s has a secret: ...%q...", what, text[max(0, i-200):min(len(text), i+100)])
			return
		}
	}
}

// holds checks whether text has session data in it.
func (x *exercise) holds(what, text string, want bool) {
	x.Helper()
	if !want {
		x.holdsNone(what, text, []string{x.data})
	} else if indexOf(text, x.data) < 0 {
		x.Errorf("%s has no session data: does the test look in the right place?", what)
	}
}

func indexOf(text, secret string) int {
	if i := strings.Index(text, secret); i >= 0 {
		return i
	}
	return strings.Index(text, hex.EncodeToString([]byte(secret)))
}

// A constraint of the operator's, which may quote what it refuses: in a field of the cause,
// and in the server's log, but not in an error's text.
func TestStoreErrorsDoNotQuoteARefusedRow(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	pgtest.Exec(t, pool, `ALTER TABLE scs_sessions ADD CHECK (octet_length(data) < 10)`)
	d := newDevice(t, newStore(t, pool, pgstore.Config{}))
	err := d.request(func(ctx context.Context) error { d.sm.Put(ctx, "k", "hush"); return nil })
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || indexOf(refused.Detail, "hush") < 0 {
		t.Fatalf("%v: %#v", err, refused)
	}
	if text := fmt.Sprintf("%v %+v", err, err); indexOf(text, "hush") >= 0 {
		t.Error(text)
	}
}

// What a dump of the tables has opens nothing, whichever way it is sent.
func TestStoreDumpOpensNothing(t *testing.T) {
	t.Parallel()
	for name, hashed := range map[string]bool{"tokens": false, "hashed tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := migrated(t)
			d := newDevice(t, newStore(t, pool, pgstore.Config{}))
			d.sm.HashTokenInStore = hashed
			d.signIn("alice")
			d.must(func(ctx context.Context) error { return d.sm.RenewToken(ctx) })
			if d.user() != "alice" {
				t.Fatal("not signed in")
			}
			var dump []string
			for _, table := range []string{"scs_sessions", "scs_user_sessions", "scs_users"} {
				dump = append(dump, pgtest.Query[[]string](t, pool, `SELECT array_agg(v) FROM `+table+` r,
					jsonb_each_text(to_jsonb(r)) AS f(k, v) WHERE v <> ''`)...)
			}
			all, err := d.store.All()
			if err != nil {
				t.Fatal(err)
			}
			for key, data := range all {
				dump = append(dump, key, string(data))
			}
			if len(dump) < 20 {
				t.Fatalf("too few: %q", dump)
			}
			for _, text := range dump {
				raw, _ := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(text, `\x`), "-", ""))
				for _, cookie := range []string{text, strings.ReplaceAll(text, "-", ""), string(raw), "\x00id:" + text + ":1"} {
					opensNothing(t, d, cookie)
				}
			}
		})
	}
}

// opensNothing sends a cookie, and gives the text to scs as an app may that takes tokens from elsewhere.
func opensNothing(t *testing.T, d *device, token string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Cookie", d.sm.Cookie.Name+"="+token)
	w := httptest.NewRecorder()
	d.store.Track(d.sm.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if user := d.sm.GetString(r.Context(), userKey); user != "" {
			t.Errorf("the cookie %q signs %s in", token, user)
		}
	}))).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("the cookie %q: %d", token, w.Code)
	}
	ctx, err := d.sm.Load(t.Context(), token)
	if err != nil {
		t.Errorf("the token %q: %v", token, err)
	} else if user := d.sm.GetString(ctx, userKey); user != "" {
		t.Errorf("the token %q signs %s in", token, user)
	}
}
