package cleanup

import (
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// unused is a pool of a server that nobody may ask.
func unused(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "postgres://u@127.0.0.1:1/db") // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestOptionsHaveDefaults(t *testing.T) {
	o, err := Options{}.withDefaults(unused(t))
	if err != nil || o.Batch != DefaultBatch || o.Grace != DefaultGrace || o.StatementTimeout != DefaultStatementTimeout ||
		o.LockTimeout != DefaultLockTimeout || o.Logger == nil || o.Pause != 0 || o.MaxDuration != 0 || o.MaxRows != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestOptionsThatAreWrongAreNamed(t *testing.T) {
	for want, o := range map[string]Options{
		"Options.Batch is -1":                                           {Batch: -1},
		"Options.Batch is 100001":                                       {Batch: 100_001},
		"Options.Pause is -1ns":                                         {Pause: -1},
		"Options.Grace is -1h0m0s":                                      {Grace: -time.Hour},
		"Options.MaxDuration is -1ns":                                   {MaxDuration: -1},
		"Options.MaxRows is -1":                                         {MaxRows: -1},
		"Options.StatementTimeout is -1s":                               {StatementTimeout: -time.Second},
		"Options.LockTimeout is -1s":                                    {LockTimeout: -time.Second},
		"Options.StatementTimeout is 596h31m23.648s: PostgreSQL allows": {StatementTimeout: MaxTimeout + time.Millisecond},
		"Options.LockTimeout is 2562047h47m16.854775807s: PostgreSQL":   {LockTimeout: math.MaxInt64},
		"Options.Schema has 64 bytes":                                   {Schema: strings.Repeat("s", 64)},
		"Options.Schema contains a NUL":                                 {Schema: "a\x00b"},
	} {
		checkRefused(t, unused(t), o, want)
	}
}

func TestNilPoolIsAnError(t *testing.T) { checkRefused(t, nil, Options{}, "the pool is nil") }

func checkRefused(t *testing.T, pool *pgxpool.Pool, o Options, want string) {
	t.Helper()
	_, sweepErr := Sweep(t.Context(), pool, o)
	_, inspectErr := Inspect(t.Context(), pool, o)
	for name, err := range map[string]error{"Sweep": sweepErr, "Inspect": inspectErr, "Every": Every(t.Context(), pool, time.Hour, o)} {
		if err == nil || !strings.HasPrefix(err.Error(), "cleanup: "+want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestEveryRefusesAnIntervalOfZero(t *testing.T) {
	if err := Every(t.Context(), unused(t), 0, Options{}); err == nil || !strings.Contains(err.Error(), "the interval is 0s") {
		t.Error(err)
	}
}

func TestEveryEndsOnceItIsStopped(t *testing.T) {
	stop := make(chan struct{})
	close(stop)
	if err := Every(t.Context(), unused(t), time.Hour, Options{Stop: stop, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Error(err)
	}
}
