package migrations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/scspg/scspg/internal/pgfault"
)

type migrator struct {
	pool *pgxpool.Pool
	options
}

func newMigrator(pool *pgxpool.Pool, opts []Option) *migrator {
	m := &migrator{pool: pool}
	for _, opt := range opts {
		opt(&m.options)
	}
	return m
}

const (
	// A table of the same name further down the search_path is somebody else's.
	sqlExists = `SELECT EXISTS (SELECT FROM pg_catalog.pg_tables
		WHERE schemaname = coalesce($1::text, current_schema()) AND tablename = $2), $1 IS NULL AND current_schema() IS NULL`

	sqlSchemaExists = `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)`

	// The lock and what it guards are of one schema. It goes with the transaction,
	// and so with the process: no lease to renew, nothing left behind by a crash,
	// and any pooler will do. It is not waited for in the database: the connections of
	// those who wait might be all that a pooler has, and the holder needs another.
	sqlTryLock = `SELECT pg_try_advisory_xact_lock(
		hashtextextended('scspg migrations ' || coalesce($1::text, current_schema()), 0))`

	// It is held for as long as the migrations take, whatever the role's settings are.
	sqlPatient = `SELECT set_config('idle_in_transaction_session_timeout', '0', true)`
)

// lockPause is about how long passes between two attempts at the lock.
const lockPause = 100 * time.Millisecond

// locked runs f while this process is the only one that migrates the schema.
func (m *migrator) locked(ctx context.Context, f func(context.Context, *goose.Provider) error) error {
	for {
		tx, err := m.tryLock(ctx)
		if err != nil {
			return err
		}
		if tx != nil {
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it only held the lock
			return m.withProvider(ctx, f)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another process that migrates: %w", context.Cause(ctx))
		case <-time.After(lockPause/2 + rand.N(lockPause)):
		}
	}
}

// tryLock returns the transaction that holds the lock, or nil where another has it.
func (m *migrator) tryLock(ctx context.Context) (_ pgx.Tx, err error) {
	tx, err := m.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	var ours bool
	if _, err = tx.Exec(ctx, sqlPatient); err == nil {
		err = tx.QueryRow(ctx, sqlTryLock, m.schemaArg()).Scan(&ours)
	}
	if ours {
		return tx, nil
	}
	rollbackErr := tx.Rollback(context.WithoutCancel(ctx))
	return nil, cmp.Or(err, rollbackErr)
}

func (m *migrator) withProvider(ctx context.Context, f func(context.Context, *goose.Provider) error) (err error) {
	// Not from the pool: with one connection, goose would wait for ours.
	var opts []stdlib.OptionOpenDB
	config := m.pool.Config()
	if config.BeforeConnect != nil {
		opts = append(opts, stdlib.OptionBeforeConnect(config.BeforeConnect))
	}
	db := stdlib.OpenDB(*config.ConnConfig, opts...)
	defer func() { err = errors.Join(err, db.Close()) }()
	if m.schema != "" {
		// IF NOT EXISTS takes CREATE on the database also where the schema exists.
		var exists bool
		if err := db.QueryRowContext(ctx, sqlSchemaExists, m.schema).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			if _, err := db.ExecContext(ctx, `CREATE SCHEMA `+quote(m.schema)); err != nil {
				return err
			}
		}
	}
	store, err := m.versionStore()
	if err != nil {
		return err
	}
	var files fs.FS = FS
	if m.schema != "" {
		files = schemaFS{FS, m.schema}
	}
	provider, err := goose.NewProvider("", db, files, goose.WithStore(store),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	return f(ctx, provider)
}

// versionStore is goose's own, except that it looks for its table in our schema.
func (m *migrator) versionStore() (database.Store, error) {
	name := VersionTable
	if m.schema != "" {
		name = quote(m.schema) + "." + VersionTable
	}
	store, err := database.NewStore(database.DialectPostgres, name)
	return &versionStore{Store: store, schema: m.schemaArg()}, err
}

type versionStore struct {
	database.Store
	schema *string
}

// TableExists reports whether goose must create the version table.
func (s *versionStore) TableExists(ctx context.Context, db database.DBTxConn) (exists bool, err error) {
	var nowhere bool
	err = db.QueryRowContext(ctx, sqlExists, s.schema, VersionTable).Scan(&exists, &nowhere)
	return exists, err
}

// version is the highest version that is applied, 0 where none is.
func (m *migrator) version(ctx context.Context) (int64, error) {
	applied, err := m.applied(ctx)
	var highest int64
	for version := range applied {
		highest = max(highest, version)
	}
	return highest, err
}

// applied reads goose's account: the versions and when they were applied. Whatever is
// to be done begins with it.
func (m *migrator) applied(ctx context.Context) (map[int64]time.Time, error) {
	if m.pool == nil {
		return nil, errors.New("the pool is nil")
	}
	var exists, nowhere bool
	err := m.pool.QueryRow(ctx, sqlExists, m.schemaArg(), VersionTable).Scan(&exists, &nowhere)
	if nowhere {
		return nil, pgfault.ErrNoSchema
	}
	if err != nil || !exists {
		return nil, err
	}
	table := VersionTable
	if m.schema != "" {
		table = quote(m.schema) + "." + VersionTable
	}
	rows, err := m.pool.Query(ctx, `SELECT version_id, max(tstamp) FROM `+table+` WHERE version_id > 0 GROUP BY version_id`)
	if err != nil {
		return nil, err
	}
	applied := make(map[int64]time.Time)
	var version int64
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&version, &at}, func() error {
		applied[version] = at
		return nil
	})
	return applied, err
}

func (m *migrator) schemaArg() *string {
	if m.schema == "" {
		return nil
	}
	return &m.schema
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
