package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/example/devpg"
)

// bench is a run: its servers and what is on them.
type bench struct {
	config
	postgres *devpg.Server
	server   processes
	about    string       // the servers
	redis    *redisServer // nil where there is no redis-server
	relay    *relay       // to PostgreSQL, while there is one
	json     *os.File     // for -json
	schemas  int
}

// start brings up PostgreSQL with its defaults, but for memory: durable, and with
// autovacuum on. Local binaries come first, because a container's port proxy would
// be part of what is measured.
func (b *bench) start(ctx context.Context) error {
	settings := []devpg.Option{devpg.Set("max_connections", strconv.Itoa(max(200, 12*b.conns))), devpg.Set("shared_buffers", b.sharedBuffers()),
		devpg.Set("max_wal_size", "8GB"), devpg.Set("checkpoint_timeout", "30min"), devpg.Set("fsync", "on"),
		devpg.Set("full_page_writes", "on"), devpg.Set("synchronous_commit", "on")}
	var err error
	b.postgres, err = devpg.Start(ctx, devpg.Env("PGSTORE_TEST_DSN"), devpg.Local(settings...),
		devpg.Container(settings...), devpg.Download(settings...))
	if err != nil {
		return err
	}
	pool, err := b.pool(ctx, "", 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	var version string
	if err := pool.QueryRow(ctx, `SHOW server_version`).Scan(&version); err != nil {
		return err
	}
	version, _, _ = strings.Cut(version, " ")
	b.about = "PostgreSQL " + version
	if b.server, err = b.findPostgres(ctx); err != nil {
		b.about += fmt.Sprintf(" (its CPU is left out: %v)", err)
	}
	if path, err := exec.LookPath("redis-server"); err == nil {
		if b.redis, err = startRedis(ctx, path); err != nil {
			return err
		}
		b.about += ", " + b.redis.version
	} else {
		b.about += "; no redis-server was found"
	}
	return nil
}

// sharedBuffers hold the largest of the tables: what grows with their size is measured,
// and not whether it fits.
func (b *bench) sharedBuffers() string {
	const perSession = 800 // bytes, with the user's rows and all indexes
	return fmt.Sprintf("%dMB", max(1024, slices.Max(b.config.growth)*perSession/1_000_000))
}

// warm reads the tables of ours into them. Without the extension, the first reads do.
func (b *bench) warm(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_prewarm SCHEMA pg_catalog`); err != nil {
		return nil //nolint:nilerr // It comes with PostgreSQL, but not with every package of it.
	}
	_, err := pool.Exec(ctx, `SELECT pg_prewarm(c.oid) FROM pg_class c
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relname LIKE 'scs\_%' AND c.relkind IN ('r', 'i')`)
	return err
}

func (b *bench) close() error {
	var errs []error
	if b.redis != nil {
		errs = append(errs, b.redis.stop())
	}
	if b.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		errs = append(errs, b.postgres.Stop(ctx))
	}
	return errors.Join(errs...)
}

// pool connects, with schema as its search_path where there is one.
func (b *bench) pool(ctx context.Context, schema string, conns int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(b.postgres.DSN)
	if err != nil {
		return nil, err
	}
	config.MaxConns = conns
	if b.relay != nil {
		config.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", b.relay.addr)
		}
	}
	if schema != "" {
		config.ConnConfig.RuntimeParams["search_path"] = schema
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// schema makes a new schema and returns a pool on it, and a function that drops it.
func (b *bench) schema(ctx context.Context) (pool *pgxpool.Pool, name string, drop func() error, err error) {
	b.schemas++
	name = fmt.Sprintf("bench_%d_%d", os.Getpid(), b.schemas)
	if pool, err = b.pool(ctx, name, int32(b.conns)); err != nil {
		return nil, "", nil, err
	}
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{name}.Sanitize()); err != nil {
		pool.Close()
		return nil, "", nil, err
	}
	return pool, name, func() error {
		defer pool.Close()
		_, err := pool.Exec(context.WithoutCancel(ctx), "DROP SCHEMA "+pgx.Identifier{name}.Sanitize()+" CASCADE")
		return err
	}, nil
}

// redisServer is one of our own, in memory only.
type redisServer struct {
	cmd     *exec.Cmd
	dir     string
	addr    string
	version string
	relay   *relay // while there is one
}

func startRedis(ctx context.Context, path string) (_ *redisServer, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		return nil, err
	}
	r := &redisServer{addr: "127.0.0.1:" + port}
	if r.dir, err = os.MkdirTemp("", "bench-redis-"); err != nil {
		return nil, err
	}
	r.cmd = exec.CommandContext(ctx, path, "--port", port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no")
	if err := r.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(r.dir))
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var info string
		conn, err := redis.DialContext(ctx, "tcp", r.addr)
		if err == nil {
			info, err = redis.String(conn.Do("INFO", "server"))
			_ = conn.Close()
		}
		if err == nil {
			_, after, _ := strings.Cut(info, "redis_version:")
			r.version = "Redis " + strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]) + " (in memory only)"
			return r, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, r.stop())
		}
	}
}

func (r *redisServer) stop() error {
	_ = r.cmd.Process.Signal(os.Interrupt)
	_ = r.cmd.Wait() // its exit status after a signal says nothing
	return os.RemoveAll(r.dir)
}

func (r *redisServer) server() processes { return processes(r.cmd.Process.Pid) }

func (r *redisServer) pool(conns int) *redis.Pool {
	addr := r.addr
	if r.relay != nil {
		addr = r.relay.addr
	}
	return &redis.Pool{MaxIdle: conns, MaxActive: conns, Wait: true,
		Dial: func() (redis.Conn, error) { return redis.Dial("tcp", addr) }}
}
