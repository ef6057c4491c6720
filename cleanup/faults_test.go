package cleanup_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/internal/pgtest"
)

// terminate ends the server processes of a pool whose application_name is this.
func terminate(t testing.TB, pool *pgxpool.Pool, name string) {
	t.Helper()
	pgtest.Exec(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, name)
	pgtest.Eventually(t, "they have ended", func() bool {
		return pgtest.Query[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, name) == 0
	})
}

func TestSweepGoesOnOnAnotherConnection(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		schema := schemaOf(t, pool)
		for i, mode := range modes {
			insertSessions(t, pool, i*100, 40, "-3 days", "")
			own := pgtest.PoolIn(t, schema, pgtest.ExecMode(mode), pgtest.MaxConns(1), pgtest.Param("application_name", schema))
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Batch: 10, Pause: time.Nanosecond, Progress: func(r cleanup.Result) {
				if r.Batches%2 == 1 {
					terminate(t, pool, schema)
				}
			}})
			if err != nil || r.Rows() != 40 || r.UserRows != 30 || r.Left != 0 || !r.Counted {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
		}
	})
}

// breaking makes connections that break when they are told to.
type breaking struct {
	answer  atomic.Pointer[string] // the answer to the next statement with this text is lost
	refused atomic.Bool            // there are no new ones
}

func (b *breaking) option() pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // the text is sent each time
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if b.refused.Load() {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			conn, err := dial(ctx, network, addr)
			return &breakingConn{Conn: conn, breaking: b}, err
		}
	}
}

type breakingConn struct {
	net.Conn
	breaking *breaking
	broken   atomic.Bool
}

func (c *breakingConn) Write(p []byte) (int, error) {
	if text := c.breaking.answer.Load(); text != nil && bytes.Contains(p, []byte(*text)) && c.breaking.answer.CompareAndSwap(text, nil) {
		c.broken.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *breakingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.broken.Load() {
		return n, err
	}
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
}

// The batch is gone, and nobody can say what was in it.
func TestSweepDoesNotCountABatchWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		insertSessions(t, pool, 100, 40, "1 hour", "")
		var b breaking
		own := pgtest.PoolIn(t, schemaOf(t, pool), b.option())
		text := "DELETE FROM scs_sessions WHERE ctid" // with its COMMIT
		if strings.HasSuffix(t.Name(), "portable") {
			text = "COMMIT\x00"
		}
		calls := 0
		r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Batch: 10, Pause: time.Nanosecond, Progress: func(cleanup.Result) {
			if calls++; calls == 2 {
				b.answer.Store(&text)
			}
		}})
		if err != nil || r.Rows() != 30 || r.Left != 0 || b.answer.Load() != nil {
			t.Errorf("%+v, %v", r, err)
		}
		if sessions, userRows := left(t, pool); sessions != 40 || userRows != 30 {
			t.Errorf("%d sessions and %d user rows are left", sessions, userRows)
		}
	})
}

func TestSweepSaysWhatBrokeItsConnection(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		insertSessions(t, pool, 0, 40, "-3 days", "")
		schema := schemaOf(t, pool)
		for first, broken := range map[string]func(b *breaking){
			"terminating connection due to administrator command (SQLSTATE 57P01)": func(*breaking) { terminate(t, pool, schema) },
			syscall.ECONNRESET.Error(): func(b *breaking) { text := "BEGIN"; b.answer.Store(&text) },
		} {
			var b breaking
			own := pgtest.PoolIn(t, schema, b.option(), pgtest.MaxConns(1), pgtest.Param("application_name", schema))
			r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Batch: 5, Pause: time.Nanosecond, Progress: func(cleanup.Result) {
				b.refused.Store(true)
				broken(&b)
			}})
			if err == nil || r.Rows() != 5 || r.Counted {
				t.Fatalf("%+v, %v", r, err)
			}
			for _, want := range []string{"cleanup: delete sessions: ", first, syscall.ECONNREFUSED.Error()} {
				if strings.Count(err.Error(), want) != 1 {
					t.Errorf("%q is not in %v, once", want, err)
				}
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v", err)
			}
		}
	})
}

// Whoever stops it, or has given it little time, does not wait for a server.
func TestSweepWaitsForAServerWithinItsBudget(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	for name, stopped := range map[string]bool{"stopped": true, "out of time": false} {
		insertSessions(t, pool, 0, 10, "-3 days", "")
		var b breaking
		stop := make(chan struct{})
		o := cleanup.Options{Batch: 5, Pause: time.Nanosecond, Stop: stop}
		if !stopped {
			o.MaxDuration = time.Nanosecond
		}
		o.Progress = func(cleanup.Result) {}
		own := pgtest.PoolIn(t, schemaOf(t, pool), b.option())
		text := "emit_message" // of the end of a sweep
		if stopped {
			o.Progress = func(cleanup.Result) { close(stop) }
		} else {
			text = "count(*)"
		}
		b.answer.Store(&text)
		_, err := cleanup.Sweep(t.Context(), own, o)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		pgtest.Exec(t, pool, `TRUNCATE scs_sessions, scs_user_sessions`)
	}
}

