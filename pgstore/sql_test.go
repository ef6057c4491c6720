package pgstore

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Citus refuses these in a statement that writes to a distributed table
// (ModifyPartialQuerySupported in its router planner), where
// PostgreSQL takes them all: so no test on PostgreSQL would notice.
var citusRefuses = []struct {
	what string
	in   *regexp.Regexp
}{
	{"a function in RETURNING", regexp.MustCompile(`RETURNING [^;]*\(`)},
	{"an expression in RETURNING", regexp.MustCompile(`RETURNING .*[<>=]`)},
	{"a function in DO UPDATE", regexp.MustCompile(`DO UPDATE SET .*\(`)},
	{"CASE in UPDATE or DELETE", regexp.MustCompile(`^(UPDATE|DELETE).*\bCASE\b`)},
	{"COALESCE in UPDATE or DELETE", regexp.MustCompile(`(?i)^(UPDATE|DELETE).*\bcoalesce\b`)},
	{"a time column in STABLE arithmetic", regexp.MustCompile(`\b(expiry|sweep_at|last_seen_at|created_at|fence) [-+]`)},
	{"a volatile function", regexp.MustCompile(`clock_timestamp|random|nextval`)},
	{"a common table expression", regexp.MustCompile(`^WITH`)},
	{"a join", regexp.MustCompile(`^(UPDATE|DELETE).* (USING|JOIN) `)},
}

func TestWritesAreOnesThatCitusTakes(t *testing.T) {
	writes := 0
	for _, schema := range []string{"", "a schema"} {
		v := reflect.ValueOf(newStatements(schema))
		for i := range v.NumField() {
			sql := strings.Join(strings.Fields(v.Field(i).String()), " ")
			if sql == "" {
				t.Errorf("%s is empty", v.Type().Field(i).Name)
			}
			if !regexp.MustCompile(`^(INSERT|UPDATE|DELETE|WITH) `).MatchString(sql) {
				continue
			}
			writes++
			for _, refused := range citusRefuses {
				if refused.in.MatchString(sql) {
					t.Errorf("%s: %s", refused.what, sql)
				}
			}
		}
	}
	if writes < 2*12 {
		t.Errorf("only %d writes were seen", writes)
	}
}
