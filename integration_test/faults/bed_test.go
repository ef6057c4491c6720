//go:build linux

package faults

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
)

const (
	appRole = "app" // also the application_name of its connections
	appPass = "secret"
)

// bed is what a fault is tried on: a server, two nodes of an app, and their clients.
type bed struct {
	*load
	server *server
	truth  string // DSN of who reads the tables past the store
	app    []*node
	judge  *judgement

	goroutines int
	atEnd      func() // ends what keeps connections for the app
	watching   sync.WaitGroup
	watched    chan struct{}
	surplus    []string // what the watch over the limit has found
}

// judgement is a line of the table.
type judgement struct {
	requests, failed int
	verdict
	after time.Duration // until all clients were served again
	done  bool
}

// newBed migrates the server. start has the rest.
func newBed(t *testing.T, j *judgement, s *server) *bed {
	t.Helper()
	b := &bed{server: s, truth: s.DSN, judge: j, watched: make(chan struct{}), atEnd: func() {}}
	b.goroutines, _ = goroutines()
	pool, err := pgxpool.New(t.Context(), s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`CREATE ROLE ` + appRole + ` LOGIN PASSWORD '` + appPass + `'`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON scs_sessions, scs_user_sessions, scs_users TO ` + appRole,
	} {
		pgtest.Exec(t, pool, sql)
	}
	return b
}

// appDSN is the app's way to the server of another DSN.
func appDSN(t *testing.T, dsn string, params ...string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(appRole, appPass)
	q := u.Query()
	q.Set("application_name", appRole)
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// run is on, with two nodes in this process, each with a pool of its own.
func (b *bed) run(t *testing.T, c nodeConfig) *bed {
	t.Helper()
	return b.on(t, newNodeFor(t, c), newNodeFor(t, c))
}

// onServer is a bed on a server as it comes, and all under way.
func onServer(t *testing.T, j *judgement, s *server) *bed {
	t.Helper()
	return newBed(t, j, s).run(t, nodeConfig{DSN: appDSN(t, s.DSN)})
}

// on takes nodes that are there, starts the clients and the watch over the limit, and
// returns once all is under way.
func (b *bed) on(t *testing.T, nodes ...*node) *bed {
	t.Helper()
	b.app = nodes
	b.load = newLoad(nodes...)
	b.watching.Go(b.watch)
	t.Cleanup(b.endWatch)
	b.start(t)
	return b
}

func newNodeFor(t *testing.T, c nodeConfig) *node {
	t.Helper()
	n, err := newNode(context.WithoutCancel(t.Context()), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// watch reads, past the store and all the time, who has too many sessions.
func (b *bed) watch() {
	for {
		b.watchOnce()
		select {
		case <-b.watched:
			return
		case <-time.After(50 * time.Millisecond): // the server may be down
		}
	}
}

// watchOnce watches on one connection until it breaks.
func (b *bed) watchOnce() {
	within := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return f(ctx)
	}
	var conn *pgx.Conn
	if within(func(ctx context.Context) (err error) { conn, err = pgx.Connect(ctx, b.truth); return err }) != nil {
		return
	}
	defer func() { _ = within(conn.Close) }()
	for {
		err := within(func(ctx context.Context) error {
			rows, err := conn.Query(ctx, `SELECT user_id || ' has ' || count(*) || ' live sessions at ' || now() FROM scs_sessions
				WHERE end_reason IS NULL AND expiry > now() AND user_id IS NOT NULL GROUP BY user_id HAVING count(*) > $1`, userLimit)
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			b.surplus = append(b.surplus, found...)
			return err
		})
		if err != nil {
			return
		}
		select {
		case <-b.watched:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (b *bed) endWatch() {
	select {
	case <-b.watched:
	default:
		close(b.watched)
	}
	b.watching.Wait()
}
