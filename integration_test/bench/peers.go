package main

import (
	"context"
	"database/sql"
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/postgresstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq" // what postgresstore's documentation uses

	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

const (
	userKey     = "userID"
	idleTimeout = 30 * time.Minute
)

func init() { gob.Register(time.Time{}) }

// peer is one way to keep sessions, with the sessions in it.
type peer struct {
	name    string
	ours    *pgstore.Store
	sm      *scs.SessionManager
	pool    *pgxpool.Pool // nil without PostgreSQL
	server  processes
	app     http.Handler
	path    string // of the requests with an existing session
	tokens  []string
	drop    func() error
	plotted bool
	// op, where not nil, replaces the app's requests.
	op func(*client) error
}

// session is what each of them holds: six keys.
func (b *bench) session(n int) map[string]any {
	return map[string]any{
		userKey: b.userName(n), "name": "Alice Liddell", "since": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"role": "editor", "count": 42, "csrf": "f3a91c0d5be74f6f8f1d0c8a4b9e7d21f3a91c0d5be",
	}
}

func (b *bench) userName(n int) string { return fmt.Sprintf("user-%d", n/b.perUser) }

// token is as long as those of scs.
func token(n int) string { return fmt.Sprintf("%043d", n) }

func (b *bench) manager(store scs.Store, codec scs.Codec) *scs.SessionManager {
	sm := scs.New()
	sm.Store, sm.Codec, sm.IdleTimeout, sm.Lifetime = store, codec, idleTimeout, 24*time.Hour
	return sm
}

// expiries says when session i expires.
type expiries func(i int) time.Time

func (*bench) alive(int) time.Time { return time.Now().Add(idleTimeout) }

// finish makes a peer of a manager whose store holds the sessions.
func (b *bench) finish(p *peer) *peer {
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) { p.sm.GetString(r.Context(), userKey) })
	mux.HandleFunc("/write", func(_ http.ResponseWriter, r *http.Request) {
		p.sm.Put(r.Context(), "count", p.sm.GetInt(r.Context(), "count")+1)
	})
	mux.HandleFunc("/signin", func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("X-User")
		var err error
		if p.ours != nil {
			err = p.ours.SignIn(r.Context(), p.sm, user)
		} else if err = p.sm.RenewToken(r.Context()); err == nil {
			p.sm.Put(r.Context(), userKey, user)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	p.app = p.sm.LoadAndSave(mux)
	if p.ours != nil {
		p.app = p.ours.Track(p.app)
	}
	p.path = "/read"
	if p.pool != nil {
		p.server = b.server
	}
	if p.tokens == nil {
		p.tokens = make([]string, b.sessions)
		for i := range p.tokens {
			p.tokens[i] = token(i)
		}
	}
	return p
}

// scspg is ours.
func (b *bench) scspg(ctx context.Context, name string, sessions int, cfg pgstore.Config) (*peer, error) {
	pool, _, drop, err := b.schema(ctx)
	if err != nil {
		return nil, err
	}
	p := &peer{name: name, pool: pool, drop: drop}
	if err := b.makeOurs(ctx, p, cfg, sessions, b.alive); err != nil {
		return nil, errors.Join(err, drop())
	}
	return b.finish(p), nil
}

// makeOurs migrates and fills.
func (b *bench) makeOurs(ctx context.Context, p *peer, cfg pgstore.Config, sessions int, expiry expiries) (err error) {
	if err := migrations.Up(ctx, p.pool); err != nil {
		return err
	}
	if p.ours, err = pgstore.New(p.pool, cfg); err != nil {
		return err
	}
	p.sm = b.manager(p.ours, pgstore.Codec{UserKey: userKey})
	return b.fillOurs(ctx, p, sessions, expiry)
}

// fillOurs writes the sessions by COPY, as sign-ins would have left them.
func (b *bench) fillOurs(ctx context.Context, p *peer, sessions int, expiry expiries) error {
	deadline := time.Now().Add(24 * time.Hour).UTC()
	_, err := p.pool.CopyFrom(ctx, pgx.Identifier{"scs_sessions"}, []string{"id", "user_id", "data", "expiry"},
		pgx.CopyFromSlice(sessions, func(i int) ([]any, error) {
			data, err := p.sm.Codec.Encode(deadline, b.session(i))
			return []any{pgstore.IDOf(token(i)), b.userName(i), data, expiry(i)}, err
		}))
	if err != nil {
		return err
	}
	for _, sql := range []string{
		`INSERT INTO scs_user_sessions (user_id, id, ip, user_agent) SELECT user_id, id, '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64) bench' FROM scs_sessions`,
		`INSERT INTO scs_users (user_id) SELECT DISTINCT user_id FROM scs_sessions`,
		`VACUUM ANALYZE scs_sessions`, `VACUUM ANALYZE scs_user_sessions`, `VACUUM ANALYZE scs_users`,
	} {
		if _, err := p.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return b.warm(ctx, p.pool)
}

// pgxstoreTable is as the documentation of pgxstore and postgresstore gives it.
const pgxstoreTable = `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`

func (b *bench) fillTheirs(ctx context.Context, pool *pgxpool.Pool, sessions int, expiry expiries) error {
	deadline := time.Now().Add(24 * time.Hour).UTC()
	if _, err := pool.Exec(ctx, pgxstoreTable); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, `CREATE INDEX sessions_expiry_idx ON sessions (expiry)`); err != nil {
		return err
	}
	_, err := pool.CopyFrom(ctx, pgx.Identifier{"sessions"}, []string{"token", "data", "expiry"},
		pgx.CopyFromSlice(sessions, func(i int) ([]any, error) {
			data, err := scs.GobCodec{}.Encode(deadline, b.session(i))
			return []any{token(i), data, expiry(i)}, err
		}))
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `VACUUM ANALYZE sessions`)
	return err
}

