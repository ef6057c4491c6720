// Package pglocal starts a private PostgreSQL server from the programs on this machine,
// for tests and demos: in a temporary folder, on a free port of the loopback address. Run
// as root, the server runs as an unprivileged user. Should this process be killed, a
// watchdog ends the server and removes the folder.
package pglocal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Prefix begins the names of the folders.
const Prefix = "devpg-"

// ForTests are settings for a server that tests share.
var ForTests = []string{
	"max_connections=400",
	"fsync=off", // durability is not tested by pulling the plug
	"full_page_writes=off",
	"shared_buffers=256MB",
	"max_wal_size=4GB", // no checkpoint amid the tests
	"checkpoint_timeout=1h",
}

// StartTimeout is how long a server may take to come up.
const StartTimeout = 30 * time.Second

const stopTimeout = 10 * time.Second

// Server is a private data folder and the server on it.
type Server struct {
	// DSN is a postgres:// URL of a database that its role may do anything in. It
	// holds a password: do not print it.
	DSN string
	// Bin is the folder of the programs that it runs.
	Bin string

	dir, password string
	port          int
	settings      []string
	watchdog      *Watchdog

	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended

	stopping sync.Once
	stopped  error
}

// Start makes a cluster and starts a server on it, with settings of postgresql.conf such
// as "fsync=off". If ctx ends before the server is ready, Start gives up and leaves
// nothing behind; once it has returned, ctx no longer matters to the server.
func Start(ctx context.Context, settings ...string) (*Server, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{Bin: bin, password: rand.Text(), settings: settings}
	return s.launch(ctx, s.init)
}

// Standby is Start for a server that follows s: read-only, until it is promoted.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	standby := &Server{Bin: s.Bin, password: s.password, settings: s.settings}
	return standby.launch(ctx, func(ctx context.Context) error {
		if err := giveAway(standby.dir); err != nil {
			return err
		}
		return standby.run(ctx, "pg_basebackup", "--dbname", s.DSN, "--pgdata", standby.data(), "--write-recovery-conf",
			"--checkpoint", "fast", "--no-sync")
	})
}

// launch has fill make the data folder, and starts the server on it.
func (s *Server) launch(ctx context.Context, fill func(context.Context) error) (_ *Server, err error) {
	if s.dir, err = os.MkdirTemp("", Prefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.watchdog, err = Watch(s.dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	if err := fill(ctx); err != nil {
		return nil, err
	}
	if s.port, err = FreePort(ctx); err != nil {
		return nil, err
	}
	s.DSN = DSN(s.password, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Log returns what the server has logged until now.
func (s *Server) Log() (string, error) {
	text, err := os.ReadFile(s.log())
	return string(text), err
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

// Unprivileged makes cmd run in dir as a server of ours does, and gives it dir and files.
func Unprivileged(cmd *exec.Cmd, dir string, files ...string) error {
	unprivileged(cmd, dir)
	return giveAway(append(files, dir)...)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) init(ctx context.Context) error {
	pwfile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pwfile, []byte(s.password), 0o600); err != nil {
		return err
	}
	if err := giveAway(s.dir, pwfile); err != nil {
		return err
	}
	return s.run(ctx, "initdb", "--pgdata", s.data(), "--username", "postgres",
		"--auth", "scram-sha-256", "--pwfile", pwfile, "--encoding", "UTF8", "--locale", "C", "--no-sync")
}

// run runs one of the server's programs to its end.
func (s *Server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, program), args...)
	unprivileged(cmd, s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, lastLines(string(out)))
	}
	return nil
}

// Restart starts the server again after Kill, on the same port and with the same data.
func (s *Server) Restart(ctx context.Context) error { return s.start(ctx) }

// start runs the server and waits until it answers.
func (s *Server) start(ctx context.Context) error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.Bin, "postgres"), args...) //nolint:noctx // it outlives the start's context
	cmd.Stdout, cmd.Stderr = log, log
	unprivileged(cmd, s.dir)
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go await(cmd, gone)
	s.cmd, s.gone = cmd, gone
	if err := AwaitReady(ctx, s.DSN, gone); err != nil {
		text, _ := s.Log()
		return fmt.Errorf("%w: %s", err, lastLines(text))
	}
	return nil
}

// await closes gone when cmd has ended. How it ended is in its log.
func await(cmd *exec.Cmd, gone chan<- struct{}) {
	_ = cmd.Wait()
	close(gone)
}

// Kill ends the server at once, without letting it clean up, as a crash would.
func (s *Server) Kill() error { return s.end(quitSignal, 0) }

// Stop ends the server and removes its folder. Further calls do nothing and return the
// result of the first.
func (s *Server) Stop() error {
	s.stopping.Do(func() {
		err := s.end(fastSignal, stopTimeout)
		if s.watchdog != nil {
			err = errors.Join(err, s.watchdog.Stop())
		}
		s.stopped = errors.Join(err, os.RemoveAll(s.dir))
	})
	return s.stopped
}

// end signals the server, and harder once patience is over.
func (s *Server) end(sig os.Signal, patience time.Duration) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if patience > 0 {
		select {
		case <-s.gone:
			return nil
		case <-time.After(patience):
			_ = s.cmd.Process.Signal(quitSignal)
		}
	}
	select {
	case <-s.gone:
		return nil
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.gone
		return errors.New("the server had to be killed")
	}
}

// FreePort is a port of the loopback address that nobody listens on just now.
func FreePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// lastLines is the end of a log, where the reason stands.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
