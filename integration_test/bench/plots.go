package main

import (
	"context"
	"fmt"
	"image/color"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

var colors = []color.Color{
	color.RGBA{0x33, 0x66, 0x91, 0xff}, color.RGBA{0xd9, 0x48, 0x01, 0xff},
	color.RGBA{0x23, 0x8b, 0x45, 0xff}, color.RGBA{0x75, 0x6b, 0xb1, 0xff},
}

// plotted marks a peer of a table for the plot beside it: more lines than colors are hard to read.
func plotted(mk maker) maker {
	return func(ctx context.Context) (*peer, error) {
		p, err := mk(ctx)
		if p != nil {
			p.plotted = true
		}
		return p, err
	}
}

// byClients plots the rate of rolling requests by the number of clients.
func (b *bench) byClients(ctx context.Context) error {
	counts := []int{1, 2, 4, 8, 16, 32, 64}
	return b.with(ctx, b.withRedis([]maker{b.raw, b.ours("**scspg**", untouched), b.pgxstore}), func(peers []*peer) error {
		lines := make([]plotter.XYs, len(peers))
		fmt.Printf("\n### Rolling requests per second, by clients\n\n| clients |")
		for _, p := range peers {
			fmt.Printf(" %s |", p.name)
		}
		fmt.Print("\n|--:|")
		for range peers {
			fmt.Print("--:|")
		}
		fmt.Println()
		rounds := b.rounds
		defer func() { b.rounds = rounds }()
		b.rounds = 1
		for x, n := range counts {
			results, err := b.takeTurns(ctx, "Rolling requests", peers, n, existing)
			if err != nil {
				return err
			}
			fmt.Printf("| %d |", n)
			for i := range peers {
				rate := results[i][0].rate
				fmt.Printf(" %s |", thousands(rate))
				lines[i] = append(lines[i], plotter.XY{X: float64(x), Y: rate})
			}
			fmt.Println()
		}
		p := plot.New()
		p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Rolling requests", "clients", "requests per second"
		p.Y.Min = 0
		ticks := make([]plot.Tick, len(counts))
		for i, n := range counts {
			ticks[i] = plot.Tick{Value: float64(i), Label: strconv.Itoa(n)}
		}
		p.X.Tick.Marker = plot.ConstantTicks(ticks)
		return b.save(p, peers, lines, "clients.svg")
	})
}

// latency plots how long the rolling requests of the comparison took.
func (b *bench) latency(peers []*peer, results [][]measurement) error {
	quantiles := []float64{0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999}
	fmt.Printf("\n### Latency of rolling requests, %d clients\n\n| |", b.clients)
	for _, q := range quantiles {
		fmt.Printf(" p%s |", strconv.FormatFloat(q*100, 'f', -1, 64))
	}
	fmt.Print("\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	var shown []*peer
	var lines []plotter.XYs
	for i, p := range peers {
		if !p.plotted {
			continue
		}
		var line plotter.XYs
		fmt.Printf("| %s |", p.name)
		for x, q := range quantiles {
			took := median(results[i], func(m measurement) time.Duration { return m.quantile(q) })
			fmt.Printf(" %s |", short(took))
			line = append(line, plotter.XY{X: float64(x), Y: float64(took.Microseconds()) / 1000})
		}
		fmt.Println()
		shown, lines = append(shown, p), append(lines, line)
	}
	if len(shown) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = fmt.Sprintf("Latency of rolling requests, %d clients", b.clients), "quantile", "milliseconds"
	p.Y.Min = 0
	ticks := make([]plot.Tick, len(quantiles))
	for i, q := range quantiles {
		ticks[i] = plot.Tick{Value: float64(i), Label: "p" + strconv.FormatFloat(q*100, 'f', -1, 64)}
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	return b.save(p, shown, lines, "latency.svg")
}

func (b *bench) save(p *plot.Plot, peers []*peer, lines []plotter.XYs, name string) error {
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	for i, xys := range lines {
		line, points, err := plotter.NewLinePoints(xys)
		if err != nil {
			return err
		}
		line.Color, points.Color = colors[i], colors[i]
		line.Width = vg.Points(1.5)
		p.Add(line, points)
		p.Legend.Add(strings.ReplaceAll(peers[i].name, "*", ""), line)
	}
	path := filepath.Join(b.plots, name)
	if err := p.Save(16*vg.Centimeter, 9*vg.Centimeter, path); err != nil {
		return err
	}
	fmt.Printf("\n![%s](%s)\n", p.Title.Text, filepath.ToSlash(path))
	return nil
}
