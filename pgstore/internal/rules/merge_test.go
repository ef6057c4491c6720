package rules_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// written is the row after one more write by others.
func written(r row.Row) row.Row {
	r.Version++
	return r
}

// The request commits "n=1, mine=1" for alice, and had loaded "n=1".
func TestMergeKeepsWhatOthersHaveChanged(t *testing.T) {
	t.Parallel()
	had := func(user string) request.Session { return live(mine, alive(user, "n=1")) }
	ofAlice, ofNobody, ofBob := had("alice"), had(""), had("bob")
	opaque := had("alice")
	opaque.Base = []byte("no frame")
	unsure := had("alice") // the row holds more than its base
	unsure.RowHoldsBase = false
	theirs := []string{"n=2", "theirs=1"}
	merged := data("alice", append(theirs, "mine=1")...)
	sent := data("alice", "n=1", "mine=1")
	for _, tt := range []struct {
		what           string
		known          *request.Session
		left           []request.Session
		signIn         bool
		table          rows
		want           []byte
		conflict, kept bool
	}{
		{"nobody else wrote", &ofAlice, nil, false, rows{mine: alive("alice", "n=1")}, sent, false, false},
		{"others wrote", &ofAlice, nil, false, rows{mine: written(alive("alice", theirs...))}, merged, true, true},
		{"others' changes are in the row already", &unsure, nil, false, rows{mine: alive("alice", theirs...)}, merged, true, true},
		{"others wrote what was nobody's", &ofNobody, nil, false, rows{mine: written(alive("", theirs...))}, merged, true, true},
		// Nothing of one user's reaches another.
		{"others wrote what was bob's", &ofBob, nil, false, rows{mine: written(alive("bob", theirs...))}, sent, false, false},
		{"others wrote what is not Codec's: the last write wins", &opaque, nil, false, rows{mine: written(alive("alice", theirs...))}, sent, true, false},
		{"a token that was not loaded: the last write wins", nil, nil, false, rows{mine: alive("alice", theirs...)}, sent, false, false},

		{"a renewal, nobody else wrote", nil, []request.Session{renewed(1, "alice", "n=1")}, false, rows{1: pending("alice", "n=1")}, sent, false, false},
		{"a renewal, others wrote before", nil, []request.Session{renewed(1, "alice", "n=1")}, false, rows{1: written(pending("alice", theirs...))}, merged, true, true},
		// Other sessions count their versions for themselves.
		{"a renewal along a link", nil, []request.Session{renewed(1, "alice", "n=1")}, false,
			rows{1: renewedTo(2, "alice"), 2: alive("alice", theirs...)}, merged, true, true},
		{"a renewal that was not loaded", nil, []request.Session{renewedUnseen()}, false, rows{1: written(pending("alice", theirs...))}, sent, false, false},
		{"a sign-in on nobody's session", nil, []request.Session{renewed(1, "", "n=1")}, true, rows{1: written(pending("", theirs...))}, merged, true, true},
		{"a sign-in on her own session", nil, []request.Session{renewed(1, "alice", "n=1")}, true, rows{1: written(pending("alice", theirs...))}, merged, true, true},
		{"a sign-in on what has become bob's", nil, []request.Session{renewed(1, "", "n=1")}, true, rows{1: written(pending("bob", theirs...))}, sent, false, false},
		{"a sign-in on what has become nobody's", nil, []request.Session{renewed(1, "alice", "n=1")}, true, rows{1: written(pending("", theirs...))}, sent, false, false},
		{"a sign-in on bob's session", nil, []request.Session{renewed(1, "bob", "n=1")}, true, rows{1: written(pending("bob", theirs...))}, sent, false, false},
		{"a sign-in after a sign-out", nil, []request.Session{signedOut(1, "alice")}, true, rows{1: ended(row.SignedOut, "alice")}, sent, false, false},
		{"a sign-in on one that was ended", nil, []request.Session{renewed(1, "", "n=1")}, true, rows{1: ended(row.Revoked, "")}, sent, false, false},
		{"a sign-in on one whose successor is bob's", nil, []request.Session{renewed(1, "alice", "n=1")}, true,
			rows{1: renewedTo(2, "alice"), 2: alive("bob", theirs...)}, sent, false, false},
		{"in place, and one renewed besides", &ofNobody, []request.Session{renewed(1, "", "n=1")}, false,
			rows{mine: written(alive("", "n=2")), 1: written(pending("", "theirs=1", "n=1"))}, merged, true, true},
	} {
		c := rules.Commit{User: "alice", Keyed: true, Data: sent, Session: tt.known, Left: rules.LeftOf(tt.left), SignIn: tt.signIn}
		got := read(factsOf(c), tt.table).Merge()
		if !bytes.Equal(got.Bytes, tt.want) || got.Conflict != tt.conflict || got.Kept != tt.kept {
			t.Errorf("%s: %q, conflict %t, kept %t, want %q", tt.what, got.Bytes, got.Conflict, got.Kept, tt.want)
		}
	}
}

