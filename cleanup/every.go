package cleanup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Every sweeps again and again, with interval between the end of a sweep and the
// beginning of the next, more or less a tenth of it at random, so that the instances
// of an app do not sweep in step. It begins at once. A sweep that fails is logged, and
// the next one tries again. Every returns an error that matches ctx.Err(), and its
// cause, once ctx has ended; nil once Options.Stop is closed; or at once an error that
// names what is wrong with its arguments. It starts no goroutine.
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