// silence is a host that vanishes once a statement with this text has been answered.
type silence struct {
	text    string
	reached chan struct{}
	done    chan struct{}
	used    atomic.Bool
}

func (s *silence) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, s, data.SQL)
}

func (s *silence) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if sql, _ := ctx.Value(s).(string); strings.HasPrefix(sql, s.text) && s.used.CompareAndSwap(false, true) {
		close(s.reached)
		<-s.done
	}
}

func TestAVanishedSweepHoldsNoLocks(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		abandon(t, pool, 20, 20)
		insertSessions(t, pool, 100, 40, "-3 days", "")
		vanishes := map[string]string{"DELETE FROM scs_user_sessions": "scs_user_sessions"}
		if strings.HasSuffix(t.Name(), "portable") { // else a session is deleted in one round trip
			vanishes["DELETE FROM scs_sessions"] = "scs_sessions"
		}
		for text, table := range vanishes {
			s := &silence{text: text, reached: make(chan struct{}), done: make(chan struct{})}
			own := pgtest.PoolIn(t, schemaOf(t, pool), func(c *pgxpool.Config) { c.ConnConfig.Tracer = s })
			ended := make(chan error, 1)
			go func() {
				_, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Orphans: true})
				ended <- err
			}()
			<-s.reached
			locked := func() bool {
				_, err := pool.Exec(t.Context(), `SELECT FROM `+table+` FOR UPDATE NOWAIT`)
				return err != nil
			}
			if !locked() {
				t.Errorf("%s: nothing was locked", table)
			}
			pgtest.Eventually(t, "the server ends the transaction", func() bool { return !locked() })
			close(s.done)
			if err := <-ended; err != nil { // it goes on
				t.Errorf("%s: %v", table, err)
			}
			abandon(t, pool, 20, 20)
			insertSessions(t, pool, 100, 40, "-3 days", "")
		}
	})
}

// There is no moment at which a transaction may be idle for longer.
func TestEveryTransactionBoundsItsIdleness(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		abandon(t, pool, 20, 20)
		insertSessions(t, pool, 100, 40, "-3 days", "")
		var gate pgtest.Gate
		own := pgtest.PoolIn(t, schemaOf(t, pool), gate.Option())
		if _, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Orphans: true}); err != nil {
			t.Fatal(err)
		}
		begun := 0
		for _, trip := range gate.Trips() {
			for i, sql := range trip.SQL {
				if !strings.HasPrefix(strings.ToUpper(sql), "BEGIN") {
					continue
				}
				begun++
				if i+1 == len(trip.SQL) || !strings.Contains(trip.SQL[i+1], "idle_in_transaction_session_timeout") {
					t.Errorf("%q", trip.SQL)
				}
			}
		}
		if begun < 5 {
			t.Errorf("%d transactions", begun)
		}
	})
}

// Results are read as PostgreSQL writes them, whatever a role or a database is set to.
func TestSweepReadsResultsUnderAnySettings(t *testing.T) {
	t.Parallel()
	bothPaths(t, func(t *testing.T, pool *pgxpool.Pool) {
		for _, mode := range modes {
			insertSessions(t, pool, 100, 20, "-3 days", "")
			abandon(t, pool, 20, 20)
			own := pgtest.PoolIn(t, schemaOf(t, pool), pgtest.ExecMode(mode), pgtest.Param("DateStyle", "SQL, DMY"),
				pgtest.Param("IntervalStyle", "sql_standard"), pgtest.Param("bytea_output", "escape"),
				pgtest.Param("TimeZone", "Asia/Kathmandu"), pgtest.Param("extra_float_digits", "-15"))
			oldest := pgtest.Query[time.Time](t, pool, `SELECT min(sweep_at) FROM scs_sessions`)
			if r, err := cleanup.Inspect(t.Context(), own, cleanup.Options{Orphans: true}); err != nil || r.Total.Rows() != 20 || !r.Total.OldestLeft.Equal(oldest) {
				t.Errorf("%v: %+v, %v", mode, r.Total, err)
			}
			if r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{MaxDuration: 1}); err != nil || !r.OldestLeft.Equal(oldest) {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
			if r, err := cleanup.Sweep(t.Context(), own, cleanup.Options{Orphans: true, Batch: 15}); err != nil || r.Rows() != 20 || r.OrphanUserRows != 15 {
				t.Errorf("%v: %+v, %v", mode, r, err)
			}
			pgtest.Exec(t, pool, `TRUNCATE scs_sessions, scs_user_sessions, scs_users`)
		}
	})
}
