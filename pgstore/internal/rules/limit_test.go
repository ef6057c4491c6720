package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// other is a session of the user, so many minutes old and last seen so many minutes ago.
func other(n byte, age, seen int) row.UserSession {
	ago := func(minutes int) time.Time { return noon.Add(-time.Duration(minutes) * time.Minute) }
	return row.UserSession{ID: id(n), CreatedAt: ago(age), LastSeen: ago(seen), Expiry: noon.Add(time.Hour)}
}

func expiringAt(at time.Time, s row.UserSession) row.UserSession {
	s.Expiry = at
	return s
}

func gone(s row.UserSession) row.UserSession {
	s.Gone = true
	return s
}

func unsettled(s row.UserSession) row.UserSession {
	s.Unsettled = true
	return s
}

func waiting(s row.UserSession) row.UserSession {
	s.Pending = true
	return s
}

// ends says what a verdict does to other sessions: "evicts [2 3] timed out [4] stale [5]".
func ends(v rules.Verdict) string {
	switch v.Outcome {
	case rules.Refused:
		return "refused"
	case rules.Unsettled:
		return "unsettled"
	}
	var text []string
	for _, l := range []struct {
		what string
		ids  []pgtype.UUID
	}{{"evicts", v.Evict}, {"timed out", v.TimedOut}, {"stale", v.Stale}} {
		if len(l.ids) > 0 {
			numbers := make([]byte, len(l.ids))
			for i, id := range l.ids {
				numbers[i] = number(id)
			}
			text = append(text, fmt.Sprintf("%s %d", l.what, numbers))
		}
	}
	return strings.Join(text, " ")
}

// The limit is strict: as many go as are needed, and no more.
func TestLimitMakesRoomByPolicy(t *testing.T) {
	t.Parallel()
	three := []row.UserSession{other(3, 10, 1), other(1, 30, 2), other(2, 20, 3)}
	equals := []row.UserSession{other(3, 5, 5), other(1, 5, 5), other(2, 5, 5)}
	signIn, renewal := signInFor("alice"), commitFor("alice", renewed(8, "alice"))
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		limit  int
		policy rules.Policy
		others []row.UserSession
		want   string
	}{
		{"no limit", signIn, 0, rules.EvictOldest, nil, ""},
		{"there is room", signIn, 4, rules.EvictOldest, three, ""},
		{"there is room", signIn, 4, rules.EvictLeastRecent, three, ""},
		{"there is room", signIn, 4, rules.Reject, three, ""},
		{"at the limit", signIn, 3, rules.EvictOldest, three, "evicts [1]"},
		{"at the limit", signIn, 3, rules.EvictLeastRecent, three, "evicts [2]"},
		{"at the limit", signIn, 3, rules.Reject, three, "refused"},
		{"over it", signIn, 1, rules.EvictOldest, three, "evicts [1 2 3]"},
		{"over it", signIn, 2, rules.EvictLeastRecent, three, "evicts [2 1]"},
		{"all alike: by id", signIn, 2, rules.EvictOldest, equals, "evicts [1 2]"},
		{"all alike: by id", signIn, 2, rules.EvictLeastRecent, equals, "evicts [1 2]"},

		// A renewal had its place before: it keeps to the limit, but is never refused.
		{"a renewal with room", renewal, 4, rules.Reject, three, ""},
		{"a renewal at the limit", renewal, 3, rules.EvictOldest, three, "evicts [1]"},
		{"a renewal at the limit", renewal, 3, rules.EvictLeastRecent, three, "evicts [2]"},
		{"a renewal at the limit: the newcomer goes", renewal, 3, rules.Reject, three, "evicts [3]"},
		{"a renewal over it: the newcomers go", renewal, 1, rules.Reject, equals, "evicts [3 2 1]"},
	} {
		f := read(factsOf(tt.commit), rows{8: pending("alice")})
		f.Limit, f.Policy, f.Others = tt.limit, tt.policy, append([]row.UserSession(nil), tt.others...)
		if got := ends(f.Verdict()); got != tt.want {
			t.Errorf("%s, limit %d, policy %d: %q, want %q", tt.what, tt.limit, tt.policy, got, tt.want)
		}
	}
}

