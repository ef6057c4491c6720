package pgstore

import (
	"errors"
	"sync/atomic"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store keeps scs sessions in PostgreSQL. Use one Store per SessionManager. Any number
// of Stores, in any number of processes, may share a database. A Store is safe for
// concurrent use. Make one with New; the zero value is not usable.
type Store struct {
	pool  *pgxpool.Pool
	cfg   Config
	sql   statements
	queue userQueues
	plain plainRequests
	stat  counters

	mounted atomic.Bool // Track has wrapped a handler
	warned  atomic.Bool // a call outside Track was logged, after mounted
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
	return &Store{pool: pool, cfg: cfg, sql: newStatements(cfg.Schema)}, nil
}
