package rules_test

import (
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// imported is a row that an import has made of one that expires in an hour, and that was
// written so often since.
func imported(writes int64, r row.Row) row.Row {
	if r.Version != 0 {
		r.Version = row.ImportedVersion(noon.Add(time.Hour), 0) + writes
	}
	return r
}

func TestIncomingSessionComesUnlessOursIsNewer(t *testing.T) {
	t.Parallel()
	const stays, comes, changes, barred = rules.Stays, rules.Comes, rules.Changes, rules.Barred
	same := rules.Incoming{User: "alice", Data: data("alice", "k=v"), Expiry: noon.Add(time.Hour)}
	longer, other, bobs, nobodys := same, same, same, same
	longer.Expiry = noon.Add(2 * time.Hour)
	other.Data = data("alice", "k=w")
	bobs.User, bobs.Data = "bob", data("bob", "k=v")
	nobodys.User, nobodys.Data = "", data("", "k=v")
	for _, tt := range []struct {
		what                                 string
		row                                  row.Row
		same, longer, other, bob, nobody     rules.Fate
		fencedSame, fencedLonger, fencedBobs rules.Fate
	}{
		{"not there", row.Row{}, comes, comes, comes, comes, comes, barred, barred, barred},
		{"as imported", imported(0, alive("alice", "k=v")), stays, changes, changes, changes, changes, stays, changes, barred},
		{"as imported, past its expiry", imported(0, expired("alice")), changes, changes, changes, changes, changes, barred, barred, barred},
		{"written since", imported(1, alive("alice", "k=v")), stays, stays, stays, stays, stays, stays, stays, stays},
		{"written since, past its expiry", imported(1, expired("alice")), stays, stays, stays, stays, stays, stays, stays, stays},
		{"our own", alive("alice", "k=v"), stays, stays, stays, stays, stays, stays, stays, stays},
		{"signed out", imported(0, ended(row.SignedOut, "alice")), stays, stays, stays, stays, stays, stays, stays, stays},
		{"timed out", imported(0, ended(row.TimedOut, "alice")), stays, stays, stays, stays, stays, stays, stays, stays},
		{"being renewed", imported(0, pending("alice", "k=v")), stays, stays, stays, stays, stays, stays, stays, stays},
		{"renewed", imported(0, renewedTo(2, "alice")), stays, stays, stays, stays, stays, stays, stays, stays},
	} {
		for _, c := range []struct {
			how   string
			in    rules.Incoming
			fence time.Time
			want  rules.Fate
		}{
			{"the same", same, time.Time{}, tt.same}, {"longer", longer, time.Time{}, tt.longer}, {"other data", other, time.Time{}, tt.other},
			{"bob's", bobs, time.Time{}, tt.bob}, {"nobody's", nobodys, time.Time{}, tt.nobody},
			{"the same, fenced", same, noon, tt.fencedSame}, {"longer, fenced", longer, noon, tt.fencedLonger}, {"bob's, fenced", bobs, noon, tt.fencedBobs},
		} {
			if got := c.in.Fate(&tt.row, c.fence); got != c.want {
				t.Errorf("%s, %s comes: %d, want %d", tt.what, c.how, got, c.want)
			}
		}
	}
}

func TestReindexedSessionIsStillNobodys(t *testing.T) {
	t.Parallel()
	in := rules.Incoming{User: "alice", Data: data("alice"), Expiry: noon.Add(time.Hour), Read: 1}
	written := alive("")
	written.Version = 2
	for _, tt := range []struct {
		what         string
		row          row.Row
		want, fenced rules.Fate
	}{
		{"as it was read", alive(""), rules.Changes, rules.Barred},
		{"written since", written, rules.Stays, rules.Stays},
		{"alice's by now", alive("alice"), rules.Stays, rules.Stays},
		{"ended", ended(row.SignedOut, ""), rules.Stays, rules.Stays},
		{"being renewed", pending(""), rules.Stays, rules.Stays},
		{"past its expiry", expired(""), rules.Stays, rules.Stays},
		{"swept", row.Row{}, rules.Stays, rules.Stays},
	} {
		if got, fenced := in.Fate(&tt.row, time.Time{}), in.Fate(&tt.row, noon); got != tt.want || fenced != tt.fenced {
			t.Errorf("%s: %d, fenced %d, want %d and %d", tt.what, got, fenced, tt.want, tt.fenced)
		}
	}
	if r := alive(""); in.Version(&r) != 2 {
		t.Errorf("version %d", in.Version(&r))
	}
}

// A request that has loaded the session as nobody's is no other user's write.
func TestCommitOverASessionThatWasReindexedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what string
		base []byte
		row  row.Row
		want string
	}{
		{"it held its user before", unkeyed("userID=alice"), alive("alice", "userID=alice"), "in place of 9"},
		{"it held its user before, and is bob's by now", unkeyed("userID=alice"), alive("bob", "userID=bob"), "dropped"},
		{"it was a visitor's", data("", "cart=1"), alive("alice", "userID=alice"), "dropped"},
	} {
		known := live(mine, alive(""))
		known.Base = tt.base
		c := commitFor("alice")
		c.Session = &known
		if got := told(read(factsOf(c), rows{mine: tt.row})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}
