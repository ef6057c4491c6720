package pgstore_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// losingBatch loses the answer to a round trip with more than one data write, or the round
// trip itself.
type losingBatch struct {
	net.Conn
	lost   *atomic.Bool
	unsent bool
	this   atomic.Bool
}

func losesBatch(lost *atomic.Bool, unsent bool) pgtest.Option {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text is sent each time
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &losingBatch{Conn: conn, lost: lost, unsent: unsent}, err
		}
	}
}

func (c *losingBatch) Write(p []byte) (int, error) {
	if bytes.Count(p, []byte("SET data = $2")) < 2 || c.lost.Swap(true) {
		return c.Conn.Write(p)
	}
	c.this.Store(true)
	if !c.unsent {
		return c.Conn.Write(p)
	}
	return len(p), c.Close()
}

func (c *losingBatch) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.this.Load() {
		return n, err
	}
	_ = c.Close() // by now the server has done all of it
	return 0, io.ErrUnexpectedEOF
}

// Writes of several sessions share a round trip whose answer is lost. Each request looks
// whether its own was stored: nothing is lost, and nothing is done twice.
func TestSharedWritesWhoseAnswerWasLostAreDoneOnce(t *testing.T) {
	t.Parallel()
	for name, unsent := range map[string]bool{"answer": false, "statement": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := pgtest.Schema(t)
			admin := pgtest.PoolIn(t, schema)
			migrate(t, admin)
			var gate pgtest.Gate
			var lost atomic.Bool
			a := newApp(t, pgtest.PoolIn(t, schema, gate.Option(), losesBatch(&lost, unsent)), pgstore.Config{MaxBatch: 64})
			type request struct {
				b      *browser
				finish func() (int, string)
			}
			var requests []request
			for range 6 {
				b := a.browser(t)
				b.must("/put", "key", "cart", "value", "1")
				requests = append(requests, request{b, b.hold("after", "put")})
			}
			gate.Shut(t)
			done := make(chan int)
			for _, r := range requests {
				go func() {
					status, _ := r.finish()
					done <- status
				}()
			}
			// Two go alone, unless they take others along; the rest go together.
			pgtest.Eventually(t, "some share a trip", func() bool {
				return slices.ContainsFunc(gate.Trips(), func(trip pgtest.Trip) bool {
					return strings.Count(strings.Join(trip.SQL, "\n"), "SET data = $2") > 1
				})
			})
			gate.Open()
			for range requests {
				if status := <-done; status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			}
			if !lost.Load() {
				t.Error("nothing was lost")
			}
			for _, r := range requests {
				if v := pgtest.Query[int](t, admin, `SELECT version FROM scs_sessions WHERE id = $1`, pgstore.IDOf(r.b.token())); v != 2 {
					t.Errorf("version %d", v)
				}
			}
			if n := a.store.Stat(); n.Conflicts != 0 || n.Writes != int64(2*len(requests)) {
				t.Errorf("%+v", n)
			}
		})
	}
}

// Requests that come together, of many sessions and of one, all end as they would alone.
func TestManyRequestsAtOnceLoseNothing(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		a := newApp(t, migrated(t, pgtest.MaxConns(3)), pgstore.Config{TouchAfter: 1})
		const browsers, rounds = 24, 8
		done := make(chan struct{})
		for range browsers {
			go func() {
				defer func() { done <- struct{}{} }()
				b := a.browser(t)
				b.must("/put", "key", "first", "value", "1")
				for range rounds {
					b.must("/put", "key", "k", "value", "v")
					if got := b.must("/me"); a.tracked && got != "user= state=active reason= keys=first,k" {
						t.Error(got)
					}
				}
			}()
		}
		for range browsers {
			<-done
		}
		if n := pgtest.Query[int](t, a.pool, `SELECT count(*) FROM scs_sessions`); n != browsers {
			t.Errorf("%d sessions", n)
		}
	})
}
