package rules_test

import (
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

// The request has loaded alice's session 1 and called RenewToken; now it commits, as a
// renewal or as a sign-in of alice.
func TestCommitContinuesWhatItsRequestHasRenewed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state           string
		table           rows
		renewal, signIn string
	}{
		{"renewed, no successor", rows{1: pending("alice")}, "in place of 1; 1 renewed", "new; 1 renewed by sign-in"},

		// Two renewals of one session end in one live session, that of the later commit.
		{"renewed, its successor alive", rows{1: renewedTo(2, "alice"), 2: alive("alice")},
			"in place of 2; 2 renewed", "new; 2 renewed by sign-in"},
		{"renewed, its successor renewed", rows{1: renewedTo(2, "alice"), 2: pending("alice")},
			"in place of 2; 2 renewed", "new; 2 renewed by sign-in"},
		{"renewed, and again", rows{1: renewedTo(2, "alice"), 2: renewedTo(3, "alice"), 3: alive("alice")},
			"in place of 3; 3 renewed", "new; 3 renewed by sign-in"},
		// Nobody can have overtaken a session by itself.
		{"renewed to the one that is committed", rows{1: renewedTo(mine, "alice"), mine: alive("alice")}, "in place of 9", "in place of 9"},

		// Ended or expired stays so, also under another token.
		{"signed out", rows{1: ended(row.SignedOut, "alice")}, "dropped: signed_out", "new; 1 signed_out by sign-in"},
		{"revoked", rows{1: ended(row.Revoked, "alice")}, "dropped: revoked", "new; 1 revoked by sign-in"},
		{"evicted", rows{1: ended(row.Evicted, "alice")}, "dropped: evicted", "new; 1 evicted by sign-in"},
		{"timed out", rows{1: ended(row.TimedOut, "alice")}, "dropped: timed_out", "new; 1 timed_out by sign-in"},
		{"past its expiry", rows{1: expired("alice")}, "dropped: timed_out", "new; 1 timed_out by sign-in"},
		{"gone: swept", rows{}, "dropped", "new"},
		{"renewed, its successor signed out", rows{1: renewedTo(2, "alice"), 2: ended(row.SignedOut, "alice")}, "dropped: signed_out", "new; 2 signed_out by sign-in"},
		{"renewed, its successor revoked", rows{1: renewedTo(2, "alice"), 2: ended(row.Revoked, "alice")}, "dropped: revoked", "new; 2 revoked by sign-in"},
		{"renewed, its successor evicted", rows{1: renewedTo(2, "alice"), 2: ended(row.Evicted, "alice")}, "dropped: evicted", "new; 2 evicted by sign-in"},
		{"renewed, its successor timed out", rows{1: renewedTo(2, "alice"), 2: expired("alice")}, "dropped: timed_out", "new; 2 timed_out by sign-in"},
		{"renewed, its successor gone", rows{1: renewedTo(2, "alice")}, "dropped: renewed", "new"},

		// A renewal never crosses a sign-in. A sign-in ends what it finds there.
		{"replaced by a sign-in", rows{1: signedInTo(2, "alice"), 2: alive("alice")}, "dropped: renewed", "new; 2 renewed by sign-in"},
		{"destroyed, then replaced by a sign-in", rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)}), 2: alive("alice")},
			"dropped: signed_out", "new; 2 renewed by sign-in"},
		{"renewed, its successor replaced by a sign-in", rows{1: renewedTo(2, "alice"), 2: signedInTo(3, "alice"), 3: alive("alice")},
			"dropped: renewed", "new; 3 renewed by sign-in"},
		{"replaced by a sign-in, which was renewed", rows{1: signedInTo(2, "alice"), 2: renewedTo(3, "alice"), 3: alive("alice")},
			"dropped: renewed", "new; 3 renewed by sign-in"},

		// Nothing goes on across users.
		{"switched to bob before the renewal", rows{1: pending("bob")}, "dropped: renewed", "new; 1 signed_out by sign-in"},
		{"renewed, its successor bob's by now", rows{1: renewedTo(2, "alice"), 2: alive("bob")}, "dropped: renewed", "new"},
		{"renewed, its successor nobody's by now", rows{1: renewedTo(2, "alice"), 2: alive("")}, "dropped: renewed", "new"},
		{"replaced by bob's sign-in", rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)}), 2: alive("bob")},
			"dropped: signed_out", "new"},
	} {
		if got := told(read(factsOf(commitFor("alice", renewed(1, "alice"))), tt.table)); got != tt.renewal {
			t.Errorf("%s, a renewal: %s, want %s", tt.state, got, tt.renewal)
		}
		if got := told(read(factsOf(signInFor("alice", renewed(1, "alice"))), tt.table)); got != tt.signIn {
			t.Errorf("%s, a sign-in: %s, want %s", tt.state, got, tt.signIn)
		}
	}
}

