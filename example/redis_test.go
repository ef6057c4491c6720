package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.store, cfg.redisAddr = storeRedis, startFakeRedis(t)
	opened, err := openBackend(t.Context(), cfg, noEnv, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.close(); err != nil {
			t.Error(err)
		}
	})
	b := newBrowser(t, serveStore(t, cfg, opened.store), "test")
	b.get("/api/me").wants(t, 401, codeNotSignedIn)
	b.mustLogin("alice")
	if me := b.get("/api/me"); me.Username != "alice" {
		t.Errorf("/api/me answered %s", me.body)
	}
	b.get("/api/sessions").wants(t, 501, codeNotSupported)
	b.get("/").contains(t, "<strong>redis</strong>")
	stolen := b.cookie()
	b.post("/logout").wants(t, 200, "")
	b.send("GET", "/api/me", "", "Cookie", "scspg_demo="+stolen).wants(t, 401, codeNotSignedIn)
}

// startFakeRedis serves the few commands of Redis that redisstore sends, without
// expiry, and returns its address.
func startFakeRedis(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeRedis{values: map[string]string{}}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					command, err := readCommand(in)
					if err != nil {
						return
					}
					io.WriteString(conn, fake.do(command)) //nolint:errcheck // The next read fails too.
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return listener.Addr().String()
}

// readCommand reads one command: an array of strings, each after its length.
func readCommand(in *bufio.Reader) ([]string, error) {
	length := func() (int, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimRight(line, "\r\n")[1:])
	}
	n, err := length()
	if err != nil {
		return nil, err
	}
	command := make([]string, n)
	for i := range command {
		size, err := length()
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(in, word); err != nil {
			return nil, err
		}
		command[i] = string(word[:size])
	}
	return command, nil
}

type fakeRedis struct {
	mu     sync.Mutex
	values map[string]string
}

// do runs a command at once, also within MULTI: there is one client at a time.
func (f *fakeRedis) do(command []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch command[0] {
	case "PING":
		return "+PONG\r\n"
	case "MULTI":
		return "+OK\r\n"
	case "SET":
		f.values[command[1]] = command[2]
		return "+QUEUED\r\n"
	case "PEXPIREAT":
		return "+QUEUED\r\n"
	case "EXEC":
		return "*2\r\n+OK\r\n:1\r\n"
	case "GET":
		if value, ok := f.values[command[1]]; ok {
			return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
		}
		return "$-1\r\n"
	case "DEL":
		delete(f.values, command[1])
		return ":1\r\n"
	default:
		return "-ERR unknown command " + command[0] + "\r\n"
	}
}
