package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/schollz/progressbar/v3"

	"github.com/scspg/scspg/cleanup"
)

func TestFlags(t *testing.T) {
	c, err := parse([]string{"-batch", "50", "-grace", "1h", "-max-rows", "7", "-pause", "1s", "-timeout", "2s",
		"-lock-timeout", "3s", "-max-duration", "4s", "-schema", "s", "-dry-run", "-orphans"})
	if err != nil || c.Batch != 50 || c.Grace != time.Hour || c.MaxRows != 7 || c.Pause != time.Second ||
		c.StatementTimeout != 2*time.Second || c.LockTimeout != 3*time.Second || c.MaxDuration != 4*time.Second ||
		c.Schema != "s" || !c.dryRun || !c.Orphans {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = parse(nil)
	if err != nil || c.Orphans || c.Batch != cleanup.DefaultBatch || c.Grace != cleanup.DefaultGrace ||
		c.StatementTimeout != cleanup.DefaultStatementTimeout || c.LockTimeout != cleanup.DefaultLockTimeout {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	// The library takes 0 for its default; on the command line it means none.
	if c, err = parse([]string{"-grace", "0"}); err != nil || c.Grace != time.Nanosecond {
		t.Errorf("no grace: %v, %v", c.Grace, err)
	}
}

// lockedBuffer may be read while the program writes.
type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.String()
}

// runWith runs the program, with nothing in its environment.
func runWith(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &program{args: args, stdout: &out, stderr: &errs}
	status = p.run(t.Context())
	return out.String(), errs.String(), status
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`unexpected argument "now"`:  {"now"},
		"-batch 0":                   {"-batch", "0"},
		"-max-rows -1":               {"-max-rows", "-1"},
		"-grace -1s":                 {"-grace", "-1s"},
		"-pause -1s":                 {"-pause", "-1s"},
		"-interval -1s":              {"-interval", "-1s"},
		"-dry-run and -interval":     {"-dry-run", "-interval", "1m"},
		"-dry-run and -metrics-file": {"-dry-run", "-metrics-file", "m"},
		`invalid value "soon" for flag -grace: write a number and its unit, as in 30s`:                    {"-grace", "soon"},
		`invalid value "9" for flag -max-duration: it lacks a unit: write 9s for seconds, 9m for minutes`: {"-max-duration", "9"},
		`invalid value "-1.5" for flag -pause: it lacks a unit: write -1.5s`:                              {"-pause", "-1.5"},
		`"1 m" for flag -interval: write a number`:                                                        {"-interval", "1 m"},
		"not defined: -nonsense":                      {"-nonsense"},
		"no database":                                 {},
		"-batch 100001: use 1 to 1":                   {"-batch", "100001"},
		"-timeout 0s: it must be more than 0":         {"-timeout", "0"},
		"-timeout -1s: it must be more":               {"-timeout", "-1s"},
		"-lock-timeout 0s: it must be":                {"-lock-timeout", "0"},
		"-timeout 596h31m23.648s: it must be":         {"-timeout", "2147483648ms"}, // one more than PostgreSQL's int
		"-lock-timeout 2562047h0m0s":                  {"-lock-timeout", "2562047h"},
		"-metrics-file /nonexistent/m: no such":       {"-dsn", "x", "-metrics-file", "/nonexistent/m"},
		"-metrics-file /dev/null: it exists, and is":  {"-dsn", "x", "-metrics-file", "/dev/null"},
		"-metrics-file /: it exists, and is not a re": {"-dsn", "x", "-metrics-file", "/"},
	} {
		stdout, stderr, status := runWith(t, args...)
		if status != wrongUsage || !strings.Contains(stderr, want) || stdout != "" {
			t.Errorf("%q: status %d, %q, %q", args, status, stderr, stdout)
		}
		if strings.Count(stderr, "\n") != 2 || !strings.HasSuffix(stderr, "\nRun sweeper -h for the flags.\n") {
			t.Errorf("%q: more than it takes: %q", args, stderr)
		}
	}
	if _, err := parse([]string{"-timeout", "2147483647ms", "-lock-timeout", "1ns"}); err != nil {
		t.Error(err)
	}
}