func (b *bench) pgxstore(ctx context.Context) (*peer, error) {
	pool, _, drop, err := b.schema(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.fillTheirs(ctx, pool, b.sessions, b.alive); err != nil {
		return nil, errors.Join(err, drop())
	}
	return b.finish(&peer{name: "pgxstore", pool: pool, drop: drop, sm: b.manager(pgxstore.NewWithCleanupInterval(pool, 0), scs.GobCodec{})}), nil
}

func (b *bench) postgresstore(ctx context.Context) (*peer, error) {
	pool, name, drop, err := b.schema(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.fillTheirs(ctx, pool, b.sessions, b.alive); err != nil {
		return nil, errors.Join(err, drop())
	}
	db, err := sql.Open("postgres", b.postgres.DSN+"&search_path="+name)
	if err != nil {
		return nil, errors.Join(err, drop())
	}
	db.SetMaxOpenConns(b.conns)
	db.SetMaxIdleConns(b.conns)
	return b.finish(&peer{name: "postgresstore", pool: pool, sm: b.manager(postgresstore.NewWithCleanupInterval(db, 0), scs.GobCodec{}),
		drop: func() error { return errors.Join(db.Close(), drop()) }}), nil
}

func (b *bench) redisstore(ctx context.Context) (*peer, error) {
	pool := b.redis.pool(b.conns)
	conn := pool.Get()
	_, err := conn.Do("FLUSHALL")
	_ = conn.Close()
	if err != nil {
		return nil, err
	}
	return b.inMemory(&peer{name: "redisstore", server: b.redis.server(), sm: b.manager(redisstore.New(pool), scs.GobCodec{}), drop: pool.Close})
}

func (b *bench) memstore(context.Context) (*peer, error) {
	return b.inMemory(&peer{name: "memstore", sm: b.manager(memstore.NewWithCleanupInterval(0), scs.GobCodec{}), drop: func() error { return nil }})
}

func (b *bench) inMemory(p *peer) (*peer, error) {
	deadline := time.Now().Add(24 * time.Hour).UTC()
	for i := range b.sessions {
		data, err := p.sm.Codec.Encode(deadline, b.session(i))
		if err != nil {
			return nil, err
		}
		if err := p.sm.Store.Commit(token(i), data, time.Now().Add(idleTimeout)); err != nil {
			return nil, err
		}
	}
	return b.finish(p), nil
}

// readOnly is the floor under any store of scs: it does one read and nothing else.
type readOnly struct {
	pool *pgxpool.Pool
	ids  map[string]pgtype.UUID
}

func (s readOnly) FindCtx(ctx context.Context, token string) (data []byte, found bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT data FROM scs_sessions WHERE id = $1`, s.ids[token]).Scan(&data)
	return data, err == nil, err
}

func (readOnly) CommitCtx(context.Context, string, []byte, time.Time) error { return nil }
func (readOnly) DeleteCtx(context.Context, string) error                    { return nil }
func (readOnly) Find(string) ([]byte, bool, error)                          { return nil, false, errors.ErrUnsupported }
func (readOnly) Commit(string, []byte, time.Time) error                     { return errors.ErrUnsupported }
func (readOnly) Delete(string) error                                        { return errors.ErrUnsupported }

func (b *bench) floor(ctx context.Context) (*peer, error) {
	p, err := b.scspg(ctx, "scs over a store that does only that", b.sessions, pgstore.Config{})
	if err != nil {
		return nil, err
	}
	store := readOnly{p.pool, make(map[string]pgtype.UUID, len(p.tokens))}
	for _, token := range p.tokens {
		var id pgtype.UUID
		if err := id.Scan(pgstore.IDOf(token)); err != nil {
			return nil, errors.Join(err, p.drop())
		}
		store.ids[token] = id
	}
	p.ours = nil
	p.sm.Store = store
	return b.finish(p), nil
}

const rawName = "one read by primary key"

// raw is the limit: one prepared read by primary key, and nothing around it.
func (b *bench) raw(ctx context.Context) (*peer, error) {
	p, err := b.scspg(ctx, rawName, b.sessions, pgstore.Config{})
	if err != nil {
		return nil, err
	}
	ids := make([]any, b.sessions)
	for i := range ids {
		var id pgtype.UUID
		if err := id.Scan(pgstore.IDOf(token(i))); err != nil {
			return nil, errors.Join(err, p.drop())
		}
		ids[i] = id
	}
	p.op = func(c *client) error {
		var data []byte
		return p.pool.QueryRow(c.request.Context(), `SELECT data FROM scs_sessions WHERE id = $1`, ids[c.rand.IntN(len(ids))]).Scan(&data)
	}
	return p, nil
}
