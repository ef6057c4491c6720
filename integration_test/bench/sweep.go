package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/cleanup"
	"github.com/scspg/scspg/pgstore"
)

// sweeper is one way to delete expired sessions.
type sweeper struct {
	name string
	make func(context.Context) (*peer, error)
	// sweep returns the rows that it has deleted, and its longest transaction.
	sweep func(context.Context, *peer) (rows int64, longest time.Duration, err error)
	// again lets as many expire once more. Without it there is no store, and so there are
	// no live requests.
	again []string
}

// halfExpired leaves every other session alive, so that they share pages.
func halfExpired(i int) time.Time {
	if i%2 == 0 {
		return time.Now().Add(idleTimeout)
	}
	return time.Now().Add(-3*time.Hour - time.Duration(i%86_400)*time.Second)
}

func (b *bench) sweepers() []sweeper {
	oneDelete := func(sql string) func(context.Context, *peer) (int64, time.Duration, error) {
		return func(ctx context.Context, p *peer) (int64, time.Duration, error) {
			start := time.Now()
			tag, err := p.pool.Exec(ctx, sql)
			return tag.RowsAffected(), time.Since(start), err
		}
	}
	return []sweeper{
		{"**scspg**, cleanup.Sweep", b.halfExpiredOurs, func(ctx context.Context, p *peer) (int64, time.Duration, error) {
			r, err := cleanup.Sweep(ctx, p.pool, cleanup.Options{Grace: time.Nanosecond})
			if err == nil && r.Rows() != r.UserRows {
				err = fmt.Errorf("%d sessions went with %d user rows", r.Rows(), r.UserRows)
			}
			return r.Rows(), r.Longest, err
		}, []string{
			`INSERT INTO scs_sessions (id, user_id, data, expiry) SELECT gen_random_uuid(), user_id, data, now() - interval '3 hours' FROM scs_sessions`,
			`INSERT INTO scs_user_sessions (user_id, id) SELECT user_id, id FROM scs_sessions WHERE expiry < now()`,
		}},
		{"one `DELETE`, user rows by `ON DELETE CASCADE`", b.halfExpiredCascade, oneDelete(`DELETE FROM hot WHERE expiry < now()`), nil},
		{"pgxstore: one `DELETE`, no user rows", b.halfExpiredTheirs, oneDelete(`DELETE FROM sessions WHERE expiry < current_timestamp`), []string{
			`INSERT INTO sessions SELECT md5(token), data, now() - interval '3 hours' FROM sessions`,
		}},
	}
}

// prepared is a peer of n sessions, half of them expired.
func (b *bench) prepared(ctx context.Context, fill func(*peer) error) (*peer, error) {
	pool, _, drop, err := b.schema(ctx)
	if err != nil {
		return nil, err
	}
	p := &peer{pool: pool, drop: drop}
	for i := 0; i < b.config.sweep; i += 2 {
		p.tokens = append(p.tokens, token(i))
	}
	if err := fill(p); err != nil {
		return nil, errors.Join(err, drop())
	}
	if p.sm == nil {
		return p, nil
	}
	return b.finish(p), nil
}

func (b *bench) halfExpiredOurs(ctx context.Context) (*peer, error) {
	return b.prepared(ctx, func(p *peer) error {
		return b.makeOurs(ctx, p, pgstore.Config{UserLimit: limit}, b.config.sweep, halfExpired)
	})
}

func (b *bench) halfExpiredTheirs(ctx context.Context) (*peer, error) {
	return b.prepared(ctx, func(p *peer) error {
		p.sm = b.manager(pgxstore.NewWithCleanupInterval(p.pool, 0), scs.GobCodec{})
		return b.fillTheirs(ctx, p.pool, b.config.sweep, halfExpired)
	})
}