// Whatever way a password comes in, it does not come out.
func TestPasswordsAreNotPrinted(t *testing.T) {
	const at = "127.0.0.1:1/db"
	for _, c := range []struct {
		want string
		args []string
	}{
		{"looks like a DSN: use -dsn", []string{"postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"now", "postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"host=h user=u password=s3cret"}},
		{"looks like a DSN: use -dsn", []string{"host=h user=u PASSWORD = s3cret"}},
		{"looks like a DSN: use -dsn", []string{"u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"-batch", "postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"-grace", "host=h password=s3cret"}},
		{"looks like a DSN: use -dsn", []string{"-json=postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"-postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"-schema", "postgres://u:s3cret@h/db"}},
		{"looks like a DSN: use -dsn", []string{"-metrics-file", "postgres://u:s3cret@h/db"}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:s3cret@host:nonsense/db"}},
		{"DSN is malformed: use", []string{"-dsn", "host=h password=s3cret nonsense"}},
		{"DSN is malformed", []string{"-dsn", "host=h user=u password=a s3cret dbname=d"}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:a@s3cret@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgresql://u:a@s3cret@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:12/s3cret@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:12/s3cret#x@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:12/3?s3cret@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:s3cret/x@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:s3cret%@" + at}},
		{"DSN is malformed", []string{"-dsn", "postgres://u:p@" + at + "?password=s3cret@x"}},
		{"DSN is malformed", []string{"-dsn", "postgre://u:s3cret@" + at + "?sslmode=disable"}},
		{"connection refused", []string{"-dsn", "postgres://u:s3cret@" + at}},
		{"connection refused", []string{"-dsn", "postgres://u:s3cret#1@" + at}}, // these can be told apart
		{"connection refused", []string{"-dsn", "postgres://u:s3cret?1@" + at}},
		{"connection refused", []string{"-dsn", "postgres://u:s3cret%40%2F@" + at}},
		{"connection refused", []string{"-dsn", "postgres://u:s3cret@[::ffff:127.0.0.1]:1,127.0.0.1:2/db"}},
		{"no such file", []string{"-dsn", "postgres://u:s3cret@%2Fnonexistent/db"}},
		{"connection refused", []string{"-dsn", "host=127.0.0.1 port=1 user=u password=s3cret@x"}},
		{"sslmode is invalid", []string{"-dsn", "postgres://u:s3cret@" + at + "?sslmode=bad"}},
		{"open /nonexistent.pem: no such file", []string{"-dsn", "postgres://u:s3cret@h/db?sslmode=verify-full&sslrootcert=/nonexistent.pem"}},
		{`connect_timeout (strconv.ParseInt: parsing "soon"`, []string{"-dsn", "postgres://u:s3cret@h/db?connect_timeout=soon"}},
		{"pool_max_conns", []string{"-dsn", "postgres://u:s3cret@h/db?pool_max_conns=all"}},
		{"failed to read service", []string{"-dsn", "service=absent servicefile=/nonexistent password=s3cret"}},
	} {
		stdout, stderr, status := runWith(t, append([]string{"-json"}, c.args...)...)
		if status == swept || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: status %d, %q", c.args, status, stderr)
		}
		if strings.Contains(stderr+stdout, "s3cret") {
			t.Errorf("%q: the password is printed: %q %q", c.args, stderr, stdout)
		}
	}
}

func TestWrongSettingsAreExplained(t *testing.T) {
	t.Setenv("PGPORT", "abc")
	_, stderr, status := runWith(t, "-dsn", "postgres://u@h/db")
	if status != failed || !strings.Contains(stderr, "the DSN or the PG* variables are wrong: invalid port") {
		t.Errorf("status %d, %q", status, stderr)
	}
	t.Setenv("PGPORT", "")
	t.Setenv("PGSERVICE", "absent")
	t.Setenv("PGSERVICEFILE", filepath.Join(t.TempDir(), "f"))
	if _, stderr, _ = runWith(t, "-dsn", "postgres://u@h/db"); !strings.Contains(stderr, "wrong: failed to read service") {
		t.Errorf("%q", stderr)
	}
}

// A program reads one object, however it ends.
func TestJSONAlsoWithAnError(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-batch", "0"}, {"now"}, {"-dsn", "postgres://u:p@h:nonsense/db"}, {"-dsn", "postgres://u@127.0.0.1:1/db"},
		{"-dsn", "postgres://u@127.0.0.1:1/db", "-dry-run"}, {"-dsn", "x", "-metrics-file", "/nonexistent/m"},
	} {
		stdout, stderr, status := runWith(t, append([]string{"-json"}, args...)...)
		var s map[string]any
		if err := json.Unmarshal([]byte(stdout), &s); err != nil || status == swept {
			t.Errorf("%q: status %d, %v in %q", args, status, err, stdout)
			continue
		}
		if text, _ := s["error"].(string); text == "" || !strings.HasPrefix(stderr, "sweeper: "+text+"\n") {
			t.Errorf("%q: %v, %q", args, s, stderr)
		}
		if _, ok := s["left"]; ok {
			t.Errorf("%q: nothing was counted: %v", args, s)
		}
	}
	// What was counted is there, also where it is none.
	for r, want := range map[cleanup.Result]string{
		{Counted: true}: `"left":0`, {Counted: true, Left: 7}: `"left":7`, {Counted: true, OldestLeft: time.Unix(0, 0).UTC()}: `"oldest_left":"1970`,
		{OrphanUserRows: 5, OrphanUsers: 4}: `"orphan_user_rows":5,"orphan_users":4`,
	} {
		if text, err := json.Marshal(summarize(r, nil)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s, %v", text, err)
		}
	}
}