func TestWhatCountsAgainstTheLimit(t *testing.T) {
	t.Parallel()
	live := other(1, 10, 10)
	for _, tt := range []struct {
		what   string
		others []row.UserSession
		want   string
	}{
		{"a live one", []row.UserSession{live}, "evicts [1]"},
		{"one that is gone", []row.UserSession{gone(live)}, "stale [1]"},
		{"one that has not settled for long", []row.UserSession{unsettled(live)}, "stale [1]"},
		// By the clock that is read last: it may have timed out while this one waited.
		{"one that expires later", []row.UserSession{expiringAt(noon.Add(1), live)}, "evicts [1]"},
		{"one that expires now", []row.UserSession{expiringAt(noon, live)}, "timed out [1]"},
		{"one that has expired", []row.UserSession{expiringAt(noon.Add(-1), live)}, "timed out [1]"},
		{"one that is being renewed", []row.UserSession{waiting(live)}, ""},
		{"one that is being renewed, and has expired", []row.UserSession{waiting(expiringAt(noon, live))}, ""},
		{"the committed one", []row.UserSession{other(mine, 10, 10)}, ""},
		{"the committed one, by an index row that was left", []row.UserSession{gone(other(mine, 10, 10))}, ""},
		{"all of them", []row.UserSession{gone(other(2, 1, 1)), live, expiringAt(noon, other(3, 1, 1)), waiting(other(4, 1, 1)), other(mine, 1, 1)},
			"evicts [1] timed out [3] stale [2]"},
	} {
		f := read(factsOf(signInFor("alice")), nil)
		f.Limit, f.Others = 1, tt.others
		if got := ends(f.Verdict()); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// On Citus a commit becomes visible shard by shard: the user's index has a session that is not
// there yet.
func TestSessionThatIsNotVisibleYetIsLookedForAgainIfItDecides(t *testing.T) {
	t.Parallel()
	missing := unsettled(other(1, 10, 10))
	ofSessions := func(c rules.Commit, limit, tries int, policy rules.Policy, others ...row.UserSession) string {
		f := read(factsOf(c), rows{8: pending("alice")})
		f.Limit, f.Tries, f.Policy, f.Others = limit, tries, policy, others
		return ends(f.Verdict())
	}
	signIn, renewal := signInFor("alice"), commitFor("alice", renewed(8, "alice"))
	for _, tt := range []struct {
		what, got, want string
	}{
		{"at the limit", ofSessions(signIn, 1, 0, rules.EvictOldest, missing), "unsettled"},
		{"at the limit, a renewal", ofSessions(renewal, 1, 0, rules.EvictLeastRecent, missing), "unsettled"},
		{"at the limit, to be refused", ofSessions(signIn, 1, 0, rules.Reject, missing), "unsettled"},
		{"beside a live one", ofSessions(signIn, 2, 0, rules.EvictOldest, other(2, 1, 1), missing), "unsettled"},
		{"the last time", ofSessions(signIn, 1, rules.Patience-1, rules.EvictOldest, missing), "unsettled"},
		{"after that", ofSessions(signIn, 1, rules.Patience, rules.EvictOldest, missing), "stale [1]"},
		{"after that, to be refused", ofSessions(signIn, 1, rules.Patience, rules.Reject, missing, other(2, 1, 1)), "refused"},
		// Alive or not, there is room.
		{"below the limit", ofSessions(signIn, 2, 0, rules.Reject, missing), ""},
		{"below the limit, beside one that is gone", ofSessions(signIn, 2, 0, rules.Reject, missing, gone(other(2, 1, 1))), "stale [2]"},
		// What has ended does not come back.
		{"ended", ofSessions(signIn, 1, 0, rules.EvictOldest, gone(other(1, 10, 10))), "stale [1]"},
		{"the committed one", ofSessions(signIn, 1, 0, rules.EvictOldest, unsettled(other(mine, 1, 1))), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

func TestSessionThatIsTakenOverDoesNotCount(t *testing.T) {
	t.Parallel()
	table := rows{1: renewedTo(2, "alice"), 2: alive("alice")}
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		want   string
	}{
		{"a renewal", commitFor("alice", renewed(1, "alice")), ""},
		{"a sign-in", signInFor("alice", renewed(1, "alice")), ""},
		{"another browser's", signInFor("alice"), "evicts [2] stale [1]"},
		{"a sign-in that has not seen it alive", signInFor("alice", renewedUnseen()), ""},
		{"one that may not follow", commitFor("alice", renewedUnseen()), "evicts [2] stale [1]"},
	} {
		f := read(factsOf(tt.commit), table)
		f.Limit, f.Policy, f.Others = 1, rules.EvictOldest, []row.UserSession{gone(other(1, 20, 20)), other(2, 10, 10)}
		if tt.want == "" {
			f.Policy, f.Others = rules.Reject, f.Others[1:]
		}
		if got := ends(f.Verdict()); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// A session of the user's that is written again needs no room; nor does one that is over
// as it begins. What has gone leaves the index all the same.
func TestWhatNeedsNoRoom(t *testing.T) {
	t.Parallel()
	known := live(mine, alive(""))
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		ttl    time.Duration
		table  rows
		want   string
	}{
		{"a session of hers", commitFor("alice"), time.Hour, rows{mine: alive("alice")}, "timed out [2]"},
		{"one that is over as it begins", commitFor("alice"), 0, nil, "timed out [2]"},
		{"one that lasts a nanosecond", commitFor("alice"), 1, nil, "evicts [1] timed out [2]"},
		{"one that is over, in place of an anonymous one", rules.Commit{User: "alice", Data: data("alice"), Session: &known}, 0,
			rows{mine: alive("")}, "timed out [2]"},
	} {
		f := read(factsOf(tt.commit), tt.table)
		f.TTL, f.Limit, f.Others = tt.ttl, 1, []row.UserSession{other(1, 1, 1), expiringAt(noon, other(2, 1, 1))}
		if got := ends(f.Verdict()); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// A commit that would be over as it begins lives if it takes in a longer life: then it
// needs its room like any other.
func TestSessionThatLivesByWhatItTakesInNeedsRoom(t *testing.T) {
	t.Parallel()
	left := renewed(1, "", "cart=1")
	changed := pending("", "cart=2")
	changed.Version++
	known := live(mine, alive("", "cart=1"))
	inPlace := alive("", "cart=2")
	inPlace.Version++
	inPlaceCommit := commitFor("alice")
	inPlaceCommit.Session = &known
	for _, tt := range []struct {
		commit rules.Commit
		table  rows
	}{
		{commitFor("alice", left), rows{1: changed}},
		{commitFor("alice", []request.Session{renewed(1, "alice")}...), rows{1: renewedTo(2, "alice"), 2: alive("alice", "cart=2")}},
		{inPlaceCommit, rows{mine: inPlace}},
	} {
		tt.commit.Data = data("alice", "cart=1")
		f := read(factsOf(tt.commit), tt.table)
		f.TTL, f.Limit, f.Others = 0, 1, []row.UserSession{other(3, 1, 1)}
		if got := ends(f.Verdict()); f.Merge().TTL <= 0 || got != "evicts [3]" {
			t.Errorf("lives for %v, %q", f.Merge().TTL, got)
		}
	}
}

// Trim takes the sessions of a user with very many page by page: what is kept of one page
// competes with the next.
func TestTrimEndsWhatIsBeyondTheLimitOfEachPart(t *testing.T) {
	t.Parallel()
	pages := [][]row.UserSession{
		{other(1, 10, 1), other(2, 40, 2), gone(other(3, 1, 1))},
		{other(4, 30, 3), expiringAt(noon, other(5, 1, 1)), other(6, 20, 4), other(mine, 9, 9)},
	}
	for policy, want := range map[rules.Policy][2]string{
		rules.EvictOldest:      {"stale [3]", "evicts [2 4] timed out [5]"},
		rules.EvictLeastRecent: {"stale [3]", "evicts [6 4] timed out [5]"},
		rules.Reject:           {"stale [3]", "refused"},
	} {
		f := read(factsOf(signInFor("alice")), nil)
		f.Limit, f.Policy = 2, policy
		var kept []row.UserSession
		for i, page := range pages {
			f.Others = append(kept, page...)
			v := f.Trim()
			if kept = v.Stay; ends(v) != want[i] || len(kept) != 2 && v.Outcome == rules.Granted {
				t.Errorf("policy %d, page %d: %q, %d kept, want %q", policy, i, ends(v), len(kept), want[i])
			}
		}
	}
}
