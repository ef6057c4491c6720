package cleanup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Every sweeps at once, and then again and again until ctx ends or Options.Stop is
// closed. Between the end of a sweep and the start of the next it waits for interval,
// plus or minus up to a tenth at random, so that the instances of an app do not sweep in
// step. A sweep that fails is logged to Options.Logger, and the next one tries again.
//
// Every blocks, and starts no goroutine. It returns an error that matches ctx.Err() and
// context.Cause(ctx) once ctx has ended, nil once Stop is closed, and, before the first
// sweep, an error that names the argument that is wrong: interval must be positive.
func Every(ctx context.Context, pool *pgxpool.Pool, interval time.Duration, o Options) error {
	if interval <= 0 {
		return fmt.Errorf("cleanup: the interval is %v: it must be positive", interval)
	}
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	for {
		result, err := Sweep(ctx, pool, o)
		switch {
		case ctx.Err() != nil:
			return ended(ctx)
		case err != nil:
			o.Logger.ErrorContext(ctx, "cleanup: a sweep failed", "error", err, "result", result)
		default:
			o.Logger.InfoContext(ctx, "cleanup: swept", "result", result)
		}
		timer := time.NewTimer(interval - interval/10 + rand.N(interval/5+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ended(ctx)
		case <-o.Stop:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}
