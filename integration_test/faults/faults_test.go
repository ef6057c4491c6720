//go:build linux

package faults

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
)

var really = flag.Bool("faults", false, "run the faults, which takes minutes: make faults")

func TestMain(m *testing.M) {
	if config := os.Getenv(envNode); config != "" {
		if err := serveNode(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	pgtest.Main(m)
}

// fault is one that users see, by name. Its test breaks what is under the store, mends it,
// and has the bed finish.
type fault struct {
	name string // for -run
	what string // for the table
	test func(*testing.T, *judgement)
}

var all = []fault{
	{"kill-1s", "server killed, started again after 1 s", killed(time.Second)},
	{"kill-4s", "server killed, started again after 4 s", killed(4 * time.Second)},
	{"terminate", "three connections terminated every 20 ms, for 4 s", terminated},
	{"freeze-backends", "all backends stopped for 5 s", frozen(false)},
	{"freeze-server", "whole server stopped for 5 s", frozen(true)},
	{"disk-full", "disk of the tables full for 4 s", tablesFull},
	{"disk-full-wal", "disk of the WAL full for 4 s", walFull},
	{"failover", "primary killed, synchronous standby promoted, old primary back read-only", failover},
	{"switchover", "primary read-only with connections on it, standby promoted after 2 s", switchover},
	{"network-5s", "network cut for 5 s", networkCut(5 * time.Second)},
	{"network-20s", "network cut for 20 s", networkCut(20 * time.Second)},
	{"pooler", "PgBouncer killed, started again after 1 s", poolerKilled},
	{"node", "app node killed amid a sign-in", nodeKilled},
	{"host", "app node's host gone amid a sign-in", hostGone},
	{"pool", "pools exhausted by the app's own queries for 4 s", poolExhausted},
	{"timeouts", "statement, lock and idle timeouts of 20 ms for 4 s", lowTimeouts},
	{"deadlocks", "deadlocks for 4 s", deadlocks},
	{"serialization", "serialization failures for 4 s", serialization},
	{"sweeper", "sweeper killed, and the server killed under another", sweeperKilled},
	{"sweepers", "two sweepers beside sign-ins of the same users for 4 s", twoSweepers},
}

// One after the other: they would take each other's time on two cores.
func TestFaults(t *testing.T) {
	if !*really {
		t.Skip("make faults runs this")
	}
	var ran []fault
	judged := map[string]*judgement{}
	t.Cleanup(func() { fmt.Print("\n" + table(ran, judged)) })
	for _, f := range all {
		t.Run(f.name, func(t *testing.T) {
			began := time.Now()
			j := &judgement{}
			ran, judged[f.name] = append(ran, f), j
			f.test(t, j)
			fmt.Fprintf(os.Stderr, "%-16s %5.1f s\n", f.name, time.Since(began).Seconds())
		})
	}
	if len(ran) == 0 {
		t.Error("there is no such fault, see the list in faults_test.go")
	}
}

// table is the result in Markdown.
func table(ran []fault, judged map[string]*judgement) string {
	lines := [][]string{
		{"fault", "requests", "failed", "lost", "revived", "over the limit", "served again after"},
		{"---", "--:", "--:", "--:", "--:", "--:", "--:"},
	}
	for _, f := range ran {
		line := []string{f.what, "", "", "", "", "", "not done"}
		if j := judged[f.name]; j.done {
			line = []string{f.what, fmt.Sprint(j.requests), fmt.Sprint(j.failed), fmt.Sprint(len(j.lost)), fmt.Sprint(len(j.revived)),
				fmt.Sprint(len(j.over)), fmt.Sprintf("%.2f s", j.after.Seconds())}
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-len(cell))
			if i == 0 {
				fmt.Fprint(&b, "| ", cell, pad)
			} else {
				fmt.Fprint(&b, " | ", pad, cell)
			}
		}
		fmt.Fprintln(&b, " |")
	}
	return b.String()
}
