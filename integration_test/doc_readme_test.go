package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
)

// snippets are the code blocks of the README in a language.
func snippets(t *testing.T, language string) (blocks []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(read(t, "README.md"), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no %s", language)
	}
	return blocks
}

// commands are the lines of the README's shell snippets that begin with one of prefixes.
func commands(t *testing.T, prefixes ...string) (lines []string) {
	t.Helper()
	for _, prefix := range prefixes {
		n := len(lines)
		for _, block := range snippets(t, "sh") {
			for line := range strings.Lines(block) {
				if strings.HasPrefix(line, prefix) {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
		}
		if len(lines) == n {
			t.Fatalf("the README has no %s", prefix)
		}
	}
	return lines
}

// compile builds a program outside of the repository's folders, against its module.
func compile(t *testing.T, source string) (binary string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, source)
	}
	return binary
}

// The quick start, as somebody who has just pasted it would meet it.
func TestReadmeQuickStart(t *testing.T) {
	t.Parallel()
	programs := slices.DeleteFunc(snippets(t, "go"), func(s string) bool { return !strings.HasPrefix(s, "package main") })
	if len(programs) != 1 {
		t.Fatalf("%d programs", len(programs))
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	app := newNewcomer(t)
	source := strings.Replace(programs[0], "127.0.0.1:8080", addr, 1)
	if err := os.WriteFile(filepath.Join(app.dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range commands(t, "go get", "go install github.com/scspg/scspg/") {
		app.run(t, line)
	}
	app.run(t, "go build -o app . && ./sweeper -version")
	for _, line := range commands(t, "goose -dir") {
		folder, _, _ := strings.Cut(strings.TrimPrefix(line, "goose -dir "), " -table ")
		if files := app.run(t, "ls "+folder); !strings.Contains(files, ".sql") {
			t.Errorf("%s: there is %s", line, files)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(app.dir, "app"))
	cmd.Env = []string{"DATABASE_URL=" + dsnOf(t, pgtest.Schema(t))}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(stderr.String())
		}
	}()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	do := func(method, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "readme test")
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	pgtest.Eventually(t, "it answers", func() bool { status, _ := do("GET", "/devices"); return status != 0 })
	if status, body := do("GET", "/devices"); status != 401 {
		t.Errorf("not signed in: %d, %s", status, body)
	}
	if status, body := do("POST", "/login"); status != 200 || body != "signed in\n" {
		t.Errorf("sign-in: %d, %s", status, body)
	}
	if status, body := do("GET", "/devices"); status != 200 || !strings.Contains(body, "127.0.0.1 readme test ") {
		t.Errorf("devices: %d, %s", status, body)
	}
}

// The fragments compile where they belong.
func TestReadmeFragments(t *testing.T) {
	t.Parallel()
	for _, fragment := range snippets(t, "go") {
		if strings.HasPrefix(fragment, "package main") {
			continue
		}
		imports := `"context"; "github.com/jackc/pgx/v5/pgxpool"`
		for name, path := range map[string]string{"time": "time", "migrations": "github.com/scspg/scspg/migrations", "cleanup": "github.com/scspg/scspg/cleanup",
			"pgstore": "github.com/scspg/scspg/pgstore", "netip": "net/netip"} {
			if strings.Contains(fragment, name+".") {
				imports += fmt.Sprintf("; %q", path)
			}
		}
		compile(t, "package main\nimport ("+imports+")\nfunc f(ctx context.Context, pool *pgxpool.Pool) (err error) {\n"+
			strings.Replace(fragment, "err :=", "err =", 1)+"\nreturn err\n}\nfunc main() {}\n")
	}
}

// The statements run. There is no Citus here: that its function gets tables which are
// there, and columns of theirs, is what can be seen.
func TestReadmeSQL(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	pgtest.Exec(t, pool, `CREATE FUNCTION create_distributed_table(t regclass, c name, colocate_with regclass DEFAULT NULL) RETURNS void
		LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SELECT %I FROM %s LIMIT 0', c, t); END $$`)
	for _, sql := range snippets(t, "sql") {
		pgtest.Exec(t, pool, sql)
	}
}

// Every command is one that works: what others test is looked up, the rest is run.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	pool := migrated(t)
	run := func(line string) {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
		cmd.Dir = ".."
		cmd.Env = []string{"PATH=" + filepath.Dir(sweeperBinary(t)) + ":" + os.Getenv("PATH"), "DATABASE_URL=" + dsnOf(t, schemaOf(t, pool))}
		if stdout, stderr, status := output(t, cmd); status != 0 {
			t.Errorf("%s: status %d, %s%s", line, status, stdout, stderr)
		}
	}
	for _, block := range snippets(t, "sh") {
		for line := range strings.Lines(block) {
			words := strings.Fields(line)
			if len(words) < 2 {
				continue
			}
			switch command := words[0] + " " + words[1]; {
			case words[0] == "make":
				if !strings.Contains(string(makefile), "\n"+words[1]+":") {
					t.Errorf("%s: no such target", line)
				}
				if words[1] != "demo" && words[1] != "help" && !strings.Contains(string(ci), "make "+words[1]) {
					t.Errorf("%s: CI does not run it", line)
				}
			case words[0] == "sweeper":
				run(line)
			case command == "go get", command == "go install":
				// TestReadmeQuickStart; goose's command is built for TestGooseCommandMakesTheSameSchema
			case command == "goose -dir":
				// TestGooseCommandMakesTheSameSchema
			case words[0] == "psql":
				// TestRolesInPsql, TestRolesHaveJustWhatTheyNeed
			default:
				t.Errorf("nothing tries %s", line)
			}
		}
	}
}

var pages = []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}

// Links lead somewhere, and so do file names, which are relative to a folder of the store
// where the page says so.
func TestReadmeAndOtherPagesNameWhatIsThere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	file := regexp.MustCompile("`([\\w./-]+\\.(?:go|md|yml|sql))`")
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchors := func(page string) (list []string) {
		for _, m := range heading.FindAllStringSubmatch(read(t, page), -1) {
			list = append(list, "#"+strings.ReplaceAll(strings.ToLower(strings.Trim(m[1], "?")), " ", "-"))
		}
		return list
	}
	for _, page := range pages {
		text := read(t, page)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if m[2] != "" && !slices.Contains(anchors(m[1]), m[2]) {
				t.Errorf("%s: %s has no %s", page, m[1], m[2])
			}
		}
		for _, m := range file.FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc([]string{"", "pgstore", "pgstore/internal", "cmd/sweeper/deploy"}, func(folder string) bool {
				_, err := os.Stat(filepath.Join("..", folder, m[1]))
				return err == nil
			}) && !strings.Contains(m[1], "NNNNN") {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
	}
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
