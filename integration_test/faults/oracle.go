package faults

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// verdict is what an app's users would complain of, one line each.
type verdict struct {
	lost    []string // an acknowledged write, sign-in or sign-out that is not there
	revived []string // a session that was acknowledged as over and answers as signed in
	over    []string // more live sessions than the limit, or than anybody has asked for
}

// String is what a session's requests were told, a line each.
func (s *story) String() string {
	var b strings.Builder
	for _, e := range s.events {
		outcome := [...]string{failed: "failed", acked: "done", denied: "denied"}[e.outcome]
		fmt.Fprintf(&b, "  %s to %s: %s %s%s %s %s\n", e.start.Format(clock), e.end.Format(clock), e.kind, e.key, e.value, outcome, e.reason)
	}
	return b.String()
}

const clock = "15:04:05.000000"

// never is the end of what failed: the server may yet do it.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// story is what is known of one session. Its requests follow each other, but for writes
// of different keys.
type story struct {
	no     int
	user   string
	in     event // its sign-in
	events []event
	tokens []string  // that it has been given; the last one is current
	over   time.Time // from then on it is known to have ended, by its own requests; zero: not
	// What may have been done, although the request failed.
	mayBeRenewed, mayBeOut bool
}

// done is when an attempt was done at the latest.
func done(e event) time.Time {
	if e.outcome == failed {
		return never
	}
	return e.end
}

// judge compares what the clients were told with what they saw later and with the rows that
// the table has in the end. idOf is the id of a token's row, limit how many live sessions a
// user may have.
//
// A session that is gone is not lost if something explains why: a sign-in or a renewal of
// the same user that needed its place, a revocation, or a sign-out or a renewal of its own
// that failed and yet was carried out. The reason that the store gives says which of them it
// must be. Of each key the last acknowledged value must be there, or that of a later write
// that failed.
func judge(events []event, rows []row, idOf func(token string) string, limit int) verdict {
	o := oracle{limit: limit, stories: map[int]*story{}, byUser: map[string][]*story{}}
	slices.SortStableFunc(events, func(a, b event) int { return a.start.Compare(b.start) })
	for _, e := range events {
		o.sort(e)
	}
	for _, s := range o.stories {
		s.over = s.knownEnd()
	}
	for _, s := range o.stories {
		o.follow(s)
	}
	o.compare(rows, idOf)
	return o.verdict
}

type oracle struct {
	limit    int
	stories  map[int]*story
	byUser   map[string][]*story
	revokers []event // attempts to revoke the others
	verdict
}

func (o *oracle) sort(e event) {
	s := o.stories[e.session]
	if s == nil {
		s = &story{no: e.session, user: e.user, in: e}
		o.stories[e.session] = s
		if e.outcome != denied {
			o.byUser[e.user] = append(o.byUser[e.user], s)
		}
	}
	s.events = append(s.events, e)
	if e.kind == revoke && e.outcome != denied {
		o.revokers = append(o.revokers, e)
	}
}

// knownEnd is when the session's own requests first said that it is over. If it was renewed
// without an answer, it may live on under a token that nobody has.
func (s *story) knownEnd() time.Time {
	for _, e := range s.events {
		if e.kind == signOut && e.outcome == acked || e.isDenial() && e.reason != "renewed" {
			return e.end
		}
	}
	return time.Time{}
}

// isDenial reports whether the session's current token was not signed in.
func (e *event) isDenial() bool { return e.outcome == denied && e.kind != signIn && e.kind != probe }

// follow goes through what a session's requests were told.
func (o *oracle) follow(s *story) {
	may := map[string][]string{} // of each key, what may be read
	ended := map[string]time.Time{}
	gone := false
	for _, e := range s.events {
		if at, ok := ended[e.sent]; ok && e.outcome == acked && (e.kind == get || e.kind == probe) && e.start.After(at) {
			o.revived = append(o.revived, fmt.Sprintf("session %d of %s: a token that was over at %v answered at %v", s.no, s.user, at, e.end))
			continue
		}
		switch {
		case e.isDenial():
			if !gone {
				gone = true
				if why := o.unexplained(s, e.reason, e.end); why != "" {
					o.lost = append(o.lost, why)
				}
			}
			s.end(ended, e.end)
		case e.kind == signIn && e.outcome == acked || e.kind == renew && e.outcome == acked:
			s.end(ended, e.end)
			s.tokens = append(s.tokens, e.token)
		case e.kind == renew && e.outcome == failed:
			s.mayBeRenewed = true
		case e.kind == signOut && e.outcome == acked:
			gone = true
			s.end(ended, e.end)
		case e.kind == signOut && e.outcome == failed:
			s.mayBeOut = true
		case e.kind == put && e.outcome == acked:
			may[e.key] = []string{e.value}
		case e.kind == put && e.outcome == failed:
			if may[e.key] == nil {
				may[e.key] = []string{""}
			}
			may[e.key] = append(may[e.key], e.value)
		case e.kind == get && e.outcome == acked:
			o.read(s, e, may)
		}
	}
	if at, by := o.revoked(s); by != 0 {
		for _, e := range s.events {
			if e.kind == get && e.outcome == acked && e.start.After(at) {
				o.revived = append(o.revived, fmt.Sprintf("session %d of %s answered at %v, after session %d had revoked it", s.no, s.user, e.end, by))
			}
		}
	}
}

