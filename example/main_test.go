package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// demo is a run of the whole program.
type demo struct {
	url     string
	welcome []string
	stop    func() (code int, stderr string)
	hurry   func() // cuts off requests
}

// startDemo runs the program until stop is called, or the test ends.
func startDemo(t *testing.T, getenv func(string) string, args ...string) demo {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	hurry := make(chan struct{})
	go func() {
		code <- run(ctx, hurry, append([]string{"-addr", "127.0.0.1:0"}, args...), getenv, in, &stderr)
		in.Close()
	}()
	stopped := false
	d := demo{hurry: func() { close(hurry) }, stop: func() (int, string) {
		stopped = true
		cancel()
		go io.Copy(io.Discard, out) //nolint:errcheck // The pipe cannot fail.
		return <-code, stderr.String()
	}}
	t.Cleanup(func() {
		if !stopped {
			d.stop()
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		d.welcome = append(d.welcome, lines.Text())
		if rest, ok := strings.CutPrefix(lines.Text(), "Open "); ok {
			d.url, _, _ = strings.Cut(rest, " ")
			return d
		}
	}
	status, text := d.stop()
	t.Fatalf("the demo ended with status %d: %s", status, text)
	return d
}

func TestRunInMemory(t *testing.T) {
	t.Parallel()
	d := startDemo(t, noEnv, "-store", "memory")
	welcome := strings.Join(d.welcome, "\n")
	for _, part := range []string{"memory", "alice  wonderland", "bob    builder", "admin  letmein", "http://127.0.0.1:"} {
		if !strings.Contains(welcome, part) {
			t.Errorf("the welcome lacks %q:\n%s", part, welcome)
		}
	}
	resp, err := http.Get(d.url) //nolint:noctx // A test's request.
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET / answered %d", resp.StatusCode)
	}
	if code, stderr := d.stop(); code != 0 || stderr != "" {
		t.Errorf("stopped with status %d: %s", code, stderr)
	}
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(d.url, "http://"), time.Second); err == nil {
		t.Error("the port is still open")
	}
}

// A request that does not end holds up the stop, until hurry.
func TestRunInAHurry(t *testing.T) {
	t.Parallel()
	d := startDemo(t, noEnv, "-store", "memory")
	addr := strings.TrimPrefix(d.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The answer to the first half shows that the request is being handled.
	if _, err := io.WriteString(conn, "POST /login HTTP/1.1\r\nHost: "+addr+"\r\nExpect: 100-continue\r\n"+
		"Content-Type: "+typeForm+"\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("answered %q, %v", line, err)
	}
	begun := time.Now()
	d.hurry()
	code, stderr := d.stop()
	if code != 0 || !strings.Contains(stderr, "cut off") {
		t.Errorf("stopped with status %d: %s", code, stderr)
	}
	if took := time.Since(begun); took >= shutdownTimeout {
		t.Errorf("it took %v", took)
	}
}

func TestRunAddressInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	// The store would start a database: the address must be found taken before.
	wantFailure(t, []string{addr, "in use", "-addr"}, "-addr", addr)
}

func TestRunBadAddress(t *testing.T) {
	t.Parallel()
	wantFailure(t, []string{"-addr 127.0.0.1:99999"}, "-addr", "127.0.0.1:99999", "-store", "memory")
}

func TestRunWithoutRedis(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	wantFailure(t, []string{"Redis", addr, "-redis-addr"}, "-addr", "127.0.0.1:0", "-store", "redis", "-redis-addr", addr)
}

// wantFailure runs the program, which should give up and say why.
func wantFailure(t *testing.T, says []string, args ...string) {
	t.Helper()
	wantFailureIn(t, noEnv, says, args...)
}

// wantFailureIn is wantFailure in an environment. It returns what the program said.
func wantFailureIn(t *testing.T, getenv func(string) string, says []string, args ...string) string {
	t.Helper()
	// Where it does not give up, it serves until its context ends.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	if code := run(ctx, nil, args, getenv, &out, &errOut); code != 1 {
		t.Errorf("run(%q) = %d, want 1", args, code)
	}
	for _, part := range says {
		if !strings.Contains(errOut.String(), part) {
			t.Errorf("run(%q) does not say %q: %s", args, part, &errOut)
		}
	}
	if out.Len() > 0 {
		t.Errorf("run(%q) printed %s", args, &out)
	}
	return errOut.String()
}

func TestPageURL(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:80": "http://127.0.0.1:80",
		"0.0.0.0:80":   "http://localhost:80",
		"[::]:80":      "http://localhost:80",
		"[::1]:80":     "http://[::1]:80",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := pageURL(tcp); got != want {
			t.Errorf("pageURL(%s) = %s, want %s", addr, got, want)
		}
	}
}
