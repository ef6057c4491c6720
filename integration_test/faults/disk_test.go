//go:build linux

package faults

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/internal/pgtest/pglocal"
)

const fullFor = 4 * time.Second

// disk is a small file system.
type disk struct{ path string }

// newDisk mounts one. What is on it has to end before the test does, so ask for it first.
func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	path, err := os.MkdirTemp("", "faults-disk-")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Guard(t, "umount -l "+path+" 2>/dev/null; rmdir "+path)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0755,size="+size, "faults", path).CombinedOutput(); err != nil {
		unable(t, fmt.Sprintf("it mounts a file system, for which it needs to be root: %v: %s", err, out))
	}
	return &disk{path}
}

// folder makes one for the server's user.
func (d *disk) folder(t *testing.T, s *server) string {
	t.Helper()
	path := filepath.Join(d.path, "tables")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.data)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	return path
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (d *disk) filler() string { return filepath.Join(d.path, "filler") }

// fill takes what is left of it.
func (d *disk) fill(t *testing.T) {
	t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func (d *disk) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		t.Fatal(err)
	}
}

// tablesFull has the tables on the disk that is full: they cannot grow.
func tablesFull(t *testing.T, j *judgement) {
	d := newDisk(t, "64m")
	s := newServer(t)
	s.exec(t, `CREATE TABLESPACE small LOCATION '`+d.folder(t, s)+`'`, `ALTER DATABASE postgres SET default_tablespace = small`)
	b := onServer(t, j, s)
	d.fill(t)
	time.Sleep(fullFor)
	b.healed()
	d.empty(t)
	b.finish(t)
	b.mustHaveSeen(t, "53100") // disk_full
}

// walFull has the log on it: that is a panic of the server, and it ends if it cannot
// recover.
func walFull(t *testing.T, j *judgement) {
	d := newDisk(t, "128m")
	s := newServer(t, "min_wal_size=32MB", "max_wal_size=48MB")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	wal := filepath.Join(s.data, "pg_wal")
	run(t, "mv", wal, d.path)
	if err := os.Symlink(filepath.Join(d.path, "pg_wal"), wal); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	b := onServer(t, j, s)
	d.fill(t)
	began := time.Now()
	s.exhaustLog(t)
	time.Sleep(fullFor - min(fullFor, time.Since(began)))
	b.healed()
	d.empty(t)
	pgtest.Eventually(t, "the server is back", func() bool {
		if _, err := os.Stat(filepath.Join(s.data, "postmaster.pid")); err != nil {
			s.restart(t) // it had given up
		}
		return pglocal.Ping(t.Context(), s.DSN) == nil
	})
	b.finish(t)
}

// exhaustLog goes on to the next segments of the log until there is no place for another.
func (s *server) exhaustLog(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, "the server panics", func() bool {
		conn, err := pgx.Connect(t.Context(), s.DSN)
		if err != nil {
			return true
		}
		defer conn.Close(t.Context())
		for _, sql := range []string{`SELECT pg_switch_wal()`, `SELECT txid_current()`} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				return true
			}
		}
		return false
	})
}
