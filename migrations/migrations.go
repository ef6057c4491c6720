// Package migrations creates and upgrades the tables of package pgstore.
//
// [Up] does it from Go, and may be called by any number of processes at once. The
// migrations are goose files, so goose's own command works on them, too:
//
//	goose -dir "$(go list -m -f '{{.Dir}}' github.com/scspg/scspg)/migrations" -table scspg_goose_db_version postgres "$DATABASE_URL" up
//
// finds them where the go command has put this module, if it is run where your app's go.mod is.
// Both record the applied versions in [VersionTable] instead of goose's default table,
// so that they do not interfere with an app's own goose migrations.
//
// The tables are created in one schema: the one that [Schema] names, or else the first of the
// search_path that exists; if none does, nothing is done. PgBouncer may be in between, also in transaction mode. Nothing is
// printed, and goose's global settings are neither read nor changed. All functions are
// safe for concurrent use.
//
// Errors begin with "migrations: ", unwrap to their cause (for instance a
// *pgconn.PgError), and hold no password.
package migrations

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
)

// VersionTable is the table that records the applied migrations. If you run goose on
// [FS] or on the files yourself, pass it as goose's table name.
const VersionTable = "scspg_goose_db_version"

// FS holds the migrations as goose's SQL files, at its root.
//
//go:embed *.sql
var FS embed.FS

// ErrNoneApplied is returned by [Down] if no migration is applied.
var ErrNoneApplied = errors.New("migrations: nothing to roll back: no migration is applied")

// Option changes where the functions of this package work.
type Option func(*options)

type options struct{ schema string }

// Schema names the schema of the tables, to be used with pgstore's Config.Schema.
// The name is quoted, so case matters. If the schema is missing, Up creates it, for
// which the role needs CREATE on the database. Default: the first schema of the
// search_path.
func Schema(name string) Option { return func(o *options) { o.schema = name } }

// Migration is one migration, as [Status] reports it.
type Migration struct {
	Version   int64  // 1 for the first; there are no gaps
	Name      string // the file's name, such as "00001_create_sessions.sql"
	Applied   bool
	AppliedAt time.Time // by the database's clock; zero unless Applied
}

// Up applies the migrations that are missing, oldest first, each in a transaction of
// its own: one that fails leaves no trace, those before it stay. If nothing is missing,
// it runs two small queries and takes no lock.
//
// Any number of processes may call it at once: one of them migrates, holding a
// transaction-level advisory lock, and the others wait without keeping a connection.
// The wait ends with ctx, so give ctx a deadline. The process that migrates uses one
// connection of pool and opens one besides, so a pooler must have two server
// connections to give.
//
// The role needs USAGE and CREATE on the schema or, if nothing is missing, USAGE and SELECT
// on [VersionTable]. If it lacks a privilege, the error lists all that it lacks.
func Up(ctx context.Context, pool *pgxpool.Pool, opts ...Option) error {
	m := newMigrator(pool, opts)
	return m.explain(ctx, "up", m.up(ctx))
}

// Down rolls back the migration that was applied last. Rolling back the first one
// drops the tables, with every session in them. It returns [ErrNoneApplied] if
// none is applied. Like [Up], it waits for other processes that migrate.
func Down(ctx context.Context, pool *pgxpool.Pool, opts ...Option) error {
	m := newMigrator(pool, opts)
	return m.explain(ctx, "down", m.down(ctx))
}

// Version returns the highest version that is applied, 0 if none is. It changes
// nothing.
func Version(ctx context.Context, pool *pgxpool.Pool, opts ...Option) (int64, error) {
	m := newMigrator(pool, opts)
	version, err := m.version(ctx)
	return version, m.explain(ctx, "version", err)
}

// Status lists the migrations of this release, ordered by version. It changes
// nothing: on a database that was never migrated none is applied.
func Status(ctx context.Context, pool *pgxpool.Pool, opts ...Option) ([]Migration, error) {
	m := newMigrator(pool, opts)
	list, err := m.status(ctx)
	return list, m.explain(ctx, "status", err)
}

func (m *migrator) up(ctx context.Context) error {
	latest, err := latestVersion()
	if err != nil {
		return err
	}
	if version, err := m.version(ctx); err != nil || version >= latest {
		return err
	}
	return m.locked(ctx, func(ctx context.Context, p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	})
}

func (m *migrator) down(ctx context.Context) error {
	if version, err := m.version(ctx); err != nil {
		return err
	} else if version == 0 {
		return ErrNoneApplied
	}
	return m.locked(ctx, func(ctx context.Context, p *goose.Provider) error {
		_, err := p.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return ErrNoneApplied // another process was first
		}
		return err
	})
}

func (m *migrator) status(ctx context.Context) ([]Migration, error) {
	applied, err := m.applied(ctx)
	if err != nil {
		return nil, err
	}
	list, err := files()
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].AppliedAt, list[i].Applied = applied[list[i].Version]
	}
	slices.SortFunc(list, func(a, b Migration) int { return cmp.Compare(a.Version, b.Version) })
	return list, nil
}
