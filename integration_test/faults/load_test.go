//go:build linux

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
)

const (
	clients   = 8
	users     = 3 // so that two have three clients each, and places for two
	thinkTime = 5 * time.Millisecond
	failPause = 20 * time.Millisecond
	rounds    = 3 // that each client does before a fault, and after
)

// load is the clients of an app, and what they have been told.
type load struct {
	history history
	http    http.Client
	clients []*client

	mu    sync.Mutex
	nodes []*node

	stop    chan struct{}
	running sync.WaitGroup
	over    atomic.Pointer[time.Time] // when the fault was over
}

// client is a browser that signs in, works, and signs out, again and again.
type client struct {
	load    *load
	user    string
	turn    int // which node is next
	session int
	token   string

	rounds atomic.Int64 // done without an error
	served atomic.Int64 // how long after the fault it was served, in nanoseconds

	mu    sync.Mutex
	ended []ended // tokens that are over
}

type ended struct {
	session int
	token   string
}

func newLoad(nodes ...*node) *load {
	l := &load{nodes: nodes, stop: make(chan struct{})}
	l.http.Timeout = time.Minute // a node always answers, unless it is killed
	l.http.Transport = &http.Transport{MaxIdleConnsPerHost: 2 * clients}
	for n := range clients {
		c := l.client(fmt.Sprint("user", n%users))
		c.turn = n
		l.clients = append(l.clients, c)
	}
	return l
}

func (l *load) client(user string) *client { return &client{load: l, user: user} }

// start lets the clients begin, and returns once each has done some rounds.
func (l *load) start(t *testing.T) {
	t.Helper()
	for _, c := range l.clients {
		l.running.Go(c.run)
	}
	t.Cleanup(l.end)
	l.awaitRounds(t)
}

// end stops the clients. Each stays signed in.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.running.Wait()
	l.http.CloseIdleConnections()
}

// awaitRounds waits until each client has done some more rounds.
func (l *load) awaitRounds(t *testing.T) {
	t.Helper()
	for n, c := range l.clients {
		goal := c.rounds.Load() + rounds
		pgtest.Eventually(t, fmt.Sprintf("client %d signs in, works and signs out", n), func() bool { return c.rounds.Load() >= goal })
	}
}

// healed says that the fault is over now.
func (l *load) healed() { now := time.Now(); l.over.Store(&now) }

// recovered waits until every client is served again, and returns how long that took.
func (l *load) recovered(t *testing.T) (after time.Duration) {
	t.Helper()
	for n, c := range l.clients {
		pgtest.Eventually(t, fmt.Sprintf("client %d is served", n), func() bool { return c.served.Load() > 0 })
		after = max(after, time.Duration(c.served.Load()))
	}
	l.awaitRounds(t)
	return after
}

// replace puts a node in the place of another.
func (l *load) replace(old, by *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.nodes {
		if l.nodes[i] == old {
			l.nodes[i] = by
		}
	}
}

func (l *load) node(turn int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[turn%len(l.nodes)].url
}

func (l *load) ending() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (c *client) run() {
	for n := 0; !c.load.ending(); n++ {
		if c.round(n) {
			c.rounds.Add(1)
		}
	}
}

// round is one visit. It reports whether all of it was served.
func (c *client) round(n int) bool {
	value := func() string { return fmt.Sprint(n, ".", rand.Uint32()) }
	if c.signIn() != acked {
		return false
	}
	steps := []func() outcome{
		func() outcome { return c.put("a", value()) },
		c.get,
		func() outcome { return c.putBoth(value(), value()) },
		c.get,
		c.renew,
		func() outcome { return c.put("a", value()) },
		c.get,
	}
	if rand.N(16) == 0 {
		steps = append(steps, func() outcome { return c.ask(event{kind: revoke}, "POST", "/revoke-others", nil) })
	}
	all := true
	for _, step := range steps {
		switch step() {
		case denied:
			return all
		case failed:
			all = false
		}
	}
	if c.load.ending() || rand.N(4) == 0 {
		return all // the session is left as it is
	}
	return c.ask(event{kind: signOut}, "POST", "/sign-out", nil) != failed && all
}

func (c *client) signIn() outcome {
	c.session, c.token = c.load.history.newSession(), ""
	return c.ask(event{kind: signIn}, "POST", "/sign-in", url.Values{"user": {c.user}})
}

func (c *client) put(key, value string) outcome {
	return c.ask(event{kind: put, key: key, value: value}, "POST", "/put", url.Values{"key": {key}, "value": {value}})
}

// putBoth changes two keys at once.
func (c *client) putBoth(a, b string) outcome {
	var both sync.WaitGroup
	var first, second outcome
	c.turn++ // on two nodes
	twin := &client{load: c.load, user: c.user, turn: c.turn + 1, session: c.session, token: c.token}
	both.Go(func() { first = twin.put("a", a) })
	second = c.put("b", b)
	both.Wait()
	switch {
	case first == denied || second == denied:
		return denied
	case first == failed || second == failed:
		return failed
	}
	return acked
}

func (c *client) get() outcome   { return c.ask(event{kind: get}, "GET", "/", nil) }
func (c *client) renew() outcome { return c.ask(event{kind: renew}, "POST", "/renew", nil) }

// probe asks with a token that is over.
func (c *client) probe(e ended) {
	c.session, c.token = e.session, e.token
	c.ask(event{kind: probe}, "GET", "/", nil)
}

// ask is one request, by the client's token. It notes what the client is told.
func (c *client) ask(e event, method, path string, form url.Values) outcome {
	c.turn++
	e.session, e.user, e.sent = c.session, c.user, c.token
	r, err := http.NewRequest(method, c.load.node(c.turn)+path, strings.NewReader(form.Encode()))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.token != "" {
		r.AddCookie(&http.Cookie{Name: sessionName, Value: c.token})
	}
	e.start = time.Now()
	err = c.send(r, &e)
	e.end = time.Now()
	if err != nil {
		e.outcome = failed
	}
	c.load.history.add(e)
	switch {
	case e.outcome == failed:
		time.Sleep(failPause)
	case e.kind != probe:
		if over := c.load.over.Load(); over != nil && e.end.After(*over) {
			c.served.CompareAndSwap(0, int64(e.end.Sub(*over)))
		}
		time.Sleep(thinkTime)
	}
	return e.outcome
}

// send carries out a request and fills in its answer.
func (c *client) send(r *http.Request, e *event) error {
	resp, err := c.load.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var s state
	if e.kind != signIn && resp.StatusCode < http.StatusInternalServerError {
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			return err
		}
	}
	switch resp.StatusCode {
	case http.StatusOK:
		e.outcome, e.seenUser, e.seen = acked, s.User, s.Values
	case http.StatusUnauthorized, http.StatusConflict:
		e.outcome, e.reason = denied, s.Reason
	default:
		return errors.New(resp.Status)
	}
	for _, cookie := range resp.Cookies() {
		if cookie.Name == sessionName && cookie.Value != c.token {
			e.token = cookie.Value
		}
	}
	isNew := e.kind == signIn || e.kind == renew
	if isNew && e.outcome == acked && e.token == "" {
		return errors.New("it was done, says the answer, but there is no cookie") // the session has ended meanwhile
	}
	if isOver := e.kind == signOut || e.kind == renew || e.outcome == denied; isOver && e.kind != probe && c.token != "" {
		c.mu.Lock()
		c.ended = append(c.ended, ended{c.session, c.token})
		c.mu.Unlock()
	}
	switch {
	case isNew && e.outcome == acked:
		c.token = e.token
	case e.kind == signOut, e.outcome == denied:
		c.token = ""
	}
	return nil
}
