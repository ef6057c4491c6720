package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// footprint is what the server says of a table.
type footprint struct {
	table, indexes          int64 // bytes
	updated, hot, dead, wal int64
}

func (b *bench) footprint(ctx context.Context, p *peer, table string) (f footprint, err error) {
	if _, err := p.pool.Exec(ctx, `SELECT pg_stat_clear_snapshot()`); err != nil {
		return f, err
	}
	err = p.pool.QueryRow(ctx, `SELECT pg_table_size($1::regclass), pg_indexes_size($1::regclass), n_tup_upd, n_tup_hot_upd, n_dead_tup,
		pg_current_wal_insert_lsn() - '0/0'::pg_lsn
		FROM pg_stat_user_tables WHERE relid = $1::regclass`, table).
		Scan(&f.table, &f.indexes, &f.updated, &f.hot, &f.dead, &f.wal)
	return f, err
}

// storage prints what rolling requests leave behind, with autovacuum on.
func (b *bench) storage(ctx context.Context) error {
	fmt.Printf("\n### Storage: %d rolling requests on %d sessions\n\n"+
		"| | per second | writes | of them HOT | WAL per request | table | indexes | dead rows |\n|---|--:|--:|--:|--:|--:|--:|--:|\n", b.config.storage, b.sessions)
	for _, each := range []struct {
		make  maker
		table string
	}{
		{b.ours("**scspg**, a touch a minute (the default)", pgstore.Config{UserLimit: limit}), "scs_sessions"},
		{b.ours("**scspg**, every request touches", pgstore.Config{UserLimit: limit, TouchAfter: 1}), "scs_sessions"},
		{b.pgxstore, "sessions"},
	} {
		if err := b.with(ctx, []maker{each.make}, func(peers []*peer) error { return b.leaves(ctx, peers[0], each.table) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) leaves(ctx context.Context, p *peer, table string) error {
	before, err := b.footprint(ctx, p, table)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.sends(ctx, p, b.config.storage); err != nil {
		return err
	}
	took := time.Since(start)
	// Backends report their counts within a second or so of going idle.
	time.Sleep(2 * time.Second)
	after, err := b.footprint(ctx, p, table)
	if err != nil {
		return err
	}
	updated := after.updated - before.updated
	hot := "–"
	if updated > 0 {
		hot = fmt.Sprintf("%.1f%%", 100*float64(after.hot-before.hot)/float64(updated))
	}
	fmt.Printf("| %s | %s | %d | %s | %d B | %s (%+.1f%%) | %s (%+.1f%%) | %d |\n", p.name,
		thousands(float64(b.config.storage)/took.Seconds()), updated, hot, (after.wal-before.wal)/int64(b.config.storage),
		megabytes(after.table), percent(before.table, after.table), megabytes(after.indexes), percent(before.indexes, after.indexes), after.dead)
	return nil
}

func percent(before, after int64) float64 { return 100 * float64(after-before) / float64(before) }

// sends n rolling requests.
func (b *bench) sends(ctx context.Context, p *peer, n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range b.clients {
		wg.Go(func() {
			c := newClient(ctx, uint64(i))
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := existing(p, c); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
