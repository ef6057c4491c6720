//go:build unix

package pglocal

import (
	"os"
	"path/filepath"
	"testing"
)

// A folder that something still writes to cannot be removed at the first attempt.
func TestWatchdogTriesAgain(t *testing.T) {
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "cluster")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// An rm that fails the first time.
	const rm = "#!/bin/sh\n[ -f \"$0.tried\" ] || { : >\"$0.tried\"; exit 1; }\nPATH=${PATH#*:} exec rm \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "rm"), []byte(rm), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	w, err := Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}
