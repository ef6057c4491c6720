package cleanup_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/cleanup"
)

// One sweep, at most five minutes of it, as the sweeper command does from cron.
func ExampleSweep() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	result, err := cleanup.Sweep(ctx, pool, cleanup.Options{MaxDuration: 5 * time.Minute})
	fmt.Println("deleted", result) // counts are there with an error too
	if err != nil {
		log.Fatal(err)
	}
	if result.OutOfBudget {
		fmt.Println(result.Left, "are left for the next time")
	}
}

// What a sweep has done, in a line for people. A slog.Logger writes it as attributes.
func ExampleResult() {
	result := cleanup.Result{Expired: 1200, SignedOut: 34, UserRows: 500, Batches: 2, Duration: 80 * time.Millisecond}
	fmt.Println("deleted", result)
	// Output: deleted 1234 sessions (1200 expired, 34 signed out, 0 revoked, 0 evicted, 0 renewed) and 500 user rows in 2 batches and 80ms
}

// Inside an app, on every instance: sweeps that overlap cooperate.
func ExampleEvery() {
	ctx, cancel := context.WithCancel(context.Background()) // ends with the app
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	go func() {
		if err := cleanup.Every(ctx, pool, 10*time.Minute, cleanup.Options{}); ctx.Err() == nil {
			log.Fatal(err) // the options are wrong
		}
	}()
}
