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
	"github.com/jackc/pgx/v5/multitracer"
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
	session   = regexp.MustCompile(`^(set|listen|unlisten|prepare|deallocate|discard|reset|load|declare)\b|^create (local |global )?temp|` +
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

// reader reads what the store sends through a pool.
type reader struct{ t testing.TB }

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
	tracers := []pgx.QueryTracer{reader{t}}
	if t := config.ConnConfig.Tracer; t != nil {
		tracers = append(tracers, t)
	}
	config.ConnConfig.Tracer = multitracer.New(tracers...)
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
func (r reader) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.note(data.SQL)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (reader) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (r reader) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		r.note(q.SQL)
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (reader) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (reader) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
