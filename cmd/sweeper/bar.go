package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/schollz/progressbar/v3"

	"github.com/scspg/scspg/cleanup"
)

// bar shows progress on a terminal.
type bar struct{ *progressbar.ProgressBar }

// newBar asks how much there is to do. Without a terminal, or an answer, there is
// no bar.
func (p *program) newBar(ctx context.Context, pool *pgxpool.Pool) bar {
	if p.columns < narrowest || p.quiet || p.json {
		return bar{}
	}
	o := p.Options
	o.Orphans = false // to count them takes as long as to delete them
	report, err := cleanup.Inspect(ctx, pool, o)
	total := report.Total.Rows()
	if err != nil || total == 0 {
		return bar{}
	}
	if p.MaxRows > 0 {
		total = min(total, p.MaxRows)
	}
	return startBar(p.stderr, total, p.columns)
}

func startBar(w io.Writer, total int64, columns int) bar {
	b := progressbar.NewOptions64(total, append(layout(total, columns), progressbar.OptionSetWriter(w))...)
	_ = b.RenderBlank() // the clock of its rate starts here
	return bar{b}
}

// How wide a line is, without the digits of the counts. A bar gives way where it turns
// out to be wider.
const (
	narrowest = len("sweeping 100%    ")
	counting  = narrowest + len("(/) [12h59m59s:12h59m59s]")
	barless   = narrowest + len("(/) [59m59s:59m59s]") + len("||, 123456 sessions/s")
	shortest  = 10
	longest   = 40
)

// layout leaves out what would make the line wrap.
func layout(total int64, columns int) []progressbar.Option {
	columns -= 2 * len(strconv.FormatInt(total, 10))
	options := []progressbar.Option{
		progressbar.OptionSetDescription("sweeping"), progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(columns >= counting),
	}
	if columns >= counting {
		options = append(options, progressbar.OptionShowCount())
	}
	if columns < barless+shortest {
		return append(options, progressbar.OptionSetWidth(0), progressbar.OptionSetTheme(progressbar.Theme{}))
	}
	return append(options, progressbar.OptionSetWidth(min(columns-barless, longest)),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("sessions"))
}

func (b bar) show(r cleanup.Result) {
	if b.ProgressBar != nil {
		_ = b.Set64(min(r.Rows(), b.GetMax64()))
	}
}

func (b bar) done() {
	if b.ProgressBar != nil {
		_ = b.Clear()
	}
}
