//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/pgstore"
)

const (
	userKey     = "userID"
	userLimit   = 2
	poolSize    = 6               // of each node: fewer than there are clients
	timeout     = 2 * time.Second // Config.Timeout
	sessionName = "session"
)

// nodeConfig is what an app node is made of.
type nodeConfig struct {
	DSN   string
	Netns string // the file of the network namespace that it dials in, "" for ours
}

// node is an app on a server of its own: a Store with a pool, and a web server before it.
type node struct {
	url   string
	pool  *pgxpool.Pool  // nil if it is another process
	store *pgstore.Store // nil if it is another process
	codes *codes         // nil if it is another process
	close func()
}

// newNode starts a node in this process.
func newNode(ctx context.Context, c nodeConfig) (*node, error) {
	config, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, err
	}
	n := &node{codes: &codes{seen: map[string]int{}}}
	config.MaxConns, config.ConnConfig.Tracer = poolSize, n.codes
	if c.Netns != "" {
		config.ConnConfig.DialFunc = dialIn(c.Netns)
	}
	if n.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	n.store, err = pgstore.New(n.pool, pgstore.Config{UserLimit: userLimit, Timeout: timeout, TouchAfter: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// What fails to be stored once the headers are out would be logged as superfluous.
	server := &http.Server{Handler: handler(n.store), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	n.url = "http://" + l.Addr().String()
	n.close = sync.OnceFunc(func() {
		_ = server.Close()
		serving.Wait()
		n.pool.Close()
	})
	return n, nil
}

// state is what a node says of the request's session.
type state struct {
	User   string            `json:"user"`
	Values map[string]string `json:"values"`
	Reason string            `json:"reason"` // why nobody is signed in
}

// handler is the app. 2xx says that it was done, 401 that nobody is signed in, 409 that a
// fence has refused the sign-in.
func handler(store *pgstore.Store) http.Handler {
	sm := scs.New()
	sm.Store, sm.Codec = store, pgstore.Codec{UserKey: userKey}
	sm.IdleTimeout, sm.Cookie.Name, sm.Cookie.Persist = 30*time.Minute, sessionName, false
	sm.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	mux := http.NewServeMux()
	signedIn := func(path string, f func(context.Context, *http.Request) error) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			if sm.GetString(ctx, userKey) == "" {
				w.WriteHeader(http.StatusUnauthorized)
				_ = json.NewEncoder(w).Encode(state{Reason: reason(store.StatusOf(ctx))})
				return
			}
			s := state{User: sm.GetString(ctx, userKey), Values: map[string]string{}}
			for _, key := range sm.Keys(ctx) {
				s.Values[key] = sm.GetString(ctx, key)
			}
			if err := f(ctx, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(s)
		})
	}
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if r.FormValue("hold") != "" {
			ctx = context.WithValue(ctx, holdKey{}, true)
		}
		switch err := store.SignIn(ctx, sm, r.FormValue("user")); {
		case errors.Is(err, pgstore.ErrEnded):
			w.WriteHeader(http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	signedIn("POST /put", func(ctx context.Context, r *http.Request) error {
		sm.Put(ctx, r.FormValue("key"), r.FormValue("value"))
		return nil
	})
	signedIn("GET /{$}", func(context.Context, *http.Request) error { return nil })
	signedIn("POST /renew", func(ctx context.Context, _ *http.Request) error { return sm.RenewToken(ctx) })
	signedIn("POST /sign-out", func(ctx context.Context, _ *http.Request) error { return sm.Destroy(ctx) })
	signedIn("POST /revoke-others", func(ctx context.Context, _ *http.Request) error {
		_, err := store.RevokeOthers(ctx, sm.GetString(ctx, userKey), sm.Token(ctx))
		return err
	})
	return store.Track(sm.LoadAndSave(mux))
}

func reason(st pgstore.Status) string {
	if st.State == pgstore.Ended {
		return string(st.EndReason)
	}
	return st.State.String()
}

type holdKey struct{}

// codes is a tracer that counts the errors of the server, by SQLSTATE. If the context says
// so, a sign-in is held between its two round trips.
type codes struct {
	mu    sync.Mutex
	seen  map[string]int
	pause atomic.Int64 // nanoseconds, between the two round trips of every sign-in
}

func (c *codes) count(err error) {
	if code := pgfault.Code(err); code != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[code]++
	}
}

func (c *codes) of(code string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[code]
}

// held is what a node prints that holds a sign-in, until it is killed.
const held = "held"

func (*codes) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (c *codes) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	c.count(data.Err)
}

func (c *codes) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		switch {
		case !strings.Contains(q.SQL, "INSERT INTO scs_user_sessions"):
		case ctx.Value(holdKey{}) != nil:
			fmt.Println(held)
			select {}
		default:
			time.Sleep(time.Duration(c.pause.Load()))
		}
	}
	return ctx
}

func (c *codes) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	c.count(data.Err)
}

func (c *codes) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	c.count(data.Err)
}

// envNode has the test program be a node, as the value says.
const envNode = "FAULTS_NODE"

// serveNode is what the process of a node does, until its standard input ends.
func serveNode(config string) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	n, err := newNode(context.Background(), c)
	if err != nil {
		return err
	}
	fmt.Println(n.url)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is a node of its own process, which may be killed.
type process struct {
	*node
	kill func()
	held chan struct{} // closed once it holds a sign-in
}

func newProcess(t *testing.T, c nodeConfig) *process {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), envNode+"="+string(config)), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe() // closed, also by our death, it ends the node
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{node: &node{close: func() {}}, held: make(chan struct{})}
	var reading sync.WaitGroup
	p.kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
		in.Close()
	})
	t.Cleanup(p.kill)
	if _, err := fmt.Fscanln(out, &p.url); err != nil {
		t.Fatal(err)
	}
	p.close = p.kill
	reading.Go(func() {
		var line string
		if _, err := fmt.Fscanln(out, &line); err == nil && line == held {
			close(p.held)
		}
	})
	return p
}
