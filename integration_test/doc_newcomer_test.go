package integration_test

import (
	"archive/zip"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newcomer is somebody who has a Go module of their own and gets ours as a release.
type newcomer struct {
	dir string // of the module
	env []string
}

// newNewcomer serves this tree as a release from a folder. What it depends on comes from
// the module cache, which has what this program and the sweeper were built from.
func newNewcomer(t *testing.T) newcomer {
	t.Helper()
	sweeperBinary(t) // has been built then, too
	const version = "v0.0.1"
	proxy, dir := t.TempDir(), t.TempDir()
	at := filepath.Join(proxy, "github.com/scspg/scspg/@v")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(at, "list"):          version + "\n",
		filepath.Join(at, version+".info"): fmt.Sprintf(`{"Version":%q}`, version),
		filepath.Join(at, version+".mod"):  string(mod),
		filepath.Join(dir, "go.mod"):       "module example.com/app\n\ngo 1.26.0\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := zipModule(filepath.Join(at, version+".zip"), "github.com/scspg/scspg@"+version); err != nil {
		t.Fatal(err)
	}
	cache, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return newcomer{dir, append(os.Environ(), "GOWORK=off", "GOSUMDB=off", "GOMODCACHE="+t.TempDir(), "GOBIN="+dir,
		"GOFLAGS=-modcacherw -trimpath", "GOPROXY=file://"+proxy+",file://"+filepath.Join(strings.TrimSpace(string(cache)), "cache/download"))}
}

// zipModule writes what a release of the root module holds.
func zipModule(name, prefix string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := zip.NewWriter(f)
	for _, root := range []string{"go.mod", "go.sum", "LICENSE", "pgstore", "migrations", "cleanup", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			file, err := w.Create(prefix + "/" + strings.TrimPrefix(filepath.ToSlash(path), "../"))
			if err == nil {
				_, err = file.Write(text)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// run runs a line of shell in the newcomer's module and returns what it printed.
func (n newcomer) run(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
	cmd.Dir, cmd.Env = n.dir, n.env
	stdout, stderr, status := output(t, cmd)
	if status != 0 {
		t.Fatalf("%s: status %d, %s%s", line, status, stdout, stderr)
	}
	return stdout
}
