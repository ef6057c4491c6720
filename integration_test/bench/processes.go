package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// processes are those of a server on this machine, in a container or not: its first one
// and the children of that. 0 where it is not to be seen.
type processes int

// cpu is what they have used so far, with those that have ended.
func (p processes) cpu() (used time.Duration) {
	const tick = 10 * time.Millisecond // the kernel's USER_HZ
	if p == 0 {
		return 0
	}
	first := strconv.Itoa(int(p))
	children, _ := os.ReadFile(filepath.Join("/proc", first, "task", first, "children"))
	// The first comes last: it inherits from children that end meanwhile.
	for _, pid := range append(strings.Fields(string(children)), first) {
		stat, _ := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		if len(fields) < 15 {
			continue // it has ended
		}
		for _, field := range fields[11:15] { // utime, stime, and those of its dead children
			n, _ := strconv.Atoi(field)
			used += time.Duration(n) * tick
		}
	}
	return used
}

// findPostgres looks for the process that serves a connection of ours: it has the number
// that it has for itself, which in a container is another, and our port in its title.
func (b *bench) findPostgres(ctx context.Context) (processes, error) {
	pool, err := b.pool(ctx, "", 1)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	var pid, client string
	if err := pool.QueryRow(ctx, `SELECT pg_backend_pid()::text, coalesce('(' || inet_client_port() || ')', '[local]')`).Scan(&pid, &client); err != nil {
		return 0, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	own := regexp.MustCompile(`(?m)^NSpid:(?:\s+\d+)*\s+` + pid + `$`)
	parent := regexp.MustCompile(`(?m)^PPid:\s+(\d+)$`)
	for _, path := range paths {
		status, _ := os.ReadFile(path)
		title, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if !own.Match(status) || !strings.Contains(string(title), client) {
			continue
		}
		first := string(parent.FindSubmatch(status)[1])
		if _, err := os.Stat(filepath.Join("/proc", first, "task", first, "children")); err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(first)
		return processes(n), err
	}
	return 0, errors.New("its processes are not in /proc")
}
