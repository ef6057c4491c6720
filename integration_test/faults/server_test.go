//go:build linux

package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// server is a PostgreSQL of the test's own, with PostgreSQL's defaults.
type server struct {
	*pglocal.Server
	data string // its folder
}

func newServer(t *testing.T, settings ...string) *server {
	t.Helper()
	local, err := pglocal.Start(t.Context(), settings...)
	if err != nil {
		unable(t, err)
	}
	return own(t, local)
}

// own has the server end with the test.
func own(t *testing.T, local *pglocal.Server) *server {
	t.Helper()
	t.Cleanup(func() {
		if err := local.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := &server{Server: local}
	conn := s.connect(t)
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), `SHOW data_directory`).Scan(&s.data); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect is a superuser's connection.
func (s *server) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.WithoutCancel(t.Context()), s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// exec runs statements as a superuser, each in a transaction of its own.
func (s *server) exec(t *testing.T, sql ...string) {
	t.Helper()
	conn := s.connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, stmt := range sql {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

// postmaster is the process id of the server.
func (s *server) postmaster(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// children are the processes that a server has started: each is a group of its own.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (comm) state ppid: the name may hold anything.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(parent) && string(fields[0]) != "Z" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // it may have ended
	}
}

// kill ends all processes of the server at once, as a crash of its machine would.
func (s *server) kill(t *testing.T) {
	t.Helper()
	postmaster := s.postmaster(t)
	signal([]int{postmaster}, syscall.SIGSTOP) // so that it starts no more
	pids := append(children(t, postmaster), postmaster)
	signal(pids, syscall.SIGKILL)
	for _, pid := range pids {
		pgtest.Eventually(t, "the server's processes end", func() bool { return !runs(pid) })
	}
}

// runs reports whether a process is there that has not ended.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.HasPrefix(text[bytes.LastIndexByte(text, ')')+1:], []byte(" Z"))
}

func (s *server) restart(t *testing.T) {
	t.Helper()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// freeze stops the server's processes, with or without the one that takes connections, and
// returns what lets them go on. So does the end of the test, or our death.
func (s *server) freeze(t *testing.T, all bool) (thaw func()) {
	t.Helper()
	postmaster := s.postmaster(t)
	pids := children(t, postmaster)
	if all {
		pids = append(pids, postmaster)
	}
	script := "kill -CONT"
	for _, pid := range pids {
		script += " " + strconv.Itoa(pid)
	}
	pgtest.Guard(t, script+" 2>/dev/null")
	signal(pids, syscall.SIGSTOP)
	return func() { signal(pids, syscall.SIGCONT) }
}

// unable ends a test for want of something on this machine: a failure if CI is set.
func unable(t *testing.T, why any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// run runs a program that must work.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
