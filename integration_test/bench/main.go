// Command bench measures the store beside others, on this machine, and prints
// Markdown tables. Peers take turns within each round, so that what disturbs the
// machine disturbs them alike; ratios are taken within a round, and reported with
// their spread.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type config struct {
	sessions, perUser int
	counts            []int // of clients
	clients           int   // the first of them
	rtts              []time.Duration
	conns             int // in a pool
	rows              *regexp.Regexp
	rounds            int
	turn              time.Duration // how long a peer is measured at a time
	storage           int           // requests
	growth            []int         // sessions
	sweep             int           // sessions
	plots             string        // folder
	only              []string
	jsonFile, profile string
}

// limit is the limit of sessions per user, and but for growth as many as each has.
const limit = 5

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if args := os.Args[1:]; len(args) > 0 && args[0] == relayCommand {
		err = serveRelay(context.WithoutCancel(ctx), args[1:])
	} else {
		err = run(ctx, args)
	}
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
	{"requests", (*bench).requests},
	{"signin", (*bench).signIn},
	{"clients", (*bench).byClients},
	{"codec", (*bench).codec},
	{"storage", (*bench).storage},
	{"growth", (*bench).growth},
	{"sweep", (*bench).sweep},
}

func parse(args []string) (config, error) {
	c := config{sessions: 100_000, perUser: limit, counts: []int{16, 64}, rtts: []time.Duration{0, 300 * time.Microsecond}, conns: 16, rows: regexp.MustCompile(""),
		rounds: 5, turn: 1500 * time.Millisecond, storage: 200_000, growth: []int{10_000, 1_000_000}, sweep: 1_000_000, plots: "."}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolFunc("quick", "small numbers, to see that everything runs; flags after it change them", func(string) error {
		c.sessions, c.rounds, c.turn, c.storage, c.growth, c.sweep = 2_000, 2, 200*time.Millisecond, 10_000, []int{1_000, 10_000}, 20_000
		return nil
	})
	fs.Func("only", "`sections` to run, comma-separated (default: all)", list(&c.only, func(name string) (string, error) {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return "", errors.New("there is no such section")
		}
		return name, nil
	}))
	fs.Func("clients", "`numbers` of clients for the section requests, comma-separated; all others but clients take the first (default 16,64)", list(&c.counts, count))
	fs.Func("rtt", "`times` to add to the round trip in the section requests, comma-separated (default 0,300us)", list(&c.rtts, time.ParseDuration))
	fs.IntVar(&c.conns, "conns", c.conns, "connections in each pool")
	fs.Func("rows", "a regular `expression` for the rows to measure, of requests and signin (default: all)", func(s string) (err error) {
		c.rows, err = regexp.Compile(s)
		return err
	})
	fs.IntVar(&c.rounds, "rounds", c.rounds, "rounds, in which the peers take turns")
	fs.DurationVar(&c.turn, "turn", c.turn, "how long a turn takes")
	fs.IntVar(&c.storage, "storage", c.storage, "requests of the section storage")
	fs.Func("growth", "table `sizes` of the section growth, comma-separated", list(&c.growth, count))
	fs.IntVar(&c.sweep, "sweep", c.sweep, "sessions of the section sweep, half of them expired")
	fs.StringVar(&c.plots, "plots", c.plots, "`folder` for the plots")
	fs.StringVar(&c.jsonFile, "json", "", "`file` to append a line of JSON to for every turn")
	fs.StringVar(&c.profile, "cpuprofile", "", "`file` for a CPU profile of this process")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	c.clients = c.counts[0]
	return c, nil
}

// list is a flag of values between commas.
func list[T any](to *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		*to = nil
		for part := range strings.SplitSeq(s, ",") {
			v, err := parse(part)
			if err != nil {
				return err
			}
			*to = append(*to, v)
		}
		return nil
	}
}

func count(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && n < 1 {
		err = errors.New("not a number of anything")
	}
	return n, err
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
	fmt.Printf("%s, %d CPUs; %s; %d sessions, pools of %d connections, %d clients but where another number is given, %d rounds of %v.\n",
		runtime.Version(), runtime.NumCPU(), b.about, c.sessions, c.conns, c.clients, c.rounds, c.turn)
	if c.jsonFile != "" {
		if b.json, err = os.OpenFile(c.jsonFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		defer b.json.Close()
	}
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
