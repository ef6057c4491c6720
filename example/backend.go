package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore"
)

// backend is where the sessions live.
type backend struct {
	store scs.Store
	where string // for people; without any password
	close func() error
}

func openBackend(ctx context.Context, cfg config, getenv func(string) string, log *slog.Logger) (backend, error) {
	switch cfg.store {
	case storeMemory:
		return openMemory(), nil
	case storeRedis:
		return openRedis(ctx, cfg.redisAddr)
	default:
		return openDatabase(ctx, cfg, getenv, log)
	}
}

func openMemory() backend {
	return backend{
		store: memstore.New(),
		where: "in the memory of this process",
		// Its goroutine ends with the process: StopCleanup would race with its start.
		close: func() error { return nil },
	}
}

// redisTimeout bounds one exchange with the Redis server.
const redisTimeout = 5 * time.Second

func openRedis(ctx context.Context, addr string) (backend, error) {
	pool := &redis.Pool{
		MaxIdle:     16,
		IdleTimeout: time.Minute,
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			return redis.DialContext(ctx, "tcp", addr, redis.DialConnectTimeout(redisTimeout),
				redis.DialReadTimeout(redisTimeout), redis.DialWriteTimeout(redisTimeout))
		},
	}
	conn, err := pool.GetContext(ctx)
	if err == nil {
		_, err = redis.DoContext(conn, ctx, "PING")
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return backend{}, errors.Join(
			fmt.Errorf("no Redis answers at %s: start redis-server, or say where it is with -redis-addr: %w", addr, err),
			pool.Close())
	}
	return backend{store: redisstore.New(pool), where: "Redis at " + addr, close: pool.Close}, nil
}

// connectTimeout bounds the first connection to a database, which tells whether
// there is one.
const connectTimeout = 10 * time.Second

func ping(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return pool.Ping(ctx)
}

// migrationTimeout bounds the creation of the tables, and the wait for another
// process that is creating them.
const migrationTimeout = time.Minute

// openPostgres opens the session store in the database with this DSN, and creates
// its tables where they are missing.
func openPostgres(ctx context.Context, cfg config, dsn string, log *slog.Logger) (backend, error) {
	poolConfig, err := parseDSN(dsn)
	if err != nil {
		return backend{}, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return backend{}, err
	}
	closePool := func() error { pool.Close(); return nil }
	if err := ping(ctx, pool); err != nil {
		return backend{}, errors.Join(err, closePool())
	}
	migrating, cancel := context.WithTimeout(ctx, migrationTimeout)
	defer cancel()
	if err := migrations.Up(migrating, pool); err != nil {
		return backend{}, errors.Join(err, closePool())
	}
	store, err := pgstore.New(pool, pgstore.Config{
		UserLimit:   cfg.limit,
		LimitPolicy: cfg.policy,
		ClientIP:    pgstore.TrustedProxies(cfg.proxies...),
		Logger:      log,
	})
	if err != nil {
		return backend{}, errors.Join(err, closePool())
	}
	db := poolConfig.ConnConfig
	return backend{
		store: store,
		where: fmt.Sprintf("PostgreSQL, database %s on %s:%d", db.Database, db.Host, db.Port),
		close: closePool,
	}, nil
}
