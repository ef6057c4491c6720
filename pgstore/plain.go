package pgstore

import (
	"context"
	"net/http"
	"sync"
)

// plainRequests links, for HTTP requests without Track, the Delete of a renewal (or a
// RevokeAll) to the Commit that follows it: without that link, a request that renews its token just after the
// session was revoked would sign its user in again. The context of a request that
// net/http serves has a Done channel of its own, which all contexts derived from it
// share unless they add a deadline; it names the request here.
type plainRequests struct {
	mu    sync.Mutex
	byCtx map[<-chan struct{}]*request
}

// open returns the state of the request, made if need be, or nil outside HTTP.
func (p *plainRequests) open(ctx context.Context, s *Store) *request {
	done := ctx.Done()
	if done == nil || ctx.Value(http.ServerContextKey) == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if req := p.byCtx[done]; req != nil {
		return req
	}
	if p.byCtx == nil {
		p.byCtx = make(map[<-chan struct{}]*request)
	}
	req := &request{store: s}
	p.byCtx[done] = req
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.byCtx, done)
	})
	return req
}

// of returns the state of the request, or nil where it has deleted nothing.
func (p *plainRequests) of(ctx context.Context) *request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byCtx) == 0 {
		return nil
	}
	return p.byCtx[ctx.Done()]
}
