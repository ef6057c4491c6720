//go:build unix

package pglocal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

var (
	fastSignal os.Signal = syscall.SIGINT  // disconnect everybody, then end
	quitSignal os.Signal = syscall.SIGQUIT // end now, recover at the next start
)

// serverUser is whom a server runs as where we are root: PostgreSQL refuses root.
func serverUser() (uid, gid int, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, lookupErr := user.Lookup(name)
		if lookupErr != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if errUID == nil && errGID == nil {
			return uid, gid, nil
		}
	}
	return 0, 0, errors.New("we are root, PostgreSQL must not be, and there is neither a user postgres nor nobody")
}

// giveAway lets the server's user have the files.
func giveAway(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := serverUser()
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// unprivileged makes cmd run as the server's user, in a process group of its own, so
// that Ctrl-C reaches us and not it.
func unprivileged(cmd *exec.Cmd, dir string) {
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return
	}
	if uid, gid, err := serverUser(); err == nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}

// Watchdog ends the server in a folder and removes the folder when the pipe to it
// closes, however this process ends.
type Watchdog struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

// Programs that die with us, such as initdb, may still write for a moment, and a server
// may still come up: hence the rounds.
const watchdogScript = `
cat >/dev/null
pid="$1/data/postmaster.pid"
round=0
while [ -d "$1" ] && [ $round -lt 50 ]; do
	if [ -f "$pid" ]; then
		kill -QUIT "$(head -n 1 "$pid")" 2>/dev/null
		n=0
		while [ -f "$pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
	fi
	rm -rf "$1" 2>/dev/null
	round=$((round + 1))
	if [ -d "$1" ]; then sleep 0.1; fi
done
`

// Watch starts a watchdog over the server in dir.
func Watch(dir string) (*Watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, Prefix+"watchdog", dir) //nolint:noctx // it outlives every context
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	return &Watchdog{cmd: cmd, pipe: pipe}, nil
}

// Stop has it end the server, if that still runs, and remove the folder.
func (w *Watchdog) Stop() error {
	err := w.pipe.Close()
	timer := time.AfterFunc(stopTimeout, func() { _ = w.cmd.Process.Kill() })
	defer timer.Stop()
	return errors.Join(err, w.cmd.Wait())
}
