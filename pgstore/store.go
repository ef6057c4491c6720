package pgstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/pgstore/internal/db"
)

// Store keeps scs sessions in PostgreSQL. Use one Store per SessionManager. Any number
// of Stores, in any number of processes, may share a database. A Store is safe for
// concurrent use. Make one with New; the zero value is not usable.
type Store struct {
	cfg Config
	db  *db.DB
	counters

	mounted     atomic.Bool  // Track has wrapped a handler
	noted       sync.Once    // a call outside Track is logged
	statusNoted sync.Once    // so is StatusOf outside Track
	missingKeys sync.Map     // their ids; each is logged once
	carriedUser atomic.Bool  // a commit has said whose session it is
	anonymous   atomic.Int32 // commits until then
}

var (
	_ scs.Store            = (*Store)(nil)
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableStore    = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// New returns a Store that uses pool, or an error that names the invalid field of cfg.
// It does no I/O and starts no goroutine, so a Store need not be closed. The caller
// closes the pool.
func New(pool *pgxpool.Pool, cfg Config) (*Store, error) {
	if pool == nil {
		return nil, errors.New("pgstore: New: pool is nil")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg}
	s.db = db.New(pool, cfg.Schema, cfg.Timeout, cfg.MaxBatch, func() { s.count(func(c *Stat) { c.Retries++ }) })
	s.db.Sealer = sealer{cfg.Seal, cfg.AllowPlain}
	return s, nil
}

// do runs an operation of the database as db.DB.Do does, and says which one failed.
func (s *Store) do(ctx context.Context, op string, f func(context.Context) error) error {
	return opError(op, s.db.Do(ctx, f))
}
