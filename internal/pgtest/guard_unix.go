//go:build unix

package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Guard runs a shell script at the end of the test, or once this process has died,
// however that was.
func Guard(t testing.TB, script string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "cat >/dev/null\n"+script) //nolint:noctx // it outlives every context
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}           // Ctrl-C is for us
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pipe.Close()
		_ = cmd.Wait()
	})
}

// GuardProcess has a process that has been started killed so, if it is still there: its
// command line holds the path of a temporary folder of ours.
func GuardProcess(t testing.TB, cmd *exec.Cmd, path string) {
	t.Helper()
	Guard(t, fmt.Sprintf("grep -qsF %s /proc/%d/cmdline && kill -KILL %[2]d", path, cmd.Process.Pid))
}
