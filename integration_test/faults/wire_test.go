//go:build linux

package faults

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scspg/scspg/internal/pgtest"
)

// wire is a network between an app and its server that can be cut: nothing goes through any
// more, and nobody is told.
type wire interface {
	// node is the configuration of a node at its end, for what leads to the server directly.
	node(t *testing.T, dsn string) nodeConfig
	cut(t *testing.T)
	mend(t *testing.T)
}

// newWire returns a wire and the server that it leads to. The app's end is in a network
// namespace of its own. Where we may not make one, a proxy stands for the network.
func newWire(t *testing.T) (wire, *server) {
	t.Helper()
	w, err := newNamespace(t)
	if err != nil {
		t.Logf("a proxy stands for the network: %v", err)
		s := newServer(t)
		return newProxy(t, s), s
	}
	s := newServer(t, "listen_addresses=127.0.0.1,"+w.near)
	hba, err := os.OpenFile(filepath.Join(s.data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hba.Close()
	if _, err := fmt.Fprintf(hba, "host all all %s/32 scram-sha-256\n", w.far); err != nil {
		t.Fatal(err)
	}
	s.exec(t, `SELECT pg_reload_conf()`)
	return w, s
}

// namespace is a pair of interfaces, one of them in a network namespace.
type namespace struct {
	name      string
	near, far string // addresses: the server's, and the app's in the namespace
}

var namespaces atomic.Int32

func newNamespace(t *testing.T) (*namespace, error) {
	t.Helper()
	// Names are for the whole machine. 198.18.0.0/15 is for tests of networks (RFC 2544).
	pid, n := os.Getpid(), namespaces.Add(1)
	block := (pid*16 + int(n)) % (1 << 15) * 4
	addr := func(i int) string { return net.IPv4(198, 18+byte(block>>16), byte(block>>8), byte(block+i)).String() }
	w := &namespace{name: fmt.Sprintf("faults%d-%d", pid, n), near: addr(1), far: addr(2)}
	if out, err := exec.Command("ip", "netns", "add", w.name).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ip netns add: %w: %s", err, out)
	}
	pgtest.Guard(t, fmt.Sprintf("ip link del %s 2>/dev/null; ip netns del %s", w.link(0), w.name))
	w.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", w.link(0), w.link(1), w.name))
	w.ip(t, fmt.Sprintf("addr add %s/30 dev %s", w.near, w.link(0)))
	w.ip(t, fmt.Sprintf("link set %s up", w.link(0)))
	w.ip(t, fmt.Sprintf("-n %s addr add %s/30 dev %s", w.name, w.far, w.link(1)))
	w.ip(t, fmt.Sprintf("-n %s link set %s up", w.name, w.link(1)))
	return w, nil
}

// link is the name of an interface.
func (w *namespace) link(end int) string {
	return fmt.Sprint("f", strings.TrimPrefix(w.name, "faults"), string("ab"[end]))
}

func (w *namespace) ip(t *testing.T, args string) {
	t.Helper()
	run(t, "ip", strings.Fields(args)...)
}

func (w *namespace) node(t *testing.T, dsn string) nodeConfig {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort(w.near, u.Port())
	return nodeConfig{DSN: u.String(), Netns: filepath.Join("/run/netns", w.name)}
}

// nobody is a hardware address that no interface has: what is sent there is lost.
const nobody = "02:00:00:00:00:01"

func (w *namespace) cut(t *testing.T) {
	t.Helper()
	w.ip(t, fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", w.far, nobody, w.link(0)))
	w.ip(t, fmt.Sprintf("-n %s neigh replace %s lladdr %s nud permanent dev %s", w.name, w.near, nobody, w.link(1)))
}

func (w *namespace) mend(t *testing.T) {
	t.Helper()
	w.ip(t, fmt.Sprintf("neigh del %s dev %s", w.far, w.link(0)))
	w.ip(t, fmt.Sprintf("-n %s neigh del %s dev %s", w.name, w.near, w.link(1)))
}

// dialIn dials in a network namespace. A connection stays in the one it was made in.
func dialIn(netns string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		runtime.LockOSThread()
		home, err := enter(netns)
		if err != nil {
			runtime.UnlockOSThread()
			return nil, err
		}
		defer home.Close()
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, err // and the thread ends with this goroutine
		}
		runtime.UnlockOSThread()
		return conn, err
	}
}

// enter moves the thread to a network namespace, and returns the one that it was in.
func enter(netns string) (home *os.File, err error) {
	there, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		home.Close()
		return nil, err
	}
	return home, nil
}

// proxy hands on what it reads, until it is cut: then it keeps it.
type proxy struct {
	addr   string
	mu     sync.Mutex
	whole  sync.Cond // not cut, or closed
	isCut  bool
	closed bool
	conns  []net.Conn
}

func newProxy(t *testing.T, s *server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	p.whole.L = &p.mu
	var working sync.WaitGroup
	working.Go(func() { p.serve(l, u.Host, &working) })
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.whole.Broadcast()
		working.Wait()
	})
	return p
}

func (p *proxy) serve(l net.Listener, target string, working *sync.WaitGroup) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", target)
		if err != nil || !p.keep(near, far) {
			near.Close()
			continue
		}
		working.Go(func() { p.forward(near, far) })
		working.Go(func() { p.forward(far, near) })
	}
}

// keep notes connections to be closed, and reports whether that is still in time.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
	return !p.closed
}

func (p *proxy) forward(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !p.wait() {
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

// wait waits until nothing is cut, and reports whether that was before the end.
func (p *proxy) wait() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.isCut && !p.closed {
		p.whole.Wait()
	}
	return !p.closed
}

func (p *proxy) node(t *testing.T, dsn string) nodeConfig {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.addr
	return nodeConfig{DSN: u.String()}
}

func (p *proxy) cut(*testing.T) { p.set(true) }

func (p *proxy) mend(*testing.T) { p.set(false) }

func (p *proxy) set(cut bool) {
	p.mu.Lock()
	p.isCut = cut
	p.mu.Unlock()
	p.whole.Broadcast()
}
