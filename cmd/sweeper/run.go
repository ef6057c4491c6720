package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
)

// The exit statuses.
const (
	swept      = 0
	failed     = 1
	wrongUsage = 2
	rowsLeft   = 3 // by its budget, a signal, or the locks of others
)

// closeTimeout is how long a server that does not answer can delay the exit while no
// batch is under way.
const closeTimeout = 2 * time.Second

// program is the command with the world it runs in.
type program struct {
	args           []string
	env            []string
	stdout, stderr io.Writer
	terminal       bool // stderr is one
	columns        int  // of it, 0 where no bar can be drawn

	config
	metrics *metricsFile
}

func (p *program) run(ctx context.Context) int {
	var err error
	p.config, err = parse(p.args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printUsage(p.stderr)
		return swept
	case err != nil:
		return p.fail(err)
	case p.version:
		fmt.Fprintln(p.stdout, "sweeper", version())
		return swept
	}
	pool, err := p.open(ctx)
	if err != nil {
		return p.fail(err)
	}
	defer closePool(pool)
	if p.dryRun {
		return p.inspect(ctx, pool)
	}
	for {
		status := p.sweep(ctx, pool)
		if p.interval == 0 || ctx.Err() != nil {
			return status
		}
		// Without cron, a failed sweep is not the end: the next one may work.
		select {
		case <-ctx.Done():
			return swept
		case <-time.After(p.interval):
		}
	}
}

// open looks at all that can be wrong before the server is asked.
func (p *program) open(ctx context.Context) (*pgxpool.Pool, error) {
	dsn, ok := p.source(p.env)
	if !ok {
		return nil, usageError("no database: set DATABASE_URL, or the PG* variables, or use -dsn")
	}
	p.metrics = newMetrics(p.metricsFile)
	if err := p.metrics.check(); err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // not of the file beside it that was tried
		}
		return nil, usageError(fmt.Sprintf("-metrics-file %s: %v", p.metricsFile, err))
	}
	c, err := poolConfig(dsn)
	if err != nil {
		return nil, p.metrics.note(cleanup.Result{}, err)
	}
	return pgxpool.NewWithConfig(ctx, c)
}

// connect makes sure that there is a server.
func connect(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, release := outlive(ctx, closeTimeout)
	defer release()
	ctx, cancel := context.WithTimeout(ctx, 6*connectTimeout) // there may be several hosts
	defer cancel()
	return pool.Ping(ctx)
}

func closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// sweep does one sweep, to its end or until ctx ends: then the batch in hand is
// finished first.
func (p *program) sweep(ctx context.Context, pool *pgxpool.Pool) int {
	var result cleanup.Result
	err := connect(ctx, pool)
	if err == nil {
		bar := p.newBar(ctx, pool)
		inHand, cancel := outlive(ctx, p.StatementTimeout)
		defer cancel()
		o := p.Options
		o.Progress, o.Stop = bar.show, ctx.Done()
		result, err = cleanup.Sweep(inHand, pool, o)
		bar.done()
	}
	err = p.metrics.note(result, stopped(ctx, err))
	if err != nil {
		return p.failAfter(result, err)
	}
	p.report(result)
	if (result.Left > 0 || result.OutOfBudget && p.Orphans) && p.interval == 0 {
		return rowsLeft
	}
	return swept
}

// stopped says so where it was a signal that ended what was under way.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return errors.New("stopped by a signal; the server did not answer")
}

// outlive returns a context that ends this much later than ctx: what is under way is
// finished, but a server that does not answer cannot keep us from ending.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unstop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(d):
			cancel()
		case <-later.Done():
		}
	})
	return later, func() { unstop(); cancel() }
}

// fail says that there was nothing but an error.
func (p *program) fail(err error) int { return p.failAfter(cleanup.Result{}, err) }

// failAfter is the one way to fail: it prints what was done until then, and the error
// on a line, and returns the exit status.
func (p *program) failAfter(r cleanup.Result, err error) int {
	if p.json || r.Batches > 0 {
		p.print(summarize(r, err), r)
	}
	fmt.Fprintln(p.stderr, "sweeper:", oneLine(err))
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(p.stderr, "Run sweeper -h for the flags.")
		return wrongUsage
	}
	return failed
}

// oneLine is an error as the user should read it.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "error preprocessing batch (prepare): ", "") // of pgx
	return flagNames.Replace(strings.Join(strings.Fields(text), " "))
}

func (p *program) logger() *slog.Logger { return slog.New(slog.NewTextHandler(p.stderr, nil)) }

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "(devel)"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v = s.Value
			}
		}
	}
	return v + " " + info.GoVersion
}
