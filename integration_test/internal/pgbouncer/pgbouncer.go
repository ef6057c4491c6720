// Package pgbouncer runs a PgBouncer in transaction mode, for tests.
package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

// Pooler is a PgBouncer before a server.
type Pooler struct {
	// DSN leads through it to the database and the role that it was started for.
	DSN string

	t       testing.TB
	program string
	config  string
	out     strings.Builder
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start runs one before the server of the DSN, until the test ends. It is an error if
// PgBouncer is not installed.
func Start(t testing.TB, dsn string) (*Pooler, error) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, errors.New("pgbouncer is not installed")
		}
	}
	target, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Guard(t, "rm -r "+dir)
	port, err := pglocal.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	password := "" // where the server asks for none
	if target.Password != "" {
		password = " password=" + target.Password
	}
	config := fmt.Sprintf("[databases]\ntest = host=%s port=%d dbname=%s user=%s%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 5\nmax_client_conn = 200\nunix_socket_dir =\n",
		target.Host, target.Port, target.Database, target.User, password, port)
	p := &Pooler{t: t, program: program, config: filepath.Join(dir, "pgbouncer.ini")}
	p.DSN = fmt.Sprintf("postgres://%s@127.0.0.1:%d/test?sslmode=disable", url.PathEscape(target.User), port)
	if err := os.WriteFile(p.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Restart()
	t.Cleanup(p.Kill)
	return p, nil
}

// Kill ends it at once.
func (p *Pooler) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Restart starts it again, on the same port, and waits until it answers.
func (p *Pooler) Restart() {
	p.t.Helper()
	p.cmd = exec.CommandContext(context.WithoutCancel(p.t.Context()), p.program, p.config)
	p.cmd.SysProcAttr = p.notRoot()
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	pgtest.GuardProcess(p.t, p.cmd, p.config)
	p.ended = make(chan struct{})
	go await(p.cmd, p.ended)
	config, err := pgx.ParseConfig(p.DSN)
	if err != nil {
		p.t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	pgtest.Eventually(p.t, "pgbouncer answers", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("pgbouncer ended: %s", p.out.String())
		default:
		}
		ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
		defer cancel()
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return false
		}
		defer conn.Close(ctx)
		return conn.Ping(ctx) == nil
	})
}

// await closes ended when cmd has ended, however that was.
func await(cmd *exec.Cmd, ended chan<- struct{}) {
	_ = cmd.Wait()
	close(ended)
}

// notRoot is how a program runs that refuses root.
func (p *Pooler) notRoot() *syscall.SysProcAttr {
	p.t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		p.t.Fatal(err)
	}
	uid, errUID := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(nobody.Gid, 10, 32)
	if errUID != nil || errGID != nil {
		p.t.Fatal(errUID, errGID)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