// A renewal under NoTouch leaves the session the time that it has.
func TestRenewalThatMustNotExtendKeepsTheExpiry(t *testing.T) {
	t.Parallel()
	for _, left := range []time.Duration{time.Minute, 2 * time.Hour} { // factsOf commits an hour
		theirs := pending("alice")
		theirs.Expiry = noon.Add(left)
		c := commitFor("alice", renewed(1, "alice"))
		c.Unseen = true
		if got := read(factsOf(c), rows{1: theirs}).Merge(); got.TTL != min(left, time.Hour) {
			t.Errorf("%v left: stored for %v", left, got.TTL)
		}
	}
}

// The longer time to live wins, but not past the deadline that the merged data has.
func TestMergeKeepsTheLongerLifeUpToTheDeadline(t *testing.T) {
	t.Parallel()
	deadline := time.Now().Add(time.Hour)
	bytesUntil := func(at time.Time) []byte { return encoded("alice", true, at, []string{"n=1"}) }
	for _, tt := range []struct {
		what            string
		ttl, left       time.Duration
		current         time.Time // their deadline
		atLeast, atMost time.Duration
	}{
		{"mine is longer", 30 * time.Minute, 10 * time.Minute, deadline, 30 * time.Minute, 30 * time.Minute},
		{"theirs is longer", 10 * time.Minute, 30 * time.Minute, deadline, 30 * time.Minute, 30 * time.Minute},
		{"theirs goes past the deadline", 10 * time.Minute, 2 * time.Hour, deadline, 59 * time.Minute, time.Hour},
		{"they have brought it forward", 30 * time.Minute, 10 * time.Minute, deadline.Add(-time.Hour + time.Minute), 0, time.Minute},
	} {
		base := row.Row{Present: true, User: "alice", Data: bytesUntil(deadline), Stamp: row.Stamp{Version: 1, Now: noon, Expiry: noon.Add(time.Hour)}}
		known := live(mine, base)
		current := written(base)
		current.Data, current.Expiry = bytesUntil(tt.current), noon.Add(tt.left)
		f := factsOf(rules.Commit{User: "alice", Keyed: true, Data: bytesUntil(deadline), Session: &known})
		f.TTL = tt.ttl
		if got := read(f, rows{mine: current}).Merge().TTL; got < tt.atLeast || got > tt.atMost {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}

func TestWhatIsToBeMergedMustBeReadable(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	unreadable := func(r row.Row) row.Row { r.Unreadable = broken; return r }
	for _, tt := range []struct {
		what    string
		current row.Row
		left    row.Row
		want    error
	}{
		{"all is", alive("alice"), pending("alice"), nil},
		{"it is not", unreadable(alive("alice")), pending("alice"), broken},
		{"it is over", unreadable(ended(row.Revoked, "alice")), pending("alice"), nil},
		{"what it continues is not", alive("alice"), unreadable(pending("alice")), broken},
		{"that is over", alive("alice"), unreadable(ended(row.Revoked, "alice")), nil},
	} {
		f := rules.Facts{Current: tt.current}
		f.Left = []rules.Left{{Row: tt.left}}
		if got := f.Unreadable(); !errors.Is(got, tt.want) {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}
