package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// client is one user agent: it sends one request after the other, straight to the
// handler, so that what is measured is the store and not a socket.
type client struct {
	request *http.Request
	header  http.Header
	status  int
	rand    *rand.Rand
}

func newClient(ctx context.Context, seed uint64) *client {
	r := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64) bench"}}, Host: "localhost", RemoteAddr: "192.0.2.1:1234",
	}).WithContext(ctx)
	return &client{request: r, header: http.Header{}, rand: rand.New(rand.NewPCG(seed, 1))}
}

// Header, Write and WriteHeader make it a response writer that keeps nothing.
func (c *client) Header() http.Header         { return c.header }
func (c *client) Write(b []byte) (int, error) { return len(b), nil }
func (c *client) WriteHeader(status int)      { c.status = status }

// do sends one request with the session's token, or without one.
func (c *client) do(h http.Handler, path, token string) error {
	c.request.URL.Path = path
	clear(c.header)
	c.status = http.StatusOK
	delete(c.request.Header, "Cookie")
	if token != "" {
		c.request.Header["Cookie"] = []string{"session=" + token}
	}
	h.ServeHTTP(c, c.request)
	if c.status != http.StatusOK {
		return fmt.Errorf("%s: status %d", path, c.status)
	}
	return nil
}

// measurement is one turn of one peer.
type measurement struct {
	rate        float64         // operations per second
	allocs      float64         // per operation, of this process
	cpu, server time.Duration   // per operation, of this process and of the server's
	latencies   []time.Duration // sorted
}

func (m measurement) quantile(q float64) time.Duration {
	return m.latencies[min(len(m.latencies)-1, int(q*float64(len(m.latencies))))]
}

// measure runs l on p from n clients for the time of a turn.
func measure(ctx context.Context, p *peer, n int, turn time.Duration, l load) (measurement, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	perClient := make([][]time.Duration, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cpu, server := cpuTime(), p.server.cpu()
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			c := newClient(ctx, uint64(i))
			taken := make([]time.Duration, 0, 1<<16)
			for began := start; time.Since(start) < turn && ctx.Err() == nil; {
				if err := l(p, c); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				taken = append(taken, now.Sub(began))
				began = now
			}
			perClient[i] = taken
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	cpu, server = cpuTime()-cpu, p.server.cpu()-server
	runtime.ReadMemStats(&after)
	if err := context.Cause(ctx); err != nil {
		return measurement{}, err
	}
	m := measurement{latencies: slices.Concat(perClient...)}
	count := float64(len(m.latencies))
	if count == 0 {
		return measurement{}, fmt.Errorf("nothing was done in %v", turn)
	}
	slices.Sort(m.latencies)
	m.rate = count / elapsed.Seconds()
	m.allocs = float64(after.Mallocs-before.Mallocs) / count
	m.cpu, m.server = cpu/time.Duration(count), server/time.Duration(count)
	return m, nil
}

// cpuTime is what this process has used: the clients, scs, the store and its driver.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