// The same for other things that a request may have left, and may commit.
func TestWhatCommitsMakeOfWhatWasLeft(t *testing.T) {
	t.Parallel()
	second := renewed(2, "alice")
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		table  rows
		want   string
	}{
		{"alice signs in, nothing left", signInFor("alice"), rows{}, "new"},
		{"an anonymous session goes on", commitFor("", renewed(1, "")), rows{1: pending("")}, "goes on; 1 renewed"},
		{"its renewal is overtaken", commitFor("", renewed(1, "")), rows{1: renewedTo(2, ""), 2: alive("")}, "goes on; 2 renewed"},
		{"its renewal is overtaken, and swept", commitFor("", renewed(1, "")), rows{1: renewedTo(2, "")}, "dropped: renewed"},
		// The victim has signed in on the token that an attacker had planted.
		{"its renewal is overtaken by a sign-in on another token", commitFor("", renewed(1, "")), rows{1: signedInTo(2, ""), 2: alive("alice")},
			"dropped: renewed"},
		{"its renewal is overtaken by a sign-in on its own token", commitFor("", renewed(1, "")), rows{1: pending("alice")}, "dropped: renewed"},

		{"alice signs in on an anonymous session", commitFor("alice", renewed(1, "")), rows{1: pending("")}, "new; 1 renewed by sign-in"},
		{"twice at once", commitFor("alice", renewed(1, "")), rows{1: signedInTo(2, ""), 2: alive("alice")}, "new; 2 renewed by sign-in"},
		// It timed out while she typed her password.
		{"on one that has timed out", commitFor("alice", renewed(1, "")), rows{1: ended(row.TimedOut, "")}, "new; 1 timed_out by sign-in"},

		{"bob signs in on alice's session", signInFor("bob", renewed(1, "alice")), rows{1: pending("alice")}, "new; 1 signed_out by sign-in"},
		{"which was renewed", signInFor("bob", renewed(1, "alice")), rows{1: renewedTo(2, "alice"), 2: alive("alice")}, "new; 2 signed_out by sign-in"},
		{"which bob has signed in on", signInFor("bob", renewed(1, "alice")), rows{1: signedInTo(2, "alice"), 2: alive("bob")}, "new; 2 renewed by sign-in"},
		{"alice becomes nobody under a new token", commitFor("", renewed(1, "alice")), rows{1: pending("alice")}, "new; 1 signed_out by sign-in"},

		// A session that was not loaded is not trusted: it may be anybody's by now.
		{"a renewal unseen", commitFor("alice", renewedUnseen()), rows{1: pending("alice")}, "new; 1 renewed by sign-in"},
		{"a renewal unseen, overtaken", commitFor("alice", renewedUnseen()), rows{1: renewedTo(2, "alice"), 2: alive("alice")}, "new"},

		// Destroy: nothing is continued, but another sign-in in the same browser finds it.
		{"alice signs out and in", signInFor("alice", signedOut(1, "alice")), rows{1: ended(row.SignedOut, "alice")}, "new; 1 signed_out by sign-in"},
		{"twice at once", signInFor("alice", signedOut(1, "alice")), rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)}), 2: alive("alice")},
			"new; 2 renewed by sign-in"},
		{"twice at once, and the other one signed out again", signInFor("alice", signedOut(1, "alice")),
			rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)}), 2: ended(row.SignedOut, "alice")}, "new; 2 signed_out by sign-in"},
		{"twice at once, and the other one swept", signInFor("alice", signedOut(1, "alice")),
			rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)})}, "new"},
		{"a message after the sign-out", commitFor("", signedOut(1, "alice")), rows{1: ended(row.SignedOut, "alice")}, "new"},
		{"revoked before the sign-out", signInFor("alice", signedOut(1, "alice")), rows{1: ended(row.Revoked, "alice")}, "new; 1 revoked by sign-in"},
		// Another request signed out in between: another sign-in finds this one from there.
		{"signed out beside a renewal", signInFor("alice", renewed(1, "alice")), rows{1: ended(row.SignedOut, "alice")}, "new; 1 signed_out by sign-in"},

		{"two left, of one user", commitFor("alice", renewed(1, "alice"), second), rows{1: pending("alice"), 2: pending("alice")},
			"in place of 2; 1 renewed; 2 renewed"},
		{"two left, the second of which is what became of the first", commitFor("alice", renewed(1, "alice"), second),
			rows{1: renewedTo(2, "alice"), 2: pending("alice")}, "in place of 2; 2 renewed"},
		// MergeSession: the anonymous session is taken into that of its user.
		{"two left, one anonymous", commitFor("alice", renewed(1, ""), second), rows{1: pending(""), 2: pending("alice")},
			"in place of 2; 1 renewed by sign-in; 2 renewed"},
		{"two left, one anonymous, on whose successor she has signed in", commitFor("alice", renewed(1, ""), second),
			rows{1: renewedTo(3, ""), 3: alive("alice"), 2: pending("alice")}, "in place of 2; 2 renewed"},
	} {
		if got := told(read(factsOf(tt.commit), tt.table)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// A sign-out that came too late leaves the sign-in that had replaced the session alone, and
// so does what the same request stores afterwards.
func TestLateSignOutLeavesTheNewSignInAlone(t *testing.T) {
	t.Parallel()
	late := signedOut(1, "alice")
	late.LeftAlone = true
	for _, left := range []request.Session{late, renewed(1, "alice")} {
		table := rows{1: linked(row.SignedOut, "alice", row.Link{SignIn: true, To: id(2)}), 2: alive("alice")}
		if got := told(read(factsOf(commitFor("", left)), table)); got != "new" {
			t.Error(got)
		}
	}
}

// On Citus a link may be visible before the session that it leads to.
func TestSuccessorThatIsNotVisibleYetIsLookedForAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		table  rows
		want   string
	}{
		{"a renewal", commitFor("alice", renewed(1, "alice")), rows{1: renewedTo(2, "alice")}, "unsettled"},
		{"of an anonymous one", commitFor("", renewed(1, "")), rows{1: renewedTo(2, "")}, "unsettled"},
		{"a sign-in", signInFor("alice", renewed(1, "alice")), rows{1: signedInTo(2, "alice")}, "unsettled"},
		{"the second link", commitFor("alice", renewed(1, "alice")), rows{1: renewedTo(2, "alice"), 2: renewedTo(3, "alice")}, "unsettled"},
		{"a renewal does not follow a sign-in", commitFor("alice", renewed(1, "alice")), rows{1: signedInTo(2, "alice")}, "dropped: renewed"},
		{"of what the request has left itself, all is visible", commitFor("alice", renewed(1, "alice")), rows{}, "dropped"},
	} {
		f := factsOf(tt.commit)
		f.Tries = 0
		if got := told(read(f, tt.table)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

func TestLinksAreFollowedAtMostEightTimes(t *testing.T) {
	t.Parallel()
	chain := func(links byte) rows {
		table := rows{100 + links: alive("alice"), 1: renewedTo(101, "alice")}
		for n := byte(1); n < links; n++ {
			table[100+n] = renewedTo(101+n, "alice")
		}
		return table
	}
	for links, want := range map[byte]string{8: "in place of 108; 108 renewed", 9: "dropped: renewed"} {
		if got := told(read(factsOf(commitFor("alice", renewed(1, "alice"))), chain(links))); got != want {
			t.Errorf("%d: %s, want %s", links, got, want)
		}
	}
	if got := told(read(factsOf(signInFor("alice", renewed(1, "alice"))), chain(9))); got != "new" {
		t.Errorf("a sign-in: %s", got)
	}
}

// Where the row of the committed token itself is met: a known one that gets a user, or one
// that somebody else has stored.
func TestTheCommittedSessionItself(t *testing.T) {
	t.Parallel()
	known := live(mine, alive(""))
	ofAlice := live(mine, alive("alice"))
	for _, tt := range []struct {
		what  string
		known *request.Session
		user  string
		row   row.Row
		want  string
	}{
		{"an anonymous session gets a user", &known, "alice", alive(""), "new"},
		{"alice's becomes bob's", &ofAlice, "bob", alive("alice"), "new"},
		{"alice's becomes nobody's", &ofAlice, "", alive("alice"), "new"},
		// Ended or expired stays so.
		{"it was signed out", &known, "alice", ended(row.SignedOut, ""), "dropped: signed_out"},
		{"it was revoked", &ofAlice, "bob", ended(row.Revoked, "alice"), "dropped: revoked"},
		{"it was evicted", &ofAlice, "bob", ended(row.Evicted, "alice"), "dropped: evicted"},
		{"it was renewed", &known, "alice", pending(""), "dropped: renewed"},
		{"it has timed out", &known, "alice", expired(""), "dropped: timed_out"},
		{"it was swept", &known, "alice", row.Row{}, "dropped"},
		// Nothing of one user's reaches another.
		{"it is another user's by now", &known, "alice", alive("bob"), "dropped"},
		{"it is this user's by now", &known, "alice", alive("alice"), "dropped"},
		// A token that the request has not loaded, as without Track.
		{"unseen, and there", nil, "alice", alive("alice"), "in place of 9"},
		{"unseen, and nobody's", nil, "alice", alive(""), "new"},
		{"unseen, and another user's", nil, "alice", alive("bob"), "new"},
		{"unseen, and not there", nil, "alice", row.Row{}, "new"},
		{"unseen, and over", nil, "alice", ended(row.Revoked, "alice"), "dropped: revoked"},
		{"unseen, anonymous, and there", nil, "", alive(""), "new"},
	} {
		c := commitFor(tt.user)
		c.Session = tt.known
		if got := told(read(factsOf(c), rows{mine: tt.row})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// Data that says nothing of a user does not take a session out of its user's index.
func TestUnkeyedDataDoesNotTakeASessionFromItsUser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		row  row.Row
		want string
	}{
		{alive("alice"), "unkeyed"}, {alive(""), "new"}, {row.Row{}, "new"}, {ended(row.Revoked, "alice"), "dropped: revoked"},
	} {
		if got := told(read(factsOf(rules.Commit{Data: unkeyed("k=v")}), rows{mine: tt.row})); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.row, got, tt.want)
		}
	}
}

// A write whose answer was lost is repeated only if the row shows that it was not applied.
func TestAttemptWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	sent := data("alice", "n=1")
	holds := func(version int64, user string, data []byte) row.Row {
		r := alive(user)
		r.Version, r.Data = version, data
		return r
	}
	for _, tt := range []struct {
		what string
		over int64
		sent []byte
		row  row.Row
		want string
	}{
		{"none", 0, nil, row.Row{}, "new"},
		{"an insert, not applied", 0, sent, row.Row{}, "new"},
		{"an insert, applied", 0, sent, holds(1, "alice", sent), "done"},
		{"an insert, applied and written over", 0, sent, holds(2, "alice", sent), "in doubt"},
		{"an insert, and another's is there", 0, sent, holds(1, "alice", data("alice", "n=2")), "in place of 9"},
		{"an update, not applied", 4, sent, holds(4, "alice", data("alice")), "in place of 9"},
		{"an update, applied", 4, sent, holds(5, "alice", sent), "done"},
		{"an update, and another's came first", 4, sent, holds(5, "alice", data("alice", "n=2")), "in place of 9"},
		{"an update, and a change of user came first", 4, sent, holds(5, "bob", sent), "new"},
		{"an update, applied and written over", 4, sent, holds(6, "alice", sent), "in doubt"},
		{"an update, and the row is gone", 4, sent, row.Row{}, "in doubt"},
		{"applied, and then ended", 0, sent, ended(row.Revoked, "alice"), "dropped: revoked"},
	} {
		f := factsOf(commitFor("alice"))
		f.Sent, f.SentOver = tt.sent, tt.over
		if got := told(read(f, rows{mine: tt.row})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// The user's fence drops what began before it, and lets the rest pass.
func TestFence(t *testing.T) {
	t.Parallel()
	deletedAt := func(at time.Time, s request.Session) request.Session {
		s.DeletedAt = at
		return s
	}
	own := rows{1: pending("alice")}
	overtaken := rows{1: renewedTo(2, "alice"), 2: alive("alice")}
	began := noon.Add(-time.Minute) // by the database's clock, at the earliest
	byKey := live(1, alive(""))     // loaded before the store indexed users
	byKey.Base, byKey.Phase, byKey.Reason = unkeyed("userID=alice"), request.Renewing, row.Renewed
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		table  rows
		fence  time.Time
		want   string
	}{
		{"a sign-in, begun after", signInFor("alice"), nil, began.Add(-1), "new"},
		{"a sign-in, in doubt", signInFor("alice"), nil, began, "dropped: revoked"},
		{"a sign-in, begun before", signInFor("alice"), nil, began.Add(1), "dropped: revoked"},
		{"a sign-in, no fence", signInFor("alice"), nil, time.Time{}, "new"},
		{"a sign-in through Put, begun after", commitFor("alice", renewed(1, "")), rows{1: pending("")}, began.Add(-1), "new; 1 renewed by sign-in"},
		{"a sign-in through Put, begun before", commitFor("alice", renewed(1, "")), rows{1: pending("")}, began.Add(1), "dropped: revoked"},
		{"nobody's has no fence", commitFor("", renewed(1, "")), rows{1: pending("")}, noon, "goes on; 1 renewed"},

		// What is renewed was alive when it was deleted, whenever its request began.
		{"a renewal, deleted after", commitFor("alice", deletedAt(noon.Add(1), renewed(1, "alice"))), own, noon, "in place of 1; 1 renewed"},
		{"a renewal, deleted at the same time", commitFor("alice", renewed(1, "alice")), own, noon, "dropped: revoked"},
		{"a renewal, deleted before", commitFor("alice", deletedAt(noon.Add(-1), renewed(1, "alice"))), own, noon, "dropped: revoked"},
		// An app that has raised a privilege renews first, then calls RevokeOthers.
		{"a renewal along a link, begun after", commitFor("alice", renewed(1, "alice")), overtaken, began.Add(-1), "in place of 2; 2 renewed"},
		{"a renewal along a link, begun before, though deleted after", commitFor("alice", deletedAt(noon, renewed(1, "alice"))), overtaken, began.Add(1),
			"dropped: revoked"},

		{"the same of a session that names her", commitFor("alice", renewed(1, "alice", "userID=alice")), overtaken, began.Add(-1), "in place of 2; 2 renewed"},

		// A session that held its user before the store indexed it passes no fence at all.
		{"held before, renewed", commitFor("alice", byKey), rows{1: pending("")}, began.Add(-time.Hour), "dropped: revoked"},
		{"held before, and signed in on", signInFor("alice", byKey), rows{1: pending("")}, began.Add(-time.Hour), "new; 1 renewed by sign-in"},
		{"held before, by another user", commitFor("bob", byKey), rows{1: pending("")}, began.Add(-time.Hour), "new; 1 renewed by sign-in"},
	} {
		f := read(factsOf(tt.commit), tt.table)
		f.Fence = tt.fence
		if got := told(f); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
		if f.Exempt = func(fence time.Time) bool { return fence.Equal(tt.fence) }; tt.want == "dropped: revoked" && f.Verdict().Outcome != rules.Granted {
			t.Errorf("%s: its own fence drops it", tt.what)
		}
	}
}

func TestFenceForTheSessionThatGetsAUserInPlace(t *testing.T) {
	t.Parallel()
	fence := noon.Add(-time.Hour)
	for _, tt := range []struct {
		what    string
		base    []byte
		user    string
		tracked bool
		want    string
	}{
		{"a visitor's", data("", "cart=1"), "", true, "new"},
		{"one that held its user before", unkeyed("userID=alice"), "", true, "dropped: revoked"},
		{"another user's that names this one", data("bob", "friend=alice"), "bob", true, "new"},
		{"one of another codec", []byte("not a frame"), "", true, "new"},
		{"without Track nobody knows", unkeyed("userID=alice"), "", false, "new"},
	} {
		known := live(mine, alive(tt.user))
		known.Base = tt.base
		c := commitFor("alice")
		c.Session = &known
		f := read(factsOf(c), rows{mine: alive(tt.user)})
		f.Fence = fence
		if !tt.tracked {
			f.Began = time.Time{}
		}
		if got := told(f); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// A label stays where the user's values do: as long as the session, or what it continues, is
// the user's.
func TestLabelStaysWithItsUser(t *testing.T) {
	t.Parallel()
	known := live(mine, alive("alice"))
	own, anonymous := commitFor("alice"), signInFor("alice", renewed(1, ""))
	own.Session = &known
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		table  rows
		want   string
	}{
		{"a new session", signInFor("alice"), rows{}, ""},
		{"a session of hers", own, rows{mine: alive("alice")}, "device 9"},
		{"a renewal", commitFor("alice", renewed(1, "alice")), rows{1: pending("alice")}, "device 1"},
		{"a renewal that was overtaken", commitFor("alice", renewed(1, "alice")), rows{1: renewedTo(2, "alice"), 2: alive("alice")}, "device 2"},
		{"a sign-in in the same browser", signInFor("alice", renewed(1, "alice")), rows{1: pending("alice")}, "device 1"},
		{"a sign-in that was overtaken", signInFor("alice", renewed(1, "alice")), rows{1: signedInTo(2, "alice"), 2: alive("alice")}, "device 2"},
		{"a sign-in on an anonymous session", anonymous, rows{1: pending("")}, ""},
		{"twice at once", anonymous, rows{1: signedInTo(2, ""), 2: alive("alice")}, "device 2"},
		{"a sign-in after a revocation", signInFor("alice", renewed(1, "alice")), rows{1: ended(row.Revoked, "alice")}, ""},
		{"a sign-in after a sign-out", signInFor("alice", signedOut(1, "alice")), rows{1: ended(row.SignedOut, "alice")}, ""},
		{"bob on her session", signInFor("bob", renewed(1, "alice")), rows{1: pending("alice")}, ""},
		{"bob on her session, which he has signed in on", signInFor("bob", renewed(1, "alice")), rows{1: signedInTo(2, "alice"), 2: alive("bob")}, ""},
		{"her renewal of what is bob's by now", signInFor("alice", renewed(1, "alice")), rows{1: pending("bob")}, ""},
	} {
		if got := read(factsOf(tt.commit), tt.table).Keeps().Label; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// An index row that the session has left behind, when it was alice's before, is not its age.
func TestAgeIsThatOfTheUserWhoHasTheSession(t *testing.T) {
	t.Parallel()
	known := live(mine, alive("bob"))
	c := commitFor("alice")
	c.Session = &known
	f := read(factsOf(c), rows{mine: alive("bob")})
	f.Place = row.Place{Since: since(5), Label: "device 5"}
	if got := told(f); got != "new" || f.Keeps().Label != "" {
		t.Error(got, f.Keeps())
	}
}
