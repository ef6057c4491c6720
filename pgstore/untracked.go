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
// its Done channel, unless they can be cancelled on their own (context.WithTimeout).
// Those are recognized by the connection, which net/http names in every context. An
// HTTP/1 connection serves one request at a time. An HTTP/2 connection may serve
// several, of one client: among them, like picks the one that has dealt with the
// session or the user in question.
type plainRequests struct {
	mu     sync.Mutex
	byConn map[any][]*plainRequest
}

type plainRequest struct {
	request
	done <-chan struct{} // of the context it was first seen with
	held bool            // it has deleted or revoked something
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

// over reports whether the request has ended, or its client is gone.
func (r *plainRequest) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// found notes that the request of ctx came with this session.
func (p *plainRequests) found(ctx context.Context, s *Store, id pgtype.UUID, from row) {
	if req := p.open(ctx, s, false, knowing(id)); req != nil {
		req.put(entry{id: id, state: from.state(), user: from.user, stamp: from.stamp, at: time.Now()})
	}
}

// open returns the state of ctx's request, and creates it if there is none; nil outside
// HTTP. With hold, it is kept for lingerPlain after the request. like is as for find.
func (p *plainRequests) open(ctx context.Context, s *Store, hold bool, like func(*request) bool) *request {
	conn := connOf(ctx)
	if conn == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	req := p.find(ctx, conn, like)
	if req == nil && ctx.Done() == nil {
		return nil
	}
	if req == nil {
		req = &plainRequest{request: request{store: s}, done: ctx.Done()}
		if p.byConn == nil {
			p.byConn = make(map[any][]*plainRequest)
		}
		p.byConn[conn] = append(p.byConn[conn], req)
		context.AfterFunc(ctx, func() { p.close(conn, req, lingerPlain) })
	}
	req.held = req.held || hold
	return &req.request
}

// of returns the state of the request of ctx, or nil where nothing is known of it.
func (p *plainRequests) of(ctx context.Context, like func(*request) bool) *request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byConn) == 0 {
		return nil
	}
	if req := p.find(ctx, connOf(ctx), like); req != nil {
		return &req.request
	}
	return nil
}

// find returns the request that ctx belongs to: the one with the same Done channel, or
// else the newest on the connection that like accepts. While ctx is alive, a request
// that is over cannot be meant: the connection serves another one by now.
func (p *plainRequests) find(ctx context.Context, conn any, like func(*request) bool) *plainRequest {
	reqs := p.byConn[conn]
	for _, r := range reqs {
		if r.done == ctx.Done() {
			return r
		}
	}
	for _, r := range slices.Backward(reqs) {
		if (ctx.Err() != nil || !r.over()) && like(&r.request) {
			return r
		}
	}
	return nil
}

// close forgets the request, after linger if it has deleted or revoked something.
func (p *plainRequests) close(conn any, req *plainRequest, linger time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.held && linger > 0 {
		time.AfterFunc(linger, func() { p.close(conn, req, 0) })
		return
	}
	left := slices.DeleteFunc(p.byConn[conn], func(r *plainRequest) bool { return r == req })
	if p.byConn[conn] = left; len(left) == 0 {
		delete(p.byConn, conn)
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
