package rules_test

import (
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
	"github.com/scspg/scspg/pgstore/internal/rules"
)

func TestWayOfACommit(t *testing.T) {
	t.Parallel()
	in := func(phase request.Phase) *request.Session {
		s := live(mine, alive("alice", "k=v"))
		s.Phase = phase
		return &s
	}
	found := in(request.Live)
	anonymous := live(mine, alive("", "k=v"))
	merged := live(mine, alive("alice", "k=v"))
	merged.RowHoldsBase = false
	noKey := live(mine, row.Row{Present: true, User: "alice", Data: unkeyed("k=v")})
	hadOver := live(2, alive("alice"))
	hadOver.Phase, hadOver.Reason = request.Over, row.Revoked
	had := func(c rules.Commit) rules.Commit {
		c.HadOver = &hadOver
		return c
	}
	of := func(s *request.Session, c rules.Commit) rules.Commit {
		c.Session = s
		return c
	}
	with := func(user string, data []byte) rules.Commit { return rules.Commit{User: user, Keyed: true, Data: data} }
	for _, tt := range []struct {
		what   string
		commit rules.Commit
		want   rules.Way
	}{
		// Of a token that was never seen.
		{"a new anonymous session", commitFor(""), rules.Insert},
		{"one after a renewal", commitFor("", renewed(1, "")), rules.SignIn},
		{"one after a sign-out", commitFor("", signedOut(1, "alice")), rules.SignIn},
		{"a new session of a user", commitFor("alice"), rules.SignIn},

		// Of one that the request has found, or stored.
		{"nothing changed", of(found, with("alice", data("alice", "k=v"))), rules.Keep},
		{"nothing changed, in a row with others' changes", of(&merged, with("alice", data("alice", "k=v"))), rules.Keep},
		{"a value changed", of(found, with("alice", data("alice", "k=w"))), rules.Update},
		{"a value changed, in a row with others' changes", of(&merged, with("alice", data("alice", "k=w"))), rules.Merge},
		{"an anonymous session gets a user", of(&anonymous, with("alice", data("alice", "k=v"))), rules.SignIn},
		{"it becomes another user's", of(found, with("bob", data("bob", "k=v"))), rules.SignIn},
		{"it becomes nobody's", of(found, with("", data("", "k=v"))), rules.SignIn},
		// A rolling deploy: an old node, without UserKey, reads what a new one has indexed.
		{"unchanged data that does not say whose it is", of(&noKey, rules.Commit{Data: unkeyed("k=v")}), rules.Keep},
		{"changed data that does not say whose it is", of(&noKey, rules.Commit{Data: unkeyed("k=w")}), rules.SignIn},

		// Ended or expired stays so.
		{"over", of(in(request.Over), commitFor("alice")), rules.Drop},
		{"ended by this request", of(in(request.Closed), commitFor("alice")), rules.Drop},
		{"renewed by this request", of(in(request.Renewing), commitFor("alice")), rules.Drop},
		{"continued by this request", of(in(request.Continued), commitFor("alice")), rules.Drop},

		// A user who came from a session that has ended since is dropped with it, unless the
		// user signs in or was renewed besides.
		{"the user's session has ended: a new token", had(commitFor("alice", renewed(1, ""))), rules.DropWith},
		{"the user's session has ended: an anonymous one gets the user", had(of(&anonymous, commitFor("alice"))), rules.DropWith},
		{"the user's session has ended: SignIn", had(signInFor("alice", renewed(1, ""))), rules.SignIn},
		{"the user's session has ended: another was renewed", had(commitFor("alice", renewed(1, "alice"))), rules.SignIn},
		{"an anonymous session has ended: a new one", had(commitFor("")), rules.Insert},
	} {
		if got := tt.commit.Way(); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.what, got, tt.want)
		}
	}
}

func TestWhichSessionACommitContinues(t *testing.T) {
	t.Parallel()
	type list = []request.Session
	known := live(mine, alive("alice"))
	anonymous := live(mine, alive(""))
	for _, tt := range []struct {
		what    string
		known   *request.Session
		user    string
		signIn  bool
		left    list
		want    int
		renewal bool
	}{
		{"none left", nil, "alice", false, nil, -1, false},
		{"the user's", nil, "alice", false, list{renewed(1, "alice")}, 0, true},
		{"nobody's, for nobody", nil, "", false, list{renewed(1, "")}, 0, true},
		{"nobody's, for a user: a sign-in", nil, "alice", false, list{renewed(1, "")}, 0, false},
		{"another user's", nil, "alice", false, list{renewed(1, "bob")}, -1, false},
		{"a user's, for nobody", nil, "", false, list{renewed(1, "alice")}, -1, false},
		{"a sign-in of the same user", nil, "alice", true, list{renewed(1, "alice")}, 0, false},
		{"one that was not loaded: a sign-in", nil, "alice", false, list{renewedUnseen()}, 0, false},
		{"one signed out", nil, "alice", false, list{signedOut(1, "alice")}, -1, false},
		{"the last of the user", nil, "alice", false, list{renewed(1, "alice"), renewed(2, "alice"), renewed(3, "bob")}, 1, true},
		{"the last of nobody", nil, "alice", false, list{renewed(1, ""), renewed(2, ""), signedOut(3, "")}, 1, false},
		{"the user's rather than nobody's, before it", nil, "alice", false, list{renewed(1, "alice"), renewed(2, "")}, 0, true},
		{"the user's rather than nobody's, after it", nil, "alice", false, list{renewed(1, ""), renewed(2, "alice")}, 1, true},
		{"a known one keeps its user", &known, "alice", false, list{renewed(1, "alice")}, -1, false},
		{"a known one gets a user", &anonymous, "alice", false, list{renewed(1, "alice")}, 0, true},
	} {
		c := rules.Commit{User: tt.user, SignIn: tt.signIn, Session: tt.known, Left: rules.LeftOf(tt.left)}
		if got, renewal := c.Continues(); got != tt.want || renewal != tt.renewal {
			t.Errorf("%s: %d, %t, want %d, %t", tt.what, got, renewal, tt.want, tt.renewal)
		}
	}
}

func TestTouchIsDueOnceEitherTimeWouldMoveByEnough(t *testing.T) {
	t.Parallel()
	const after, idle = time.Minute, time.Hour
	stamp := func(seen, expiry time.Duration) row.Stamp {
		return row.Stamp{LastSeen: noon.Add(-seen), Expiry: noon.Add(expiry), Now: noon}
	}
	for _, tt := range []struct {
		what     string
		latest   row.Stamp
		age, ttl time.Duration
		want     bool
	}{
		{"just seen", stamp(0, idle), 0, idle, false},
		{"seen less than a minute ago", stamp(after-1, idle), 0, idle, false},
		{"seen a minute ago", stamp(after, idle), 0, idle, true},
		{"seen a minute ago, with the time since", stamp(after-time.Second, idle), time.Second, 0, true},
		{"expiry would move by less", stamp(0, idle-after+1), 0, idle, false},
		{"expiry would move by a minute", stamp(0, idle-after), 0, idle, true},
		{"expiry would move by a minute, with the time since", stamp(0, idle-after+time.Second), time.Second, idle, true},
		{"expiry would move back", stamp(0, 2*idle), 0, idle, false},
		{"expiry stays", stamp(0, after/2), 0, 0, false},
	} {
		if got := rules.TouchDue(tt.latest, tt.age, tt.ttl, after); got != tt.want {
			t.Errorf("%s: %t", tt.what, got)
		}
	}
}
