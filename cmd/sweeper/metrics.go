package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/scspg/scspg/cleanup"
)

// metricsFile is a file for Prometheus' textfile collector. All of it are gauges,
// about the last sweep: between two runs from cron, no counter would survive.
type metricsFile struct {
	path string
	set  *metrics.Set
}

// newMetrics returns nil where there is no file to write.
func newMetrics(path string) *metricsFile {
	if path == "" {
		return nil
	}
	metrics.ExposeMetadata(true)
	return &metricsFile{path: path, set: metrics.NewSet()}
}

// note takes a sweep in and replaces the file, so that whoever reads it sees the old or
// the new one. It returns err, and what went wrong with the file.
func (m *metricsFile) note(r cleanup.Result, err error) error {
	if m == nil {
		return err
	}
	now := float64(time.Now().Unix())
	for kind, n := range map[string]int64{"expired": r.Expired, "signed_out": r.SignedOut,
		"revoked": r.Revoked, "evicted": r.Evicted, "renewed": r.Renewed} {
		m.gauge(`scspg_sweeper_deleted_sessions{kind="`+kind+`"}`, float64(n))
	}
	m.gauge("scspg_sweeper_deleted_user_rows", float64(r.UserRows))
	m.gauge("scspg_sweeper_deleted_orphan_user_rows", float64(r.OrphanUserRows))
	m.gauge("scspg_sweeper_deleted_orphan_users", float64(r.OrphanUsers))
	m.gauge("scspg_sweeper_batches", float64(r.Batches))
	m.gauge("scspg_sweeper_duration_seconds", r.Duration.Seconds())
	m.gauge("scspg_sweeper_longest_batch_seconds", r.Longest.Seconds())
	m.gauge("scspg_sweeper_last_run_timestamp_seconds", now)
	if err != nil {
		// The backlog is unknown, and the last success stays what it was.
		m.gauge("scspg_sweeper_success", 0)
		m.set.UnregisterMetric(backlog)
		m.set.UnregisterMetric(oldestAge)
		m.keepLastSuccess()
	} else {
		m.gauge("scspg_sweeper_success", 1)
		m.gauge(backlog, float64(r.Left))
		age := 0.0
		if !r.OldestLeft.IsZero() {
			age = time.Since(r.OldestLeft).Seconds()
		}
		m.gauge(oldestAge, age)
		m.gauge(lastSuccess, now)
	}
	if e := replaceFile(m.path, m.set.WritePrometheus); e != nil {
		return errors.Join(err, fmt.Errorf("the metrics were not written: %w", e))
	}
	return err
}

func (m *metricsFile) gauge(name string, v float64) { m.set.GetOrCreateGauge(name, nil).Set(v) }

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
func replaceFile(path string, write func(io.Writer)) (err error) {
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
	write(f)
	// The collector, as a rule, is another user.
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

const (
	lastSuccess = "scspg_sweeper_last_success_timestamp_seconds"
	backlog     = "scspg_sweeper_backlog_sessions"
	oldestAge   = "scspg_sweeper_oldest_expired_age_seconds"
)

// keepLastSuccess takes the time of the last success over from the file of an
// earlier run, where this process has had none: alerts rest on it.
func (m *metricsFile) keepLastSuccess() {
	if m.set.GetOrCreateGauge(lastSuccess, nil).Get() != 0 {
		return
	}
	f, err := os.Open(m.path)
	if err != nil {
		return // there was no earlier run
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), lastSuccess+" "); ok {
			if v, err := strconv.ParseFloat(text, 64); err == nil {
				m.gauge(lastSuccess, v)
			}
		}
	}
}
