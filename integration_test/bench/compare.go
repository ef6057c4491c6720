package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// maker makes a peer and fills it.
type maker func(context.Context) (*peer, error)

// with runs f on all the peers that are to be had.
func (b *bench) with(ctx context.Context, makers []maker, f func([]*peer) error) (err error) {
	var peers []*peer
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.drop())
		}
	}()
	for _, mk := range makers {
		p, err := mk(ctx)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	return f(peers)
}

func (b *bench) ours(name string, cfg pgstore.Config) maker {
	return func(ctx context.Context) (*peer, error) { return b.scspg(ctx, name, b.sessions, cfg) }
}

// withRedis adds redisstore where there is a Redis.
func (b *bench) withRedis(makers []maker) []maker {
	if b.redis == nil {
		return makers
	}
	return append(makers, plotted(b.redisstore))
}

// Fresh sessions are not due for a touch while a run lasts.
var untouched = pgstore.Config{UserLimit: limit, TouchAfter: idleTimeout / 2}

func (b *bench) rolling(ctx context.Context) error {
	makers := b.withRedis([]maker{
		plotted(b.raw), b.floor,
		plotted(b.ours("**scspg**, no touch due", untouched)),
		b.ours("**scspg**, every request touches", pgstore.Config{UserLimit: limit, TouchAfter: 1}),
		plotted(b.pgxstore), b.postgresstore,
	})
	makers = append(makers, b.memstore)
	return b.with(ctx, makers, func(peers []*peer) error {
		results, err := b.compare(ctx, "A rolling request: an idle timeout is set, and nothing has changed", peers, "pgxstore", existing("/read"))
		if err != nil {
			return err
		}
		return b.latency(peers, results)
	})
}

func (b *bench) changed(ctx context.Context) error {
	makers := b.withRedis([]maker{b.ours("**scspg**", untouched), b.pgxstore, b.postgresstore})
	makers = append(makers, b.memstore)
	return b.with(ctx, makers, func(peers []*peer) error {
		_, err := b.compare(ctx, "A request that changes data", peers, "pgxstore", existing("/write"))
		return err
	})
}

func (b *bench) signIn(ctx context.Context) error {
	makers := b.withRedis([]maker{
		b.ours(fmt.Sprintf("**scspg**, limit of %d, each sign-in evicts one", limit), untouched),
		b.ours("**scspg**, no limit", pgstore.Config{}), b.pgxstore, b.postgresstore,
	})
	return b.with(ctx, makers, func(peers []*peer) error {
		_, err := b.compare(ctx, "A sign-in", peers, "pgxstore", load{"/signin", func(p *peer, c *client) error {
			c.request.Header["X-User"] = []string{b.userName(c.rand.IntN(b.sessions))}
			return c.do(p.app, "")
		}})
		return err
	})
}

// load is what the clients do.
type load struct {
	path string
	op   func(*peer, *client) error
}

// existing requests a path with the token of any session.
func existing(path string) load {
	return load{path, func(p *peer, c *client) error {
		if p.op != nil {
			return p.op(c)
		}
		return c.do(p.app, p.tokens[c.rand.IntN(len(p.tokens))])
	}}
}

// compare prints a table: the median of the rounds, and ratios to one peer.
func (b *bench) compare(ctx context.Context, title string, peers []*peer, reference string, l load) ([][]measurement, error) {
	results, err := b.takeTurns(ctx, peers, b.clients, l)
	if err != nil {
		return nil, err
	}
	ref := slices.IndexFunc(peers, func(p *peer) bool { return p.name == reference })
	fmt.Printf("\n### %s\n\n| | per second | × %s | p50 | p99 | allocations | CPU of the app |\n|---|--:|--:|--:|--:|--:|--:|\n", title, reference)
	for i, p := range peers {
		ratio := make([]float64, b.rounds)
		for r := range ratio {
			ratio[r] = results[i][r].rate / results[ref][r].rate
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %.0f | %s |\n", p.name,
			thousands(median(results[i], func(m measurement) float64 { return m.rate })),
			spread(ratio),
			short(median(results[i], func(m measurement) time.Duration { return m.quantile(0.5) })),
			short(median(results[i], func(m measurement) time.Duration { return m.quantile(0.99) })),
			median(results[i], func(m measurement) float64 { return m.allocs }),
			short(median(results[i], func(m measurement) time.Duration { return m.cpu })))
	}
	return results, nil
}

// takeTurns measures every peer once in each round, after a warm-up.
func (b *bench) takeTurns(ctx context.Context, peers []*peer, clients int, l load) ([][]measurement, error) {
	results := make([][]measurement, len(peers))
	for round := -1; round < b.rounds; round++ {
		for i, p := range peers {
			turn := b.turn
			if round < 0 {
				turn /= 4
			}
			m, err := measure(ctx, clients, turn, l.path, func(c *client) error { return l.op(p, c) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			if round >= 0 {
				results[i] = append(results[i], m)
			}
		}
	}
	return results, nil
}
