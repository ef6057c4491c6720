package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// Local starts a private cluster from the PostgreSQL programs on this machine, in a
// temporary folder, on a free port of the loopback address. Run as root, the server
// runs as an unprivileged user. Should this process be killed, a watchdog ends the
// server and removes the folder.
func Local(opts ...Option) Source {
	o := collect(opts)
	return Source{
		name:  "PostgreSQL's programs on this machine",
		hint:  "install them (Debian: apt-get install postgresql, macOS: brew install postgresql), or add the folder of initdb to PATH",
		start: func(ctx context.Context) (*Server, error) { return startLocal(ctx, o) },
	}
}

// cluster is a private data folder and the server on it.
type cluster struct {
	bin, dir string
	port     int
	password string
	settings []string
	watchdog *watchdog

	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
}

func startLocal(ctx context.Context, o options) (_ *Server, err error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "devpg-")
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: dir, password: rand.Text(), settings: o.settings}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop(context.WithoutCancel(ctx)))
		}
	}()
	if c.watchdog, err = startWatchdog(dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.init(ctx); err != nil {
		return nil, err
	}
	if c.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return &Server{DSN: c.dsn(), Source: "a throwaway server from " + bin, stop: c.stop, kill: c.kill, restart: c.start}, nil
}

func (c *cluster) dsn() string {
	return dsnOf(c.password, net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)))
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *cluster) init(ctx context.Context) error {
	pwfile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(pwfile, []byte(c.password), 0o600); err != nil {
		return err
	}
	if err := giveAway(c.dir, pwfile); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"), "--pgdata", c.data(), "--username", "postgres",
		"--auth", "scram-sha-256", "--pwfile", pwfile, "--encoding", "UTF8", "--locale", "C", "--no-sync")
	unprivileged(cmd, c.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(string(out)))
	}
	return nil
}

// start runs the server and waits until it answers.
func (c *cluster) start(ctx context.Context) error {
	args := []string{"-D", c.data(), "-p", strconv.Itoa(c.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	for _, s := range c.settings {
		args = append(args, "-c", s)
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), args...) //nolint:noctx // it outlives the start's context
	cmd.Stdout, cmd.Stderr = log, log
	unprivileged(cmd, c.dir)
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go await(cmd, gone)
	c.cmd, c.gone = cmd, gone
	if err := awaitReady(ctx, c.dsn(), gone); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w: %s", err, lastLines(string(text)))
	}
	return nil
}

// await closes gone when cmd has ended. How it ended is in its log.
func await(cmd *exec.Cmd, gone chan<- struct{}) {
	_ = cmd.Wait()
	close(gone)
}

// kill ends the server at once, without a checkpoint.
func (c *cluster) kill(context.Context) error { return c.end(quitSignal, 0) }

// stop ends the server and removes its folder.
func (c *cluster) stop(context.Context) error {
	err := c.end(fastSignal, stopTimeout)
	if c.watchdog != nil {
		err = errors.Join(err, c.watchdog.stop())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// end signals the server, and harder once patience is over.
func (c *cluster) end(sig os.Signal, patience time.Duration) error {
	if c.cmd == nil {
		return nil
	}
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if patience > 0 {
		select {
		case <-c.gone:
			return nil
		case <-time.After(patience):
			_ = c.cmd.Process.Signal(quitSignal)
		}
	}
	select {
	case <-c.gone:
		return nil
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.gone
		return errors.New("the server had to be killed")
	}
}

// findBinaries returns the folder of initdb and postgres, the newest where there
// are several.
func findBinaries(ctx context.Context) (string, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // only a malformed pattern is an error
		slices.SortFunc(found, func(a, b string) int { return versionIn(b) - versionIn(a) })
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if isProgram(filepath.Join(dir, "initdb")) && isProgram(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("no folder with initdb and postgres was found in PATH, by pg_config, or in the usual places")
}

// versionIn is the first number in a path, 0 where there is none.
func versionIn(path string) int {
	start := strings.IndexAny(path, "0123456789")
	if start < 0 {
		return 0
	}
	digits := path[start:]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, _ := strconv.Atoi(digits)
	return n
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func freePort(ctx context.Context) (int, error) {
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
