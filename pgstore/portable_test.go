package pgstore_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// pgtest holds each statement of the store against the rules of portable SQL: so it must
// see them, those in transactions and in shared round trips included.
func TestStatementsOfTheStoreAreHeldAgainstTheRules(t *testing.T) {
	t.Parallel()
	everything(t, migrated(t), pgstore.Config{})
	seen := pgtest.Statements()
	for _, part := range []string{
		"SELECT data, ", "FOR UPDATE", "DO UPDATE SET fence", "UPDATE scs_sessions SET end_reason", "INSERT INTO scs_user_sessions",
		"DELETE FROM scs_user", "REPEATABLE READ", "clock_timestamp()",
	} {
		if !slices.ContainsFunc(seen, func(sql string) bool { return strings.Contains(sql, part) }) {
			t.Errorf("of %d statements none has %s", len(seen), part)
		}
	}
}
