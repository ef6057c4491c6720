package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// By the database's clock it is noon, so that tests can stand on both sides of it.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

const stopClock = `CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT timestamptz '2030-01-02 12:00Z' $$;
	CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT now() + interval '1 second' $$`

// tables are those of a schema of the test's own.
type tables struct {
	*db.DB
	t    *testing.T
	pool *pgxpool.Pool
}

func open(t *testing.T, opts ...pgtest.Option) *tables {
	t.Helper()
	schema := pgtest.Schema(t)
	admin := pgtest.PoolIn(t, schema)
	pgtest.Migrate(t, admin, func(ctx context.Context, pool *pgxpool.Pool) error { return migrations.Up(ctx, pool) })
	for sql := range strings.SplitSeq(stopClock, ";") {
		pgtest.Exec(t, admin, sql)
	}
	opts = append(opts, pgtest.Param("search_path", `"`+schema+`", pg_catalog`)) // whose now() comes second
	pool := pgtest.PoolIn(t, schema, opts...)
	return &tables{DB: db.New(pool, "", 5*time.Second, 64, func() {}), t: t, pool: pool}
}

// inEveryMode runs a test in each of pgx's query exec modes: they encode and scan in ways
// of their own.
func inEveryMode(t *testing.T, f func(*testing.T, *tables)) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			f(t, open(t, pgtest.ExecMode(mode)))
		})
	}
}

func id(n int) pgtype.UUID {
	return pgtype.UUID{Bytes: [16]byte{14: byte(n >> 8), 15: byte(n)}, Valid: true}
}

func ids(ns ...int) (list []pgtype.UUID) {
	for _, n := range ns {
		list = append(list, id(n))
	}
	return list
}

func numbers(list []pgtype.UUID) string {
	ns := []int{}
	for _, id := range list {
		ns = append(ns, int(id.Bytes[14])<<8|int(id.Bytes[15]))
	}
	return fmt.Sprint(ns)
}

// send sends a batch, which must work.
func (x *tables) send(add func(*db.Batch)) {
	x.t.Helper()
	b := x.Batch()
	add(b)
	if err := x.Send(x.t.Context(), b); err != nil {
		x.t.Fatal(err)
	}
}

// session is a row to put into the session table. It was last seen a minute ago.
type session struct {
	n       int
	user    string
	reason  string        // why it was ended, "" if it was not
	version int64         // 0 is 3
	left    time.Duration // until its expiry
	linked  bool          // the version is really 0
}

func (x *tables) put(list ...session) {
	x.t.Helper()
	for _, s := range list {
		if s.version == 0 && !s.linked {
			s.version = 3
		}
		pgtest.Exec(x.t, x.pool, `INSERT INTO scs_sessions (id, user_id, data, version, expiry, last_seen_at, end_reason)
			VALUES ($1, nullif($2, ''), 'data', $3, now() + $4::float8 * interval '1 microsecond', now() - interval '1 minute', nullif($5, ''))`,
			id(s.n), s.user, s.version, s.left.Microseconds(), s.reason)
	}
}

// index enters sessions in the user's index. Session n began n minutes ago.
func (x *tables) index(user string, ns ...int) {
	x.t.Helper()
	for _, n := range ns {
		x.send(func(b *db.Batch) { b.Enlist(user, id(n), since(n), db.Client{}) })
	}
}

func since(n int) row.Place { return row.Place{Since: began(n)} }

func began(n int) time.Time { return noon.Add(-time.Duration(n) * time.Minute) }

// row describes a session as it is stored: user, version, end reason, data, and the
// seconds until its expiry and until it was last seen; "" for none.
func (x *tables) row(n int) string {
	x.t.Helper()
	return *pgtest.Query[*string](x.t, x.pool, `SELECT coalesce(min(concat_ws(' ', coalesce(user_id, 'nobody'), 'v' || version, coalesce(end_reason, 'live'),
			quote_literal(encode(data, 'escape')), extract(epoch FROM expiry - now())::float8, extract(epoch FROM last_seen_at - now())::float8)), '')
		FROM scs_sessions WHERE id = $1`, id(n))
}

// indexed describes a user's index: "1 10m0s ip agent label" each.
func (x *tables) indexed(user string) string {
	x.t.Helper()
	return pgtest.Query[string](x.t, x.pool, `SELECT coalesce(string_agg(concat_ws(' ', right(id::text, 2), now() - created_at, host(ip), user_agent, label), ', ' ORDER BY id), '')
		FROM scs_user_sessions WHERE user_id = $1`, user)
}
