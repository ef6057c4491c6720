package pgstore

import (
	"errors"
	"sync/atomic"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store keeps scs sessions in PostgreSQL. Use one Store per SessionManager, and
// any number of them, in any number of processes, per database. It is safe for
// concurrent use.
type Store struct {
	pool  *pgxpool.Pool
	cfg   Config
	sql   statements
	users userQueues
	plain plainRequests
	stat  counters

	// mounted is set once Track has wrapped a handler, warned once a call came past it.
	mounted, warned atomic.Bool
}

var (
	_ scs.Store            = (*Store)(nil)
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableStore    = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// New returns a Store on pool, or an error that names the field of cfg that is
// wrong. It does no I/O and starts no goroutine: there is nothing to close, and the
// pool stays the caller's.
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
