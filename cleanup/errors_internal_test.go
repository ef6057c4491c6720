package cleanup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestExplainSaysWhatToDo(t *testing.T) {
	o := &Options{StatementTimeout: time.Minute, LockTimeout: time.Second}
	for _, c := range []struct {
		code, op, want, not string
	}{
		{"42P01", opDelete, "or, where your app's go.mod is, goose -dir", ""},
		{"25006", opDelete, "connect to the primary", ""},
		{"42501", opDelete, "lacks a privilege", ""},
		{"55P03", opDelete, "Options.LockTimeout (1s)", ""},
		{"57014", opDelete, "Options.StatementTimeout (1m0s): try a smaller Options.Batch", ""},
		{"57014", "count sessions", "Options.StatementTimeout (1m0s)", "Options.Batch"},
		{"42P05", opDelete, "set default_query_exec_mode=cache_describe", ""}, // of PgBouncer before 1.21
		{"26000", "look at the database", "set default_query_exec_mode=cache_describe", ""},
		{"22012", opDelete, "cleanup: delete sessions: ", "Options"},
	} {
		cause := &pgconn.PgError{Code: c.code}
		err := explain(t.Context(), c.op, o, cause)
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), c.want) || c.not != "" && strings.Contains(err.Error(), c.not) {
			t.Errorf("%s: %v", c.code, err)
		}
	}
	// The end of the context is in it, whatever the connection made of it.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := explain(ctx, opDelete, o, &pgconn.PgError{Code: "57014"}); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "Options") {
		t.Error(err)
	}
}
