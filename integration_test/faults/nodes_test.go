//go:build linux

package faults

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"
)

// nodeKilled kills a node between the two round trips of a sign-in. Its sockets are closed
// for it.
func nodeKilled(t *testing.T, j *judgement) {
	s := newServer(t)
	b := newBed(t, j, s)
	dsn := appDSN(t, s.DSN)
	doomed := newProcess(t, nodeConfig{DSN: dsn})
	b.on(t, doomed.node, newNodeFor(t, nodeConfig{DSN: dsn}))
	b.killAmidSignIn(t, doomed, func() {}, nodeConfig{DSN: dsn})
	b.finish(t)
}

// hostGone also lets its host vanish: nobody tells the server, which holds the user's lock
// for it.
func hostGone(t *testing.T, j *judgement) {
	w, s := newWire(t)
	b := newBed(t, j, s)
	doomed := newProcess(t, w.node(t, appDSN(t, s.DSN, "application_name", "gone")))
	direct := nodeConfig{DSN: appDSN(t, s.DSN)}
	b.on(t, doomed.node, newNodeFor(t, direct))
	b.killAmidSignIn(t, doomed, func() { w.cut(t) }, direct)
	// The server keeps its other connections, too, until TCP gives up.
	b.atEnd = func() {
		s.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gone'`)
		w.mend(t)
	}
	b.finish(t)
}

// killAmidSignIn has the first node hold a sign-in between its two round trips, does
// before, and kills the node. Within two Timeouts the user can sign in on the other one.
// Then another node takes the place of the first.
func (b *bed) killAmidSignIn(t *testing.T, doomed *process, before func(), successor nodeConfig) {
	t.Helper()
	const user = "held"
	var asking sync.WaitGroup
	first := b.client(user)
	first.turn, first.session = -1, b.history.newSession() // the first node is next
	asking.Go(func() {
		first.ask(event{kind: signIn}, "POST", "/sign-in", url.Values{"user": {user}, "hold": {"1"}})
	})
	select {
	case <-doomed.held:
	case <-time.After(time.Minute):
		t.Fatal("the node does not hold the sign-in")
	}
	before()
	doomed.kill()
	asking.Wait()
	killed := time.Now()
	second := b.client(user)
	for outcome := failed; outcome != acked && time.Since(killed) < 5*timeout; {
		second.turn = 0 // the second node is next
		outcome = second.signIn()
	}
	if d := time.Since(killed); d > 2*timeout {
		t.Errorf("the user could not sign in on the other node within two Timeouts, but %v", d)
	}
	by := newNodeFor(t, successor)
	b.healed()
	b.replace(doomed.node, by)
	b.app = append(b.app, by)
}

// poolExhausted has the app's own queries take all connections of both pools.
func poolExhausted(t *testing.T, j *judgement) {
	b := onServer(t, j, newServer(t))
	var querying sync.WaitGroup
	for _, n := range b.app {
		for range poolSize {
			querying.Go(func() {
				if _, err := n.pool.Exec(context.WithoutCancel(t.Context()), `SELECT pg_sleep(4)`); err != nil {
					t.Error(err)
				}
			})
		}
	}
	querying.Wait()
	b.healed()
	b.finish(t)
}