// end notes that all tokens so far are over.
func (s *story) end(ended map[string]time.Time, at time.Time) {
	for _, token := range s.tokens {
		if _, known := ended[token]; !known {
			ended[token] = at
		}
	}
}

// read compares what a session holds with what it may.
func (o *oracle) read(s *story, e event, may map[string][]string) {
	if e.seenUser != s.user {
		o.lost = append(o.lost, fmt.Sprintf("session %d of %s is %q's", s.no, s.user, e.seenUser))
	}
	for key, values := range may {
		if !slices.Contains(values, e.seen[key]) {
			o.lost = append(o.lost, fmt.Sprintf("session %d of %s: %s is %q and not one of %q", s.no, s.user, key, e.seen[key], values))
		}
	}
}

// revoked is since when another session's acknowledged revocation has ended this one, and
// whose it was.
func (o *oracle) revoked(s *story) (at time.Time, by int) {
	if s.in.outcome != acked {
		return at, 0
	}
	for _, r := range o.revokers {
		if r.outcome == acked && r.user == s.user && r.session != s.no && s.in.end.Before(r.start) && (by == 0 || r.end.Before(at)) {
			at, by = r.end, r.session
		}
	}
	return at, by
}

// unexplained says that a session should not have ended so by then, or "" if it may have.
func (o *oracle) unexplained(s *story, reason string, by time.Time) string {
	ok := false
	switch reason {
	case "evicted":
		ok = o.mayBeEvicted(s, by)
	case "revoked":
		ok = slices.ContainsFunc(o.revokers, func(r event) bool {
			return r.user == s.user && r.session != s.no && r.start.Before(by) && done(r).After(s.in.start)
		})
	case "signed_out":
		ok = s.mayBeOut
	case "renewed":
		ok = s.mayBeRenewed
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("session %d of %s is gone at %v (%q), and nothing explains why:\n%s", s.no, s.user, by, reason, s)
}

// mayBeEvicted reports whether the limit may have ended the session by then. Who does it is
// another session x that signs in or is renewed, while others, no older than s, fill all
// places but that of x.
func (o *oracle) mayBeEvicted(s *story, by time.Time) bool {
	for _, x := range o.byUser[s.user] {
		if x == s {
			continue
		}
		for _, e := range x.events {
			if e.kind != signIn && e.kind != renew || e.outcome == denied || e.start.After(by) || done(e).Before(s.in.start) {
				continue
			}
			newer := 0
			for _, y := range o.byUser[s.user] {
				if y != s && y != x && !done(y.in).Before(s.in.start) && y.in.start.Before(done(e)) && (y.over.IsZero() || y.over.After(e.start)) {
					newer++
				}
			}
			if newer >= o.limit-1 {
				return true
			}
		}
	}
	return false
}

// compare looks at the rows in the end.
func (o *oracle) compare(rows []row, idOf func(string) string) {
	byID := make(map[string]row, len(rows))
	live := map[string]int{}
	for _, r := range rows {
		byID[r.id] = r
		if r.alive && r.user != "" {
			live[r.user]++
		}
	}
	asked := map[string]int{} // how many may live, of each user
	for _, s := range o.stories {
		if s.in.outcome != denied && s.over.IsZero() {
			asked[s.user]++
		}
		if len(s.tokens) == 0 {
			continue
		}
		r, there := byID[idOf(s.tokens[len(s.tokens)-1])]
		switch {
		case !there:
			o.lost = append(o.lost, fmt.Sprintf("session %d of %s has left no row", s.no, s.user))
		case !s.over.IsZero() && r.alive:
			o.revived = append(o.revived, fmt.Sprintf("session %d of %s was over at %v and has a live row", s.no, s.user, s.over))
		case s.over.IsZero() && !r.alive:
			if why := o.unexplained(s, r.reason, never); why != "" {
				o.lost = append(o.lost, why)
			}
		}
	}
	for user, n := range live {
		if n > o.limit {
			o.over = append(o.over, fmt.Sprintf("%s has %d live sessions in the end", user, n))
		}
		if n > asked[user] {
			o.over = append(o.over, fmt.Sprintf("%s has %d live sessions, and only %d that nobody has seen end", user, n, asked[user]))
		}
	}
}
