package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/cleanup"
)

func TestFlags(t *testing.T) {
	c, err := parse([]string{"-batch", "50", "-grace", "1h", "-max-rows", "7", "-pause", "1s", "-timeout", "2s",
		"-lock-timeout", "3s", "-max-duration", "4s", "-schema", "s", "-dry-run"}, io.Discard)
	if err != nil || c.Batch != 50 || c.Grace != time.Hour || c.MaxRows != 7 || c.Pause != time.Second ||
		c.StatementTimeout != 2*time.Second || c.LockTimeout != 3*time.Second || c.MaxDuration != 4*time.Second ||
		c.Schema != "s" || !c.DryRun {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = parse(nil, io.Discard)
	if err != nil || c.Batch != cleanup.DefaultBatch || c.Grace != cleanup.DefaultGrace ||
		c.StatementTimeout != cleanup.DefaultStatementTimeout || c.LockTimeout != cleanup.DefaultLockTimeout {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	// The library takes 0 for its default; on the command line it means none.
	if c, err = parse([]string{"-grace", "0"}, io.Discard); err != nil || c.Grace != time.Nanosecond {
		t.Errorf("no grace: %v, %v", c.Grace, err)
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`unexpected argument "now"`: {"now"},
		"-batch 0":                  {"-batch", "0"},
		"-max-rows -1":              {"-max-rows", "-1"},
		"-grace -1s":                {"-grace", "-1s"},
		"-pause -1s":                {"-pause", "-1s"},
		"-interval -1s":             {"-interval", "-1s"},
		"-dry-run and -interval":    {"-dry-run", "-interval", "1m"},
		`invalid value "soon"`:      {"-grace", "soon"},
		"not defined: -nonsense":    {"-nonsense"},
		"no database":               {},
		"DSN is malformed":          {"-dsn", "postgres://u:s3cret@host:nonsense/db"},
		"DSN is malformed: use":     {"-dsn", "host=h password=s3cret nonsense"},
		"-batch 100001: use 1 to 1": {"-batch", "100001"},
		"connection refused":        {"-dsn", "postgres://u:s3cret@127.0.0.1:1/db"},
	} {
		var stdout, stderr bytes.Buffer
		p := &program{args: args, stdout: &stdout, stderr: &stderr}
		status := p.run(t.Context())
		if status == swept || !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("%q: status %d, %q, %q", args, status, stderr.String(), stdout.String())
		}
		if usage := !slices.Contains(args, "-dsn"); usage != (status == wrongUsage) {
			t.Errorf("%q: status %d", args, status)
		}
		if strings.Contains(stderr.String(), "s3cret") {
			t.Errorf("%q: the password is printed: %q", args, stderr.String())
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	p := &program{args: []string{"-h"}, stdout: &stdout, stderr: &stderr}
	if status := p.run(t.Context()); status != swept {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"Exit status", "DATABASE_URL", "-metrics-file", "SIGTERM"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not in the help", want)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
	p = &program{args: []string{"-version"}, stdout: &stdout, stderr: &stderr}
	if status := p.run(t.Context()); status != swept || !regexp.MustCompile(`^sweeper \S+ go1\.\S+\n$`).MatchString(stdout.String()) {
		t.Errorf("status %d, %q", status, stdout.String())
	}
}

func TestWhereTheDatabaseIsNamed(t *testing.T) {
	for _, c := range []struct {
		flag string
		env  []string
		want string
		ok   bool
	}{
		{"", nil, "", false},
		{"", []string{"DATABASE_URL=", "PGHOST=", "HOME=/"}, "", false},
		{"a", []string{"DATABASE_URL=b", "PGHOST=c"}, "a", true},
		{"", []string{"PGHOST=c", "DATABASE_URL=b"}, "b", true},
		{"", []string{"PGHOST=c"}, "", true}, // pgx reads them by itself
	} {
		config := config{dsn: c.flag}
		if dsn, ok := config.source(c.env); dsn != c.want || ok != c.ok {
			t.Errorf("%+v: %q, %v", c, dsn, ok)
		}
	}
}

func TestMetricsFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sweeper.prom")
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
			if !regexp.MustCompile(`^(# (TYPE|HELP) \w+.*|\w+(\{kind="\w+"\})? \S+)$`).MatchString(line) {
				t.Errorf("malformed: %q", line)
			}
		}
		return string(text)
	}
	if err := newMetrics("").note(cleanup.Result{}, nil); err != nil {
		t.Error(err)
	}
	r := cleanup.Result{Expired: 5, Renewed: 2, UserRows: 6, Left: 9, OldestLeft: time.Now().Add(-time.Hour), Duration: 2 * time.Second}
	if err := newMetrics(path).note(r, nil); err != nil {
		t.Fatal(err)
	}
	text := read()
	for _, want := range []string{`scspg_sweeper_deleted_sessions{kind="expired"} 5`, `{kind="renewed"} 2`, `{kind="evicted"} 0`,
		"scspg_sweeper_deleted_user_rows 6", "scspg_sweeper_backlog_sessions 9", "scspg_sweeper_oldest_expired_age_seconds 36",
		"scspg_sweeper_duration_seconds 2", "scspg_sweeper_success 1", "# TYPE scspg_sweeper_backlog_sessions gauge"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	last := regexp.MustCompile(`(?m)^scspg_sweeper_last_success_timestamp_seconds \S+$`)
	success := last.FindString(text)
	if success == "" {
		t.Fatal("no last success")
	}
	// A later process that fails keeps the time of the success, and knows no backlog.
	broken := errors.New("broken")
	if err := newMetrics(path).note(cleanup.Result{}, broken); !errors.Is(err, broken) {
		t.Error(err)
	}
	text = read()
	if last.FindString(text) != success || !strings.Contains(text, "scspg_sweeper_success 0") || strings.Contains(text, "backlog") {
		t.Errorf("after a failure:\n%s", text)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := newMetrics(filepath.Join(dir, "absent", "file")).note(r, nil); err == nil || !strings.Contains(err.Error(), "metrics were not written") {
		t.Error(err)
	}
}

func TestWhatIsUnderWayOutlivesTheSignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	later, stop := outlive(ctx, time.Hour)
	cancel()
	time.Sleep(10 * time.Millisecond)
	if later.Err() != nil {
		t.Error("it ended with the signal")
	}
	stop()
	if later.Err() == nil {
		t.Error("it was not released")
	}
	later, stop = outlive(ctx, time.Millisecond)
	defer stop()
	<-later.Done()
}

func TestErrorsAreOneLine(t *testing.T) {
	var stderr bytes.Buffer
	p := &program{stderr: &stderr}
	if status := p.fail(errors.New("failed to connect:\n\thost a: refused\n\thost b: refused")); status != failed {
		t.Errorf("status %d", status)
	}
	if got := stderr.String(); got != "sweeper: failed to connect: host a: refused host b: refused\n" {
		t.Errorf("%q", got)
	}
}