// halfExpiredCascade has the rows of ours under a foreign key.
func (b *bench) halfExpiredCascade(ctx context.Context) (*peer, error) {
	return b.prepared(ctx, func(p *peer) error {
		if err := b.makeOurs(ctx, p, pgstore.Config{}, b.config.sweep, halfExpired); err != nil {
			return err
		}
		p.sm = nil
		for _, sql := range []string{
			`CREATE TABLE hot AS SELECT id, user_id, data, version, expiry, last_seen_at, end_reason FROM scs_sessions ORDER BY ctid`,
			`ALTER TABLE hot ADD PRIMARY KEY (id)`, `CREATE INDEX ON hot (expiry)`,
			`CREATE TABLE cold AS SELECT * FROM scs_user_sessions ORDER BY ctid`,
			`ALTER TABLE cold ADD PRIMARY KEY (user_id, id)`, `CREATE INDEX ON cold (id)`,
			`ALTER TABLE cold ADD FOREIGN KEY (id) REFERENCES hot ON DELETE CASCADE`,
			`VACUUM ANALYZE hot`, `VACUUM ANALYZE cold`,
		} {
			if _, err := p.pool.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep prints how fast expired sessions go, and what live requests notice of it.
func (b *bench) sweep(ctx context.Context) error {
	const cascade = 1 // the one to compare with
	sweepers := b.sweepers()
	results := make([]sweepResults, len(sweepers))
	rounds := min(b.rounds, 2)
	for range rounds {
		for i, s := range sweepers {
			if err := b.takeSweep(ctx, s, &results[i]); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	fmt.Printf("\n### Deleting the expired half of %d sessions (%d rounds)\n\n"+
		"| | per second | × cascading `DELETE` | longest transaction | live p50, × without | live p99, × without |\n|---|--:|--:|--:|--:|--:|\n", b.config.sweep, rounds)
	for i, s := range sweepers {
		r := results[i]
		ratios := make([]float64, rounds)
		for n := range ratios {
			ratios[n] = r.rates[n] / results[cascade].rates[n]
		}
		fmt.Printf("| %s | %s | %s | %s |", s.name, thousands(middle(r.rates)), spread(ratios), short(r.longest))
		if len(r.p50) > 0 {
			fmt.Printf(" %s | %s |\n", spread(r.p50), spread(r.p99))
		} else {
			fmt.Print(" – | – |\n")
		}
	}
	return nil
}

// sweepResults are those of one sweeper, by round.
type sweepResults struct {
	rates    []float64
	p50, p99 []float64 // during a sweep, divided by those just before and after it
	longest  time.Duration
}

// takeSweep sweeps twice: with nothing else going on, and beside live requests.
func (b *bench) takeSweep(ctx context.Context, s sweeper, r *sweepResults) (err error) {
	p, err := s.make(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drop()) }()
	start := time.Now()
	if err := b.sweepOnce(ctx, s, p, r); err != nil {
		return err
	}
	r.rates = append(r.rates, float64(b.config.sweep/2)/time.Since(start).Seconds())
	if s.again == nil {
		return nil
	}
	for _, sql := range s.again {
		if _, err := p.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	// After a checkpoint a page is logged as a whole when it is first changed: the first
	// turn takes these writes out of the comparison.
	if _, err := p.pool.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if _, err := b.live(ctx, p, time.After(b.turn)); err != nil {
		return err
	}
	without, err := b.live(ctx, p, time.After(b.turn))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	done := make(chan time.Time)
	var sweepErr error
	wg.Go(func() {
		defer close(done)
		sweepErr = b.sweepOnce(ctx, s, p, r)
	})
	during, err := b.live(ctx, p, done)
	wg.Wait()
	if err = errors.Join(err, sweepErr); err != nil {
		return err
	}
	after, err := b.live(ctx, p, time.After(b.turn))
	if err != nil {
		return err
	}
	without.latencies = append(without.latencies, after.latencies...)
	slices.Sort(without.latencies)
	r.p50 = append(r.p50, float64(during.quantile(0.5))/float64(without.quantile(0.5)))
	r.p99 = append(r.p99, float64(during.quantile(0.99))/float64(without.quantile(0.99)))
	return nil
}

func (b *bench) sweepOnce(ctx context.Context, s sweeper, p *peer, r *sweepResults) error {
	rows, longest, err := s.sweep(ctx, p)
	if err == nil && rows != int64(b.config.sweep/2) {
		err = fmt.Errorf("%d rows went, not %d", rows, b.config.sweep/2)
	}
	r.longest = max(r.longest, longest)
	return err
}

// live sends requests until it is told to stop: each client one every few milliseconds,
// so that the machine is busy, and not overloaded.
func (b *bench) live(ctx context.Context, p *peer, stop <-chan time.Time) (measurement, error) {
	const think = 10 * time.Millisecond
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	perClient := make([][]time.Duration, b.clients)
	var wg sync.WaitGroup
	for i := range b.clients {
		wg.Go(func() {
			c := newClient(ctx, uint64(i))
			for n := 0; ; n++ {
				select {
				case <-ended:
					return
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(c.rand.Int64N(int64(2 * think)))):
				}
				path := "/read"
				if n%5 == 4 {
					path = "/write"
				}
				start := time.Now()
				if err := c.do(p.app, path, p.tokens[c.rand.IntN(len(p.tokens))]); err != nil {
					cancel(err)
				}
				perClient[i] = append(perClient[i], time.Since(start))
			}
		})
	}
	select {
	case <-stop:
	case <-ctx.Done():
	}
	close(ended)
	wg.Wait()
	m := measurement{latencies: slices.Concat(perClient...)}
	slices.Sort(m.latencies)
	if err := context.Cause(ctx); err != nil || len(m.latencies) == 0 {
		return m, errors.Join(err, errors.New("no live requests were made"))
	}
	return m, nil
}
