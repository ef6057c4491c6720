package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/scspg/scspg/example/devpg"
)

// stopTimeout bounds the orderly end of the throwaway database.
const stopTimeout = 20 * time.Second

// openDatabase opens the session store in the database that DATABASE_URL names, or
// in a throwaway one that goes when the backend is closed.
func openDatabase(ctx context.Context, cfg config, getenv func(string) string, log *slog.Logger) (backend, error) {
	if dsn := getenv("DATABASE_URL"); dsn != "" {
		// Without falling back: who names a database does not want another.
		b, err := openPostgres(ctx, cfg, dsn, log)
		if err != nil {
			return backend{}, fmt.Errorf("the database that DATABASE_URL names: %w", err)
		}
		b.where += ", from DATABASE_URL"
		return b, nil
	}
	server, err := devpg.Start(ctx, devpg.Local(), devpg.Container(), devpg.Download())
	if err != nil {
		return backend{}, fmt.Errorf("DATABASE_URL is not set, and no database could be started: %w\n"+
			"Or do without: set DATABASE_URL=postgres://user:password@host:5432/database, or use -store memory", err)
	}
	stop := func() error {
		// ctx has ended by then, as a rule.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return server.Stop(ctx)
	}
	b, err := openPostgres(ctx, cfg, server.DSN, log)
	if err != nil {
		return backend{}, errors.Join(err, stop())
	}
	b.where += ", " + server.Source
	closePool := b.close
	b.close = func() error { return errors.Join(closePool(), stop()) }
	return b, nil
}
