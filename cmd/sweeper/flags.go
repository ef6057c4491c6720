package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scspg/scspg/cleanup"
)

const usageHead = `sweeper deletes expired sessions, and the tombstones of ended ones, once they are
past their grace period. It does one sweep and exits: run it from cron.

Usage:

  sweeper [flags]

The database is that of -dsn, else of DATABASE_URL, else of the PG* variables
(PGHOST, PGSERVICE and so on). Prefer the environment: other users of the
machine can see the flags of a process.

Flags:

`

const usageTail = `
Exit status: 0 swept clean, 1 failed, 2 wrong usage, 3 with rows left: stopped by
-max-rows, -max-duration or a signal, also before the end of -orphans, or because
others held them locked. SIGTERM finishes the batch in hand.

Examples:

  DATABASE_URL=postgres://sweeper@db/app sweeper
  sweeper -dry-run                        what would go, and how large the tables are
  sweeper -grace 1h -max-duration 5m      at most five minutes' work
  sweeper -orphans                        once a week, whatever DELETE and TRUNCATE by hand left
  sweeper -interval 10m                   for those without cron; ends with SIGTERM
`

type config struct {
	cleanup.Options
	dsn         string
	interval    time.Duration
	dryRun      bool
	json, quiet bool
	metricsFile string
	version     bool
}

// usageError is what is wrong with the command line, or the environment.
type usageError string

func (e usageError) Error() string { return string(e) }

// duration is a flag whose error says that a unit is missing, which flag.Duration's does not.
type duration time.Duration

func (d *duration) String() string { return time.Duration(*d).String() }

func (d *duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil {
		if _, e := strconv.ParseFloat(text, 64); e == nil {
			return fmt.Errorf("it lacks a unit: write %[1]ss for seconds, %[1]sm for minutes, or %[1]sh for hours", text)
		}
		return errors.New("write a number and its unit, as in 30s, 9m or 24h")
	}
	*d = duration(v)
	return nil
}

// flagSet is the flags, with their values in c.
func (c *config) flagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("sweeper", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run prints the errors
	durationVar := func(v *time.Duration, name string, byDefault time.Duration, usage string) {
		*v = byDefault
		fs.Var((*duration)(v), name, usage)
	}
	fs.StringVar(&c.dsn, "dsn", "", "`DSN` of the database (default: DATABASE_URL, else the PG* variables)")
	fs.StringVar(&c.Schema, "schema", "", "`schema` of the tables (default: the search_path decides)")
	fs.IntVar(&c.Batch, "batch", cleanup.DefaultBatch, "`sessions` in a transaction")
	durationVar(&c.Pause, "pause", 0, "`time` between batches (0: automatic: none while nobody else writes,\nelse small batches and pauses of four times their length; 1ns: full speed)")
	durationVar(&c.Grace, "grace", cleanup.DefaultGrace, "`time` that a session stays after its expiry")
	durationVar(&c.MaxDuration, "max-duration", 0, "stop after the batch that exceeds this `time` (0: no limit)")
	fs.Int64Var(&c.MaxRows, "max-rows", 0, "delete at most this many `sessions`, and orphans (0: no limit)")
	durationVar(&c.StatementTimeout, "timeout", cleanup.DefaultStatementTimeout, "`limit` for one SQL statement (statement_timeout)")
	durationVar(&c.LockTimeout, "lock-timeout", cleanup.DefaultLockTimeout, "`limit` for the wait for a lock on a table (lock_timeout)")
	durationVar(&c.interval, "interval", 0, "keep sweeping, this `time` after each sweep (0: sweep once)")
	fs.BoolVar(&c.Orphans, "orphans", false, "also delete what sessions left behind that were deleted by hand, and users without a\nsession; reads both tables from end to end: once a week will do")
	fs.BoolVar(&c.dryRun, "dry-run", false, "delete nothing; say what would go, and how large the tables are")
	fs.BoolVar(&c.json, "json", false, "print the result as JSON on standard output")
	fs.BoolVar(&c.quiet, "quiet", false, "print errors only")
	fs.StringVar(&c.metricsFile, "metrics-file", "", "write metrics to this `file`, for Prometheus' textfile collector")
	fs.BoolVar(&c.version, "version", false, "print the version and exit")
	return fs
}

// parse reads the flags. An error is flag.ErrHelp or a usageError.
func parse(args []string) (config, error) {
	var c config
	fs := c.flagSet()
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return c, err
	case err != nil && mayBeDSN(err.Error()):
		return c, usageError("a flag has a value that looks like a DSN: use -dsn DSN, or DATABASE_URL")
	case err != nil:
		return c, usageError(err.Error())
	}
	return c, c.check(fs.Args())
}

// printUsage is the help.
func printUsage(w io.Writer) {
	fs := new(config).flagSet()
	fs.SetOutput(w)
	fmt.Fprint(w, usageHead)
	fs.PrintDefaults()
	fmt.Fprint(w, usageTail)
}

// check refuses what makes no sense, by the names that the user knows.
func (c *config) check(rest []string) error {
	wrong := func(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }
	switch {
	case slices.ContainsFunc(rest, mayBeDSN):
		return wrong("unexpected argument that looks like a DSN: use -dsn DSN, or DATABASE_URL")
	case len(rest) > 0:
		return wrong("unexpected argument %q", rest[0])
	case mayBeDSN(c.Schema):
		return wrong("-schema looks like a DSN: use -dsn DSN, or DATABASE_URL")
	case mayBeDSN(c.metricsFile):
		return wrong("-metrics-file looks like a DSN: use -dsn DSN, or DATABASE_URL")
	case c.Batch <= 0 || c.Batch > cleanup.MaxBatch:
		return wrong("-batch %d: use 1 to %d", c.Batch, cleanup.MaxBatch)
	case c.MaxRows < 0:
		return wrong("-max-rows %d: it must not be negative", c.MaxRows)
	case c.dryRun && c.interval > 0:
		return wrong("-dry-run and -interval: use one of them")
	case c.dryRun && c.metricsFile != "":
		return wrong("-dry-run and -metrics-file: use one of them")
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"pause", c.Pause}, {"grace", c.Grace}, {"max-duration", c.MaxDuration}, {"interval", c.interval}} {
		if f.value < 0 {
			return wrong("-%s %v: it must not be negative", f.name, f.value)
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"timeout", c.StatementTimeout}, {"lock-timeout", c.LockTimeout}} {
		if f.value <= 0 || f.value > cleanup.MaxTimeout {
			return wrong("-%s %v: it must be more than 0, and at most %v", f.name, f.value, cleanup.MaxTimeout)
		}
	}
	if c.Grace == 0 {
		c.Grace = time.Nanosecond // the library takes 0 for its default
	}
	return nil
}

// flagNames are the library's options as the user knows them.
var flagNames = strings.NewReplacer("Options.StatementTimeout", "-timeout", "Options.LockTimeout", "-lock-timeout",
	"Options.Batch", "-batch", "Options.Schema", "-schema", "by Schema", "by -schema")
