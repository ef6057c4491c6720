// Command bench measures the store beside others, on this machine, and prints
// Markdown tables. Peers take turns within each round, so that what disturbs the
// machine disturbs them alike; ratios are taken within a round, and reported with
// their spread.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"
)

type config struct {
	sessions, perUser int
	clients           int
	rounds            int
	turn              time.Duration // how long a peer is measured at a time
	storage           int           // requests
	growth            []int         // sessions
	sweep             int           // sessions
	plots             string        // folder
	only              []string
	profile           string // file
}

// limit is the limit of sessions per user, and but for growth as many as each has.
const limit = 5

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is one table or plot.
type section struct {
	name string
	run  func(*bench, context.Context) error
}

var sections = []section{
	{"rolling", (*bench).rolling},
	{"changed", (*bench).changed},
	{"signin", (*bench).signIn},
	{"clients", (*bench).byClients},
	{"codec", (*bench).codec},
	{"storage", (*bench).storage},
	{"growth", (*bench).growth},
	{"sweep", (*bench).sweep},
}

func parse(args []string) (config, error) {
	c := config{sessions: 100_000, perUser: limit, clients: 16, rounds: 5, turn: 2 * time.Second, storage: 200_000, growth: []int{10_000, 1_000_000}, sweep: 1_000_000, plots: "."}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "small numbers, to see that everything runs")
	only := fs.String("only", "", "`sections` to run, comma-separated (default: all)")
	fs.IntVar(&c.rounds, "rounds", c.rounds, "rounds, in which the peers take turns")
	fs.DurationVar(&c.turn, "turn", c.turn, "how long a turn takes")
	fs.IntVar(&c.storage, "storage", c.storage, "requests of the section storage")
	growth := fs.String("growth", "", "table `sizes` of the section growth, comma-separated")
	fs.IntVar(&c.sweep, "sweep", c.sweep, "sessions of the section sweep, half of them expired")
	fs.StringVar(&c.plots, "plots", c.plots, "`folder` for the plots")
	fs.StringVar(&c.profile, "cpuprofile", "", "`file` for a CPU profile of this process")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if *quick {
		c.sessions, c.rounds, c.turn, c.storage, c.growth, c.sweep = 2_000, 2, 300*time.Millisecond, 10_000, []int{1_000, 10_000}, 20_000
	}
	if *growth != "" {
		c.growth = nil
		for part := range strings.SplitSeq(*growth, ",") {
			var n int
			if _, err := fmt.Sscan(part, &n); err != nil || n < limit {
				return c, fmt.Errorf("-growth: %q is not a number of sessions", part)
			}
			c.growth = append(c.growth, n)
		}
	}
	if *only != "" {
		c.only = strings.Split(*only, ",")
	}
	for _, name := range c.only {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return c, fmt.Errorf("-only: there is no section %q", name)
		}
	}
	return c, nil
}

func run(ctx context.Context, args []string) (err error) {
	c, err := parse(args)
	if err != nil {
		return err
	}
	b := &bench{config: c}
	defer func() {
		if e := b.close(); err == nil {
			err = e
		}
	}()
	if err := b.start(ctx); err != nil {
		return err
	}
	fmt.Printf("%s, %d CPUs, %s; %s; %d sessions, %d clients, %d rounds of %v.\n",
		runtime.Version(), runtime.NumCPU(), b.version, b.redisNote(), c.sessions, c.clients, c.rounds, c.turn)
	if c.profile != "" {
		f, err := os.Create(c.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for _, s := range sections {
		if len(c.only) > 0 && !slices.Contains(c.only, s.name) {
			continue
		}
		start := time.Now()
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s took %v\n", s.name, time.Since(start).Round(time.Second))
	}
	return nil
}
