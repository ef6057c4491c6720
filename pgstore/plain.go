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

// plainRequests knows of HTTP requests without Track what the promise of an ended
// session needs: which session a request came with, and that it has deleted or revoked
// it. Without that, a request that renews its token just after its session was revoked
// would sign its user in again.
//
// The context of a request that net/http serves says which one it is by its Done
// channel, which contexts derived from it share unless they can be cancelled by
// themselves. Those are told by the connection that all of them name: HTTP/1 has one
// request at a time on it, and HTTP/2 those of one client, who are told apart by what
// they have done.
type plainRequests struct {
	mu     sync.Mutex
	byConn map[any][]*plainRequest
}

type plainRequest struct {
	request
	done <-chan struct{} // of the context it was first seen with
	held bool            // it has deleted or revoked something
}

// lingerPlain is how long what a request has deleted is known after its context has
// ended: with its client gone, it goes on.
const lingerPlain = 5 * time.Minute

// connOf is what the contexts of one connection have in common, nil outside HTTP.
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

// open returns the state of the request, made if need be, or nil outside HTTP.
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

// find prefers the request whose context it is to the newest that may be meant. One
// that is over is not, while ctx lives: the connection serves another by now.
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

// close forgets the request, later where there is something to be known of it.
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

// knowing is for the request that has to do with a session.
func knowing(id pgtype.UUID) func(*request) bool {
	return func(r *request) bool { _, known := r.entry(id); return known }
}

// continuing is for the request that may be renewing a session of user as id.
func continuing(id pgtype.UUID, user string) func(*request) bool {
	return func(r *request) bool { return knowing(id)(r) || r.predecessor(user) != nil || r.hasFenced(user) }
}

// having is for the request that came with a session of user.
func having(user string) func(*request) bool {
	return func(r *request) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.sessions, func(e entry) bool { return e.user == user })
	}
}
