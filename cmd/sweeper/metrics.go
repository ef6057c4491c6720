package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/scspg/scspg/cleanup"
)

// metricsFile is a file for Prometheus' textfile collector. All of it are gauges,
// about the last sweep: between two runs from cron, no counter would survive.
type metricsFile struct {
	path        string
	lastSuccess float64 // 0 if this process has had none
}

// newMetrics returns nil where there is no file to write.
func newMetrics(path string) *metricsFile {
	if path == "" {
		return nil
	}
	return &metricsFile{path: path}
}

const lastSuccess = "scspg_sweeper_last_success_timestamp_seconds"

// note takes a sweep in and replaces the file, so that whoever reads it sees the old or
// the new one. It returns err, and what went wrong with the file.
func (m *metricsFile) note(r cleanup.Result, err error) error {
	if m == nil {
		return err
	}
	var text bytes.Buffer
	head := func(name, help string) { fmt.Fprintf(&text, "# HELP %[1]s %[2]s\n# TYPE %[1]s gauge\n", name, help) }
	value := func(name string, v float64) { fmt.Fprintln(&text, name, strconv.FormatFloat(v, 'f', -1, 64)) }
	gauge := func(name, help string, v float64) { head(name, help); value(name, v) }

	const deleted = "scspg_sweeper_deleted_sessions"
	head(deleted, "Sessions that the last sweep deleted, by how they had ended.")
	for _, k := range []struct {
		kind string
		n    int64
	}{{"expired", r.Expired}, {"signed_out", r.SignedOut}, {"revoked", r.Revoked}, {"evicted", r.Evicted}, {"renewed", r.Renewed}} {
		value(deleted+`{kind="`+k.kind+`"}`, float64(k.n))
	}
	gauge("scspg_sweeper_deleted_user_rows", "Rows of the user index that the last sweep deleted with their sessions.", float64(r.UserRows))
	gauge("scspg_sweeper_deleted_orphan_user_rows", "Rows of the user index without a session that the last sweep deleted.", float64(r.OrphanUserRows))
	gauge("scspg_sweeper_deleted_orphan_users", "Users without a session that the last sweep deleted.", float64(r.OrphanUsers))
	gauge("scspg_sweeper_batches", "Transactions in which the last sweep deleted.", float64(r.Batches))
	gauge("scspg_sweeper_duration_seconds", "How long the last sweep took.", r.Duration.Seconds())
	gauge("scspg_sweeper_longest_batch_seconds", "How long its longest transaction took.", r.Longest.Seconds())
	now := float64(time.Now().Unix())
	gauge("scspg_sweeper_last_run_timestamp_seconds", "When the last sweep ended.", now)
	success := 0.0
	if err == nil {
		success, m.lastSuccess = 1, now
		gauge("scspg_sweeper_backlog_sessions", fmt.Sprintf("Sessions past their grace period that are left, up to %d.", cleanup.MaxLeft), float64(r.Left))
		age := 0.0
		if !r.OldestLeft.IsZero() {
			age = time.Since(r.OldestLeft).Round(time.Second).Seconds()
		}
		gauge("scspg_sweeper_oldest_expired_age_seconds", "How long ago the oldest of them expired; 0 if none is left.", age)
	} else if m.lastSuccess == 0 { // and the backlog is unknown
		m.lastSuccess = m.earlierSuccess()
	}
	gauge("scspg_sweeper_success", "Whether the last sweep ended without an error: 1 or 0.", success)
	gauge(lastSuccess, "When a sweep last ended without an error; 0 if that is not known.", m.lastSuccess)
	if e := replaceFile(m.path, text.Bytes()); e != nil {
		return errors.Join(err, fmt.Errorf("the metrics were not written: %w", e))
	}
	return err
}

// earlierSuccess is the time of the last success by the file of an earlier run: alerts
// rest on it.
func (m *metricsFile) earlierSuccess() float64 {
	f, err := os.Open(m.path)
	if err != nil {
		return 0 // there was no earlier run
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), lastSuccess+" "); ok {
			if v, err := strconv.ParseFloat(text, 64); err == nil {
				return v
			}
		}
	}
	return 0
}

// check says whether the file can be written.
func (m *metricsFile) check() error {
	if m == nil {
		return nil
	}
	target, err := follow(m.path)
	if err != nil {
		return err
	}
	f, err := createBeside(target)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// follow returns the file that path leads to, through symbolic links, which need not
// exist yet. What is there must be a regular file: we are about to replace it.
func follow(path string) (string, error) {
	for range 40 { // as Linux has it
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return path, nil
		case err != nil:
			return "", err
		case info.Mode().IsRegular():
			return path, nil
		case info.Mode()&fs.ModeSymlink == 0:
			return "", errors.New("it exists, and is not a regular file")
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Dir(path) + string(filepath.Separator) + to
		}
		path = to
	}
	return "", errors.New("too many symbolic links")
}

func createBeside(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
}

// replaceFile writes a file beside the one that path leads to, and puts it in its place.
func replaceFile(path string, text []byte) (err error) {
	if path, err = follow(path); err != nil {
		return err
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	// The collector, as a rule, is another user.
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
