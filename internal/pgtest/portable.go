package pgtest

import (
	"context"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The rules that the store's SQL keeps to run on Citus and through PgBouncer. They are held
// against every statement, on whatever server the tests run, so a statement that breaks one
// fails long before it meets a Citus. They read a normalized text: see normalize.
var rules = []struct {
	why    string
	broken func(sql string) bool
}{
	{"a WHERE of a write calls only what is known not to be volatile", func(sql string) bool {
		return calls(where.FindString(sql), "now", "unnest", "coalesce", "greatest", "least", "nullif")
	}},
	{"RETURNING calls nothing", func(sql string) bool { return calls(returning.FindString(sql)) }},
	{"DO UPDATE calls no now(), but compares with excluded", func(sql string) bool {
		return calls(doUpdate.FindString(sql), "coalesce", "greatest", "least", "nullif")
	}},
	{"hot and user tables are not joined", func(sql string) bool {
		sql = array.ReplaceAllString(sql, "") // is read first, as a list
		return hot.MatchString(sql) && users.MatchString(sql)
	}},
	{"FOR UPDATE locks one row, or rows of one shard", regexp.MustCompile(`\b(any|in) ?\(.* for (no key )?(update|(key )?share)\b`).MatchString},
	{"DELETE has no USING", regexp.MustCompile(`\bdelete from .* using `).MatchString},
	// LISTEN may, as Watch has a connection of its own for it.
	{"nothing outlives its transaction", func(sql string) bool {
		return session.MatchString(local.ReplaceAllString(sql, ""))
	}},
}

var (
	where     = regexp.MustCompile(`^(with .*)?(update|delete) .* where .*`)
	returning = regexp.MustCompile(` returning .*`)
	doUpdate  = regexp.MustCompile(` do update .*`)
	array     = regexp.MustCompile(`\bany ?\(array ?\(select ([^()]|\([^()]*\))*\)\)`)
	hot       = regexp.MustCompile(`\bscs_sessions\b`)
	users     = regexp.MustCompile(`\bscs_(users|user_sessions)\b`)
	session   = regexp.MustCompile(`^(set|unlisten|prepare|deallocate|discard|reset|load|declare)\b|^create (local |global )?temp|` +
		`\bset_config ?\(|\bpg_(try_)?advisory_(lock|unlock)`)
	local = regexp.MustCompile(`^set (local|transaction) .*|\bset_config ?\([^(),]*,[^(),]*, ?true ?\)`)

	call    = regexp.MustCompile(`\b([a-z_][a-z0-9_]*) ?\(`)
	words   = []string{"any", "all", "array", "in", "and", "or", "not", "values", "exists", "from", "where"} // may stand before a bracket
	literal = regexp.MustCompile(`'[^']*'`)
	schema  = regexp.MustCompile(`("([^"]|"")*"|\w+)\.`)
	comment = regexp.MustCompile(`--[^\n]*`)
)

// calls reports whether SQL calls functions that are not among these.
func calls(sql string, known ...string) bool {
	return slices.ContainsFunc(call.FindAllStringSubmatch(sql, -1), func(m []string) bool {
		return !slices.Contains(known, m[1]) && !slices.Contains(words, m[1])
	})
}

// normalize returns a statement in lower case on one line, without the text of literals and
// the schemas of names.
func normalize(sql string) string {
	sql = literal.ReplaceAllString(comment.ReplaceAllString(sql, ""), "''")
	sql = strings.ReplaceAll(schema.ReplaceAllString(sql, ""), `"`, "")
	return strings.Join(strings.Fields(strings.ToLower(sql)), " ")
}

// broken returns why a statement is not portable.
func broken(sql string) (why []string) {
	sql = normalize(sql)
	for _, r := range rules {
		if r.broken(sql) {
			why = append(why, r.why)
		}
	}
	return why
}

// reader reads what the store sends through a pool. What a test traces, it hands on.
type reader struct {
	t testing.TB
	pgx.QueryTracer
	batches pgx.BatchTracer
}

// read has the rules that each statement of the store breaks, by its text.
var read sync.Map

// Statements returns those that the store has sent through pools of this process.
func Statements() (list []string) {
	read.Range(func(sql, _ any) bool {
		list = append(list, sql.(string))
		return true
	})
	return list
}

// watch has the tests fail that send what is not portable.
func watch(t testing.TB, config *pgxpool.Config) {
	r := reader{t, nobody{}, nobody{}}
	if tracer := config.ConnConfig.Tracer; tracer != nil {
		r.QueryTracer = tracer
		if batches, ok := tracer.(pgx.BatchTracer); ok {
			r.batches = batches
		}
	}
	config.ConnConfig.Tracer = r
}

func (r reader) note(sql string) {
	why, seen := read.Load(sql)
	if !seen {
		if !sentByStore() {
			return
		}
		why, _ = read.LoadOrStore(sql, broken(sql))
	}
	for _, why := range why.([]string) {
		r.t.Errorf("the store has sent what is not portable (%s): %s", why, sql)
	}
}

// sentByStore reports whether it is code of the store that calls pgx, and not a test.
func sentByStore() bool {
	const here, store, driver = "github.com/scspg/scspg/internal/pgtest.reader.", "github.com/scspg/scspg/pgstore", "github.com/jackc/pgx/"
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if name := frame.Function; !strings.HasPrefix(name, driver) && !strings.HasPrefix(name, here) {
			return strings.HasPrefix(name, store) && !strings.HasSuffix(frame.File, "_test.go")
		}
		if !more {
			return false
		}
	}
}

// TraceQueryStart implements pgx.QueryTracer.
func (r reader) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.note(data.SQL)
	return r.QueryTracer.TraceQueryStart(ctx, conn, data)
}

// TraceBatchStart implements pgx.BatchTracer.
func (r reader) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		r.note(q.SQL)
	}
	return r.batches.TraceBatchStart(ctx, conn, data)
}

// TraceBatchQuery implements pgx.BatchTracer.
func (r reader) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	r.batches.TraceBatchQuery(ctx, conn, data)
}

// TraceBatchEnd implements pgx.BatchTracer.
func (r reader) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	r.batches.TraceBatchEnd(ctx, conn, data)
}

// nobody traces nothing.
type nobody struct{}

func (nobody) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (nobody) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (nobody) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (nobody) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (nobody) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