func TestWhatOptionsAreCalledHere(t *testing.T) {
	err := errors.New("within Options.LockTimeout (5s): Options.StatementTimeout, Options.Batch: error preprocessing batch (prepare): ERROR")
	if got := oneLine(err); got != "within -lock-timeout (5s): -timeout, -batch: ERROR" {
		t.Error(got)
	}
}

func TestResultsAreBinaryAndNoPoolerNeedKeepStatements(t *testing.T) {
	for dsn, want := range map[string]pgx.QueryExecMode{
		"postgres://u@h/db": pgx.QueryExecModeCacheDescribe,
		"host=h user=u":     pgx.QueryExecModeCacheDescribe,
		"postgres://u@h/db?default_query_exec_mode=simple_protocol": pgx.QueryExecModeSimpleProtocol,
		"host=h default_query_exec_mode=cache_statement":            pgx.QueryExecModeCacheStatement,
		"host=h password=default_query_exec_mode":                   pgx.QueryExecModeCacheDescribe,
	} {
		if c, err := poolConfig(dsn); err != nil || c.ConnConfig.DefaultQueryExecMode != want || c.MaxConns != 1 {
			t.Errorf("%s: %v, %v", dsn, c.ConnConfig.DefaultQueryExecMode, err)
		}
	}
}

