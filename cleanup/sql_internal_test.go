package cleanup

import (
	"strings"
	"testing"
)

func TestStatementsQuoteTheSchema(t *testing.T) {
	d := newSweep(nil, Options{Schema: `a"b`})
	for _, sql := range []string{sqlList, sqlDelete, sqlDeleteFree, sqlListIDs, sqlDeleteIDs, sqlUnindex, sqlLeft, sqlDue,
		sqlPageIndex, sqlKeptIndex, sqlDeleteIndex, sqlPageUsers, sqlKeptUsers, sqlDeleteUsers, " " + probes[0][1], " " + probes[2][1]} {
		if sql = d.q(sql); !strings.Contains(sql, `"a""b".scs_`) || strings.Contains(sql, "{") || strings.Contains(sql, " scs_") {
			t.Errorf("%s", sql)
		}
	}
}

// Whatever deletes or counts goes by the one rule.
func TestStatementsHaveTheRule(t *testing.T) {
	for _, sql := range []string{sqlList, sqlDelete, sqlDeleteFree, sqlListIDs, sqlDeleteIDs, sqlLeft, sqlDue} {
		if !strings.Contains(sql, due) {
			t.Errorf("not in %s", sql)
		}
	}
	if strings.Count(sqlDeleteFree, due) != 2 { // on what is locked, and on what is deleted
		t.Errorf("%s", sqlDeleteFree)
	}
}
