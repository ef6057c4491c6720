package pgstore

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// plainRequests tells calls of the same HTTP request apart from others where there is
// no Track. It remembers which session a request came with, and whether the request
// has deleted or revoked it. Without that, a request that renews its token just after
// its session was revoked would sign its user in again.
//
// A request is recognized by its context. Contexts derived from that of net/http share
// its Done channel, unless they can be cancelled on their own (context.WithTimeout). For
// those there is only the connection, which net/http names in every context. An HTTP/1
// connection serves one request at a time. An HTTP/2 connection may serve several, and
// behind a proxy those of several clients; then which one is meant has to be guessed by
// the session or the user that the call is about. A guess may cause a write to be
// dropped. That one lets a write pass is ruled out as far as can be: see own.
type plainRequests struct {
	mu     sync.Mutex
	byDone map[<-chan struct{}]*plainRequest
	byConn map[any]*plainConn
}

type plainRequest struct {
	request
	conn any
	done <-chan struct{} // of the context that it was first seen with
	held bool            // it has deleted or revoked something
}

// plainConn holds what is known of the requests of one connection.
type plainConn struct {
	live   []*plainRequest
	over   []*plainRequest // those that have ended, or whose client is gone
	shared bool            // it had several at a time
}

// lingerPlain is how long the deletions of a request are remembered after its context
// has ended: when its client is gone, its handler may still be running.
const lingerPlain = 5 * time.Minute

// connOf returns a key that the contexts of one connection share, or nil outside HTTP.
func connOf(ctx context.Context) any {
	if ctx.Value(http.ServerContextKey) == nil {
		return nil
	}
	addr := ctx.Value(http.LocalAddrContextKey)
	if addr == nil || reflect.TypeOf(addr).Kind() != reflect.Pointer {
		return ctx.Done() // an address that connections may share
	}
	return addr
}

// found notes that the request of ctx came with this session.
func (p *plainRequests) found(ctx context.Context, s *Store, id pgtype.UUID, from row) {
	conn := connOf(ctx)
	if conn == nil || ctx.Done() == nil {
		return
	}
	p.mu.Lock()
	req := p.byDone[ctx.Done()]
	if req == nil {
		req = p.open(ctx, conn, s)
	}
	p.mu.Unlock()
	req.put(entry{id: id, state: from.state(), user: from.user, stamp: from.stamp, at: time.Now()})
}

// open starts a record for the request of ctx. Call it with mu locked.
func (p *plainRequests) open(ctx context.Context, conn any, s *Store) *plainRequest {
	if p.byDone == nil {
		p.byDone, p.byConn = make(map[<-chan struct{}]*plainRequest), make(map[any]*plainConn)
	}
	req := &plainRequest{request: request{store: s}, conn: conn, done: ctx.Done()}
	p.byDone[req.done] = req
	c := p.byConn[conn]
	if c == nil {
		c = &plainConn{}
		p.byConn[conn] = c
	}
	c.live = append(c.live, req)
	c.shared = c.shared || len(c.live) > 1
	context.AfterFunc(ctx, func() { p.close(req) })
	return req
}

// of returns the state of the request of ctx, or nil: its own, or that of the only
// request of the connection that like accepts.
func (p *plainRequests) of(ctx context.Context, like func(*request) bool) *request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byDone) == 0 {
		return nil
	}
	if req := p.byDone[ctx.Done()]; req != nil {
		return &req.request
	}
	if guesses := p.guess(ctx, like); len(guesses) == 1 {
		return &guesses[0].request
	}
	return nil
}

// own returns the state of the request of ctx for what lets it sign in again after it
// has revoked its session. The request is guessed only on a connection that has served
// one at a time. (Somebody without a session who revokes over HTTP/2, beside a single
// other request, is still taken for that one. Track knows better.) With hold, its state is kept for lingerPlain after its end, and created
// if there is none.
func (p *plainRequests) own(ctx context.Context, s *Store, hold bool, like func(*request) bool) *request {
	conn := connOf(ctx)
	if conn == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	req := p.byDone[ctx.Done()]
	if c := p.byConn[conn]; req == nil && c != nil && !c.shared {
		if guesses := p.guess(ctx, like); len(guesses) == 1 {
			req = guesses[0]
		}
	}
	if req == nil && hold && ctx.Done() != nil {
		req = p.open(ctx, conn, s)
	}
	if req == nil {
		return nil
	}
	req.held = req.held || hold
	return &req.request
}

// deleting returns the states in which the deletion of the session id, of the request of
// ctx, is to be recorded: its own or, if that cannot be told, all that know the session.
// If there is none, and create, it is created. They are kept for lingerPlain.
func (p *plainRequests) deleting(ctx context.Context, s *Store, id pgtype.UUID, create bool) (states []*request) {
	conn := connOf(ctx)
	if conn == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	reqs := []*plainRequest{p.byDone[ctx.Done()]}
	if reqs[0] == nil {
		reqs = p.guess(ctx, knowing(id))
	}
	if len(reqs) == 0 && create && ctx.Done() != nil {
		reqs = append(reqs, p.open(ctx, conn, s))
	}
	for _, req := range reqs {
		req.held = true
		states = append(states, &req.request)
	}
	return states
}

// guess returns the requests of ctx's connection that like accepts. While ctx is alive, a
// request that is over cannot be meant: the connection serves another one by now.
func (p *plainRequests) guess(ctx context.Context, like func(*request) bool) (reqs []*plainRequest) {
	c := p.byConn[connOf(ctx)]
	if c == nil {
		return nil
	}
	for _, req := range c.live {
		if like(&req.request) {
			reqs = append(reqs, req)
		}
	}
	if ctx.Err() == nil {
		return reqs
	}
	for _, req := range c.over {
		if like(&req.request) {
			reqs = append(reqs, req)
		}
	}
	return reqs
}

// close is called when the request's context has ended. It forgets the request, after
// lingerPlain if it has deleted or revoked something.
func (p *plainRequests) close(req *plainRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.byConn[req.conn]
	c.live = slices.DeleteFunc(c.live, func(r *plainRequest) bool { return r == req })
	if !req.held {
		p.forget(req)
		return
	}
	c.over = append(c.over, req)
	time.AfterFunc(lingerPlain, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forget(req)
	})
}

func (p *plainRequests) forget(req *plainRequest) {
	delete(p.byDone, req.done)
	c := p.byConn[req.conn]
	c.over = slices.DeleteFunc(c.over, func(r *plainRequest) bool { return r == req })
	if len(c.live) == 0 && len(c.over) == 0 {
		delete(p.byConn, req.conn)
	}
}

// knowing accepts a request that has dealt with the session id.
func knowing(id pgtype.UUID) func(*request) bool {
	return func(r *request) bool { _, known := r.entry(id); return known }
}

// continuing accepts a request that may be renewing a session of user under the new id.
func continuing(id pgtype.UUID, user string) func(*request) bool {
	return func(r *request) bool { return knowing(id)(r) || r.predecessor(user) != nil || r.hasFenced(user) }
}

// having accepts a request that has dealt with a session of user.
func having(user string) func(*request) bool {
	return func(r *request) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.sessions, func(e entry) bool { return e.user == user })
	}
}