// Without cron, a server that is not there yet is waited for.
func TestEverySweepIsTried(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr lockedBuffer
	p := &program{args: []string{"-dsn", "postgres://u@127.0.0.1:1/db", "-interval", "1ms"}, stdout: io.Discard, stderr: &stderr}
	ended := make(chan int)
	go func() { ended <- p.run(ctx) }()
	for strings.Count(stderr.String(), "connection refused") < 3 {
		select {
		case status := <-ended:
			t.Fatalf("it has ended with %d: %s", status, stderr.String())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-ended
}

// A server that takes connections and says nothing cannot keep us.
func TestASignalEndsTheWaitForAServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	var wg sync.WaitGroup
	for _, args := range [][]string{nil, {"-dry-run"}, {"-interval", "1h"}} {
		wg.Go(func() {
			var stdout, stderr bytes.Buffer
			p := &program{args: append(args, "-json", "-dsn", "postgres://u@"+l.Addr().String()+"/db"), stdout: &stdout, stderr: &stderr}
			status := p.run(ctx)
			if status != failed || stderr.String() != "sweeper: stopped by a signal; the server did not answer\n" ||
				!strings.Contains(stdout.String(), `"error":"stopped by a signal`) {
				t.Errorf("%q: status %d, %q, %q", args, status, stderr.String(), stdout.String())
			}
		})
	}
	wg.Wait()
}

func TestBarsDoNotWrap(t *testing.T) {
	for _, total := range []int64{1, 999, 40_000, 500_000} {
		for columns := narrowest; columns <= 130; columns++ {
			var out bytes.Buffer
			b := progressbar.NewOptions64(total, append(layout(total, columns), progressbar.OptionSetWriter(&out), progressbar.OptionThrottle(0))...)
			_ = b.RenderBlank()
			for shown := int64(0); shown < total; shown += max(1, total/4) {
				bar{b}.show(cleanup.Result{Expired: shown})
			}
			for frame := range strings.SplitSeq(out.String(), "\r") {
				if n := utf8.RuneCountInString(frame); n > columns {
					t.Errorf("%d columns: %d in %q", columns, n, frame)
				}
			}
			if wide := strings.Contains(out.String(), "|"); wide != strings.Contains(out.String(), "sessions/") || columns > 85 && !wide || columns < 60 && wide {
				t.Errorf("%d columns: %q", columns, out.String())
			}
		}
	}
	if b := (&program{columns: narrowest - 1}).newBar(t.Context(), nil); b.ProgressBar != nil {
		t.Error("a bar where there is no room")
	}
}

// The first rate that is shown is of the time since sweeping began.
func TestNoRateIsAbsurd(t *testing.T) {
	var out bytes.Buffer
	b := startBar(&out, 1_000_000, 120)
	frames := func() []string { return strings.Split(strings.Trim(out.String(), "\r"), "\r") }
	if first := frames()[0]; !strings.Contains(first, " 0% ") || !strings.Contains(first, "(0/1000000") {
		t.Errorf("it begins with %q", first)
	}
	rate := regexp.MustCompile(`\((\d+)/1000000, (\d+) sessions/s\)`)
	var m []string
	for n := int64(1); m == nil; n++ { // it shows itself ten times a second
		b.show(cleanup.Result{Expired: min(n, 1000)})
		m = rate.FindStringSubmatch(out.String())
	}
	rows, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if perSecond, err := strconv.Atoi(m[2]); err != nil || perSecond > 10*rows+1 {
		t.Errorf("%d a second after %d in a tenth: %v", perSecond, rows, err)
	}
}

func TestReportOfADryRun(t *testing.T) {
	var out bytes.Buffer
	if err := printReport(&out, cleanup.Report{
		Total:     cleanup.Result{Expired: 1, Revoked: 2, UserRows: 2, OrphanUserRows: 5, OrphanUsers: 4},
		Due:       []cleanup.Due{{Kind: "expired", Day: time.Unix(0, 0), Rows: 1}, {Kind: "revoked", Day: time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC), Rows: 2}},
		Relations: []cleanup.Relation{{Name: "table", Bytes: 8_000_000, Live: 30, Dead: 10}, {Name: "index", Bytes: 5_000_000, Index: true}, {Name: "empty"}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`long ago +expired +1`, `2025-03-01 +revoked +2`, `^3 sessions would be deleted, 2 of them`,
		`\n5 rows of the user index and 4 users have no session`,
		`table or index +MB +live rows +dead rows +dead`, `table +8\.0 +30 +10 +25\.0%`, `index +5\.0 +\n`, `empty +0\.0 +0 +0 +0\.0%`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s is not in\n%s", want, out.String())
		}
	}
}

func TestLongAgo(t *testing.T) {
	if got := hour(time.Unix(0, 0)); got != "long ago" {
		t.Error(got)
	}
	if got := hour(time.Date(2025, 3, 1, 5, 0, 0, 0, time.UTC)); got != "about 2025-03-01T05:00:00Z" {
		t.Error(got)
	}
}

func TestHelpAndVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	p := &program{args: []string{"-h"}, stdout: &stdout, stderr: &stderr}
	if status := p.run(t.Context()); status != swept {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"-grace time\n", "(default 24h0m0s)", "-timeout limit\n", "Exit status", "DATABASE_URL", "-metrics-file", "SIGTERM"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not in the help", want)
		}
	}
	if _, err := parse([]string{"-help"}); !errors.Is(err, flag.ErrHelp) {
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
		{"", []string{"PGSERVICE=c"}, "", true},
		{"", []string{"PGDATABASE=c"}, "", true},
		{"", []string{"PGDATA=/var/lib/postgresql", "PGPASSWORD=x", "PGPASSFILE=x", "PGSSLMODE=x", "PGOPTIONS=x"}, "", false},
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
			name, _, _ := strings.Cut(strings.Trim(line, "#TYPEHL "), " ")
			if !regexp.MustCompile(`^(# HELP \w+ \w.+\.|# TYPE \w+ gauge|\w+(\{kind="\w+"\})? \d+(\.\d+)?)$`).MatchString(line) ||
				strings.Count(string(text), "# HELP "+name+" ") != 1 && !strings.Contains(name, "{") {
				t.Errorf("malformed: %q", line)
			}
		}
		return string(text)
	}
	if err := newMetrics("").note(cleanup.Result{}, nil); err != nil {
		t.Error(err)
	}
	r := cleanup.Result{Expired: 5, Renewed: 2, UserRows: 6, OrphanUserRows: 7, OrphanUsers: 8, Left: 9, OldestLeft: time.Now().Add(-time.Hour), Duration: 2 * time.Second}
	if err := newMetrics(path).note(r, nil); err != nil {
		t.Fatal(err)
	}
	text := read()
	for _, want := range []string{`scspg_sweeper_deleted_sessions{kind="expired"} 5`, `{kind="renewed"} 2`, `{kind="evicted"} 0`,
		"scspg_sweeper_deleted_user_rows 6", "scspg_sweeper_deleted_orphan_user_rows 7", "scspg_sweeper_deleted_orphan_users 8",
		"scspg_sweeper_backlog_sessions 9", "scspg_sweeper_oldest_expired_age_seconds 36",
		"scspg_sweeper_duration_seconds 2", "scspg_sweeper_success 1", "# TYPE scspg_sweeper_backlog_sessions gauge",
		"# HELP scspg_sweeper_backlog_sessions Sessions past their grace period that are left, up to 100000.\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	last := regexp.MustCompile(`(?m)^scspg_sweeper_last_success_timestamp_seconds \S+$`)
	success := last.FindString(text)
	if success == "" {
		t.Fatal("no last success")
	}
	// A process that fails later keeps the time of the success, and knows no backlog.
	broken := errors.New("broken")
	same := newMetrics(path)
	if err := same.note(r, nil); err != nil {
		t.Fatal(err)
	}
	success = last.FindString(read())
	for _, m := range []*metricsFile{same, newMetrics(path)} {
		if err := m.note(cleanup.Result{}, broken); !errors.Is(err, broken) {
			t.Error(err)
		}
		text = read()
		if last.FindString(text) != success || !strings.Contains(text, "scspg_sweeper_success 0") ||
			strings.Contains(text, "backlog") || strings.Contains(text, "oldest_expired") {
			t.Errorf("after a failure:\n%s", text)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := newMetrics(filepath.Join(dir, "absent", "file")).note(r, nil); err == nil || !strings.Contains(err.Error(), "metrics were not written") {
		t.Error(err)
	}
}

// Who puts a link in the collector's directory wants the file to be where it leads.
func TestMetricsFileBehindALink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link.prom")
	if err := os.Mkdir(filepath.Join(dir, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"chain", filepath.Join(dir, "chain")} {
		_ = os.Remove(link)
		_ = os.Remove(filepath.Join(dir, "chain"))
		if err := errors.Join(os.Symlink(to, link), os.Symlink("there/file", filepath.Join(dir, "chain"))); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first makes the file
			m := newMetrics(link)
			if err := errors.Join(m.check(), m.note(cleanup.Result{Expired: 5}, nil)); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(link)
			if err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link was replaced: %v, %v", info, err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "there", "file"))
			if err != nil || !strings.Contains(string(text), `kind="expired"} 5`) {
				t.Errorf("%v\n%s", err, text)
			}
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "there")); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	_ = os.Remove(link)
	if err := os.Symlink(link, link); err != nil {
		t.Fatal(err)
	}
	if err := newMetrics(link).check(); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Error(err)
	}
	if err := newMetrics(filepath.Join(dir, "there")).note(cleanup.Result{}, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

func TestWhatIsUnderWayOutlivesTheSignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	later, stop := outlive(ctx, time.Hour)
	cancel()
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
