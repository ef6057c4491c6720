package pgtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// script is the SQL that migrations.Up sends to make the tables.
var script struct {
	once sync.Once
	sql  string
	err  error
}

// Migrate makes the tables in the first schema of the pool's search_path, which has none. It
// sends the SQL that up sends, which is migrations.Up. Up itself parses its files each time,
// which in most tests takes longer than what they test; so it is called once in a process.
func Migrate(t testing.TB, pool *pgxpool.Pool, up func(context.Context, *pgxpool.Pool) error) {
	t.Helper()
	script.once.Do(func() {
		rec := &statements{}
		first := Pool(t, func(c *pgxpool.Config) { c.ConnConfig.Tracer = rec })
		script.err = up(context.WithoutCancel(t.Context()), first)
		script.sql = strings.Join(rec.list, ";\n")
	})
	if script.err != nil {
		t.Fatal(script.err)
	}
	Exec(t, pool, script.sql, pgx.QueryExecModeSimpleProtocol) // all of it in one transaction
	Distribute(t, pool)
}

// statements are those that write, with their arguments in them.
type statements struct{ list []string }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	word, _, _ := strings.Cut(strings.TrimSpace(data.SQL), " ")
	switch strings.ToLower(strings.TrimRight(word, ";")) {
	case "", "begin", "commit", "rollback", "select":
		return ctx
	}
	sql := data.SQL
	for i, arg := range data.Args { // versions, and whether they are applied
		sql = strings.ReplaceAll(sql, fmt.Sprint("$", i+1), fmt.Sprint(arg))
	}
	s.list = append(s.list, strings.TrimSuffix(strings.TrimSpace(sql), ";"))
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
