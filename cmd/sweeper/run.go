package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
)

// The exit statuses.
const (
	swept       = 0
	failed      = 1
	wrongUsage  = 2
	outOfBudget = 3 // or stopped by a signal
)

// connectTimeout bounds the way to the server.
const connectTimeout = 10 * time.Second

// program is the command with the world it runs in.
type program struct {
	args           []string
	env            []string
	stdout, stderr io.Writer
	terminal       bool // stderr is one

	config
	metrics *metricsFile
}

func (p *program) run(ctx context.Context) int {
	var err error
	p.config, err = parse(p.args, p.stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return swept
	case err != nil:
		return wrongUsage
	case p.version:
		fmt.Fprintln(p.stdout, "sweeper", version())
		return swept
	}
	dsn, ok := p.source(p.env)
	if !ok {
		fmt.Fprint(p.stderr, "sweeper: no database: set DATABASE_URL, or the PG* variables, or use -dsn\n"+
			"Usage: sweeper [flags]; sweeper -h explains them\n")
		return wrongUsage
	}
	if !p.DryRun {
		p.metrics = newMetrics(p.metricsFile)
	}
	pool, err := connect(ctx, dsn)
	if err != nil {
		return p.fail(p.metrics.note(cleanup.Result{}, err))
	}
	defer pool.Close()
	if p.DryRun {
		return p.dryRun(ctx, pool)
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

func connect(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// pgx masks the passwords that it recognizes; what it could not even parse may
		// hold one anywhere.
		return nil, errors.New("the DSN is malformed: use postgres://user:password@host:5432/database " +
			"with special characters percent-encoded, or \"host=db user=app dbname=app\"")
	}
	c.MaxConns = 1
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "sweeper"
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 6*connectTimeout) // there may be several hosts
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// sweep does one sweep, to its end or until ctx ends: then the batch in hand is
// finished first.
func (p *program) sweep(ctx context.Context, pool *pgxpool.Pool) int {
	o := p.Options
	bar := p.newBar(ctx, pool)
	o.Progress = bar.show
	o.Stop = ctx.Done()
	inHand, cancel := outlive(ctx, p.StatementTimeout)
	defer cancel()
	result, err := cleanup.Sweep(inHand, pool, o)
	bar.done()
	err = p.metrics.note(result, err)
	p.report(result, err)
	switch {
	case err != nil:
		return p.fail(err)
	case result.OutOfBudget && result.Left > 0 && p.interval == 0:
		return outOfBudget
	default:
		return swept
	}
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

// fail prints an error on one line.
func (p *program) fail(err error) int {
	fmt.Fprintln(p.stderr, "sweeper:", strings.Join(strings.Fields(err.Error()), " "))
	return failed
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
