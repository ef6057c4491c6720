package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scspg/scspg/pgstore"
	"github.com/scspg/scspg/pgstore/keyring"
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

// sealed is ours with encrypted data.
func (b *bench) sealed(name string, cfg pgstore.Config) maker {
	return func(ctx context.Context) (*peer, error) {
		ring, err := keyring.New(keyring.Key{ID: 1, Secret: make([]byte, 32)})
		if err != nil {
			return nil, err
		}
		cfg.Seal, cfg.AllowPlain = ring, true // it is filled with plain rows
		p, err := b.scspg(ctx, name, b.sessions, cfg)
		if err == nil {
			_, err = p.ours.Reseal(ctx)
		}
		return p, err
	}
}

// at makes a peer whose requests go to another path.
func at(path string, mk maker) maker {
	return func(ctx context.Context) (*peer, error) {
		p, err := mk(ctx)
		if p != nil {
			p.path = path
		}
		return p, err
	}
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

// requests prints a table for each round trip, of the requests that an app has most of.
// The others do the same for each of them: with an idle timeout they write every time.
func (b *bench) requests(ctx context.Context) error {
	touching := pgstore.Config{UserLimit: limit, TouchAfter: 1}
	for _, rtt := range b.rtts {
		title := "Requests, by what they do"
		makers := []maker{
			plotted(b.raw), b.floor, plotted(b.ours("**scspg**, nothing changed", untouched)),
			b.sealed("**scspg**, nothing changed, sealed", untouched), b.ours("**scspg**, every request touches", touching), at("/write", b.ours("**scspg**, data changed", untouched)),
			plotted(b.pgxstore), b.postgresstore, b.memstore,
		}
		if rtt > 0 {
			title = fmt.Sprintf("Requests, with a round trip of %v more", rtt)
			makers = slices.Concat(makers[:1], makers[2:3], makers[4:7]) // what is relayed, and of interest there
		}
		if err := b.withRTT(ctx, rtt, func(note string) error {
			return b.with(ctx, b.withRedis(makers), func(peers []*peer) error {
				peers = b.chosen(peers)
				results, err := b.compare(ctx, title, note, peers, b.counts, existing, rawName, "pgxstore", "redisstore")
				if err != nil || rtt > 0 {
					return err
				}
				return b.latency(peers, results[0])
			})
		}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) signIn(ctx context.Context) error {
	makers := b.withRedis([]maker{
		b.ours(fmt.Sprintf("**scspg**, limit of %d, each sign-in evicts one", limit), untouched),
		b.ours("**scspg**, no limit", pgstore.Config{}), b.pgxstore, b.postgresstore,
	})
	return b.with(ctx, makers, func(peers []*peer) error {
		_, err := b.compare(ctx, "A sign-in", "", b.chosen(peers), b.counts[:1], func(p *peer, c *client) error { return b.signsIn(p, c, b.sessions) }, "pgxstore")
		return err
	})
}

// chosen are the peers whose rows are asked for.
func (b *bench) chosen(peers []*peer) []*peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return !b.rows.MatchString(p.name) })
}

// load is what a client does again and again.
type load func(*peer, *client) error

// existing is a request with the token of any session.
func existing(p *peer, c *client) error {
	if p.op != nil {
		return p.op(c)
	}
	return c.do(p.app, p.path, p.tokens[c.rand.IntN(len(p.tokens))])
}

// signsIn is a sign-in as any user of so many sessions.
func (b *bench) signsIn(p *peer, c *client, sessions int) error {
	c.request.Header["X-User"] = []string{b.userName(c.rand.IntN(sessions))}
	return c.do(p.app, "/signin", "")
}

// compare prints a table: for each number of clients the medians of the rounds, and ratios
// to those of the references that are there.
func (b *bench) compare(ctx context.Context, title, note string, peers []*peer, counts []int, l load, references ...string) (results [][][]measurement, err error) {
	index := func(name string) int { return slices.IndexFunc(peers, func(p *peer) bool { return p.name == name }) }
	references = slices.DeleteFunc(references, func(name string) bool { return index(name) < 0 })
	fmt.Printf("\n### %s\n\n%s| clients | | per second |", title, note)
	for _, name := range references {
		fmt.Printf(" × %s |", name)
	}
	fmt.Printf(" p50 | p99 | allocations | CPU of the app | of the server |\n|--:|---|%s\n", strings.Repeat("--:|", 6+len(references)))
	for _, n := range counts {
		turns, err := b.takeTurns(ctx, title, peers, n, l)
		if err != nil {
			return nil, err
		}
		results = append(results, turns)
		for i, p := range peers {
			fmt.Printf("| %d | %s | %s |", n, p.name, thousands(median(turns[i], func(m measurement) float64 { return m.rate })))
			for _, name := range references {
				ratios := make([]float64, b.rounds)
				for r := range ratios {
					ratios[r] = turns[i][r].rate / turns[index(name)][r].rate
				}
				fmt.Printf(" %s |", spread(ratios))
			}
			server := "–"
			if p.server != 0 {
				server = short(median(turns[i], func(m measurement) time.Duration { return m.server }))
			}
			fmt.Printf(" %s | %s | %.0f | %s | %s |\n",
				short(median(turns[i], func(m measurement) time.Duration { return m.quantile(0.5) })),
				short(median(turns[i], func(m measurement) time.Duration { return m.quantile(0.99) })),
				median(turns[i], func(m measurement) float64 { return m.allocs }),
				short(median(turns[i], func(m measurement) time.Duration { return m.cpu })), server)
		}
	}
	return results, nil
}

// takeTurns measures every peer once in each round, after a warm-up.
func (b *bench) takeTurns(ctx context.Context, title string, peers []*peer, clients int, l load) ([][]measurement, error) {
	results := make([][]measurement, len(peers))
	for round := -1; round < b.rounds; round++ {
		for i, p := range peers {
			turn := b.turn
			if round < 0 {
				turn /= 4
			}
			m, err := measure(ctx, p, clients, turn, l)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			if round < 0 {
				continue
			}
			results[i] = append(results[i], m)
			if err := b.record(title, p.name, clients, round, m); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

// record appends a turn to a file, so that runs of two versions can be compared.
func (b *bench) record(title, name string, clients, round int, m measurement) error {
	if b.json == nil {
		return nil
	}
	return json.NewEncoder(b.json).Encode(struct {
		Table     string  `json:"table"`
		Row       string  `json:"row"`
		Clients   int     `json:"clients"`
		Round     int     `json:"round"`
		PerSecond float64 `json:"per_second"`
		P50       float64 `json:"p50_us"`
		P99       float64 `json:"p99_us"`
		Allocs    float64 `json:"allocs"`
		App       float64 `json:"app_us"`
		Server    float64 `json:"server_us"`
	}{title, name, clients, round, m.rate, micros(m.quantile(0.5)), micros(m.quantile(0.99)), m.allocs, micros(m.cpu), micros(m.server)})
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
