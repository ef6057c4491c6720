package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/scspg/scspg/pgstore"
)

// growth prints what operations cost by the number of sessions in the table.
func (b *bench) growth(ctx context.Context) error {
	type op struct {
		name string
		cfg  pgstore.Config
		load func(sessions int) load
	}
	request := func(path string) func(int) load {
		return func(n int) load {
			return func(p *peer, c *client) error { return c.do(p.app, path, token(c.rand.IntN(n))) }
		}
	}
	ops := []op{
		{"read", untouched, request("/read")},
		{"data write", untouched, request("/write")},
		{"touch", pgstore.Config{UserLimit: limit, TouchAfter: 1}, request("/read")},
		{"sign-in, limit of 5", untouched, func(n int) load {
			return func(p *peer, c *client) error { return b.signsIn(p, c, n) }
		}},
		{"listing", untouched, func(n int) load {
			return func(p *peer, c *client) error {
				_, err := p.ours.Sessions(c.request.Context(), b.userName(c.rand.IntN(n)))
				return err
			}
		}},
	}
	defer func(n int) { b.perUser = n }(b.perUser)
	b.perUser = 3
	fmt.Printf("\n### Cost by the number of sessions in the table, %d per user\n\n| sessions |", b.perUser)
	for _, o := range ops {
		fmt.Printf(" %s |", o.name)
	}
	fmt.Print("\n|--:|")
	for range ops {
		fmt.Print("--:|")
	}
	fmt.Println()

	makers := make([]maker, len(b.config.growth))
	for i, n := range b.config.growth {
		makers[i] = func(ctx context.Context) (*peer, error) {
			return b.scspg(ctx, fmt.Sprint(n), n, untouched)
		}
	}
	return b.with(ctx, makers, func(peers []*peer) error {
		costs := make([][][]float64, len(peers)) // by peer, operation and round
		for i := range costs {
			costs[i] = make([][]float64, len(ops))
		}
		for o, op := range ops {
			for round := -1; round < b.rounds; round++ {
				for i, p := range peers {
					q := *p
					if op.cfg.TouchAfter != untouched.TouchAfter {
						var err error
						if q.ours, err = pgstore.New(p.pool, op.cfg); err != nil {
							return err
						}
						q.sm = b.manager(q.ours, pgstore.Codec{UserKey: userKey})
						b.finish(&q)
					}
					m, err := measure(ctx, &q, b.clients, b.turn, op.load(b.config.growth[i]))
					if err != nil {
						return fmt.Errorf("%s at %s: %w", op.name, p.name, err)
					}
					if round >= 0 {
						costs[i][o] = append(costs[i][o], 1/m.rate)
					}
				}
			}
		}
		for i, p := range peers {
			fmt.Printf("| %s |", p.name)
			for o := range ops {
				ratios := make([]float64, b.rounds)
				for r := range ratios {
					ratios[r] = costs[i][o][r] / costs[0][o][r]
				}
				fmt.Printf(" %s |", spread(ratios))
			}
			fmt.Println()
		}
		return nil
	})
}

var _ http.ResponseWriter = (*client)(nil)
