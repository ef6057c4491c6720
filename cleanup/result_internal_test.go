package cleanup

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// What was not counted is not said to be none.
func TestResultLogsWhatIsLeftOnlyIfItIsKnown(t *testing.T) {
	for _, c := range []struct {
		r          Result
		want, lack string
	}{
		{Result{Expired: 5}, "r.rows=5", "left"},
		{Result{OrphanUserRows: 5, OrphanUsers: 4}, "r.orphan_user_rows=5 r.orphan_users=4", "left"},
		{Result{Expired: 5, Counted: true}, "r.left=0", "oldest_left"},
		{Result{Counted: true, Left: 3, OldestLeft: time.Unix(0, 0).UTC(), OutOfBudget: true}, "r.left=3 r.oldest_left=1970-01-01T00:00:00.000Z r.out_of_budget=true", "error"},
	} {
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("swept", "r", c.r)
		if !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), c.lack) {
			t.Error(out.String())
		}
	}
}
