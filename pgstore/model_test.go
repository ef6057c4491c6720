package pgstore_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

var (
	schedules    = flag.Int("schedules", 2000, "random schedules of overlapping requests to check against the model")
	scheduleSeed = flag.Uint64("schedule-seed", 1, "seed of the first of them")
)

// Random schedules of overlapping requests, to two nodes, leave the sessions as a simple
// model of them says. A schedule that does not is cut down to the steps that matter.
func TestSchedulesMatchTheModel(t *testing.T) {
	t.Parallel()
	const workers = 4
	for w := range uint64(workers) {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			n := newNodes(t)
			for i := w; i < uint64(*schedules); i += workers {
				s := randomSchedule(*scheduleSeed + i)
				if err := n.play(t, s); err != nil {
					s, err = shrink(t, n, s, err)
					t.Fatalf("seed %d: %v, after%v", *scheduleSeed+i, err, s)
				}
			}
		})
	}
}

// What schedules have shown to be wrong.
func TestSchedulesThatFailed(t *testing.T) {
	t.Parallel()
	n := newNodes(t)
	load := func(request int) step { return step{request: request, what: "load"} }
	do := func(request int, what string) step { return step{request: request, what: what, key: "a", value: "new"} }
	user := func(request int, what, user string) step {
		return step{request: request, what: what, key: userKey, value: user}
	}
	losing := func(after int, s, during step) step {
		s.lost = &lost{after: after, during: &during}
		return s
	}
	first := step{what: "load", session: -1}
	anonymous, alices := []step{first, do(0, "write")}, []step{first, user(0, "signin", "alice")}
	for name, steps := range map[string][]step{
		"SignIn keeps what follows a Destroy": append(alices, load(2), do(2, "destroy"), do(2, "put"), user(2, "signin", "bob")),
		"a renewal after a dropped commit does not revive what was destroyed": append(anonymous, load(1), load(2), do(2, "destroy"),
			do(1, "write"), do(1, "renew"), do(1, "commit")),
		"a SignIn after a dropped commit ends what another one has made": append(anonymous, load(1), load(2),
			user(2, "signin", "alice"), do(1, "write"), user(1, "signin", "alice")),
		"SignIn over a session whose user was removed": append(alices, load(2), load(3), do(3, "no user"), do(3, "commit"),
			user(2, "signin", "alice")),
		"a revocation repeated, and a sign-in in between": append(alices, load(1),
			losing(0, user(0, "revoke", "alice"), user(1, "signin", "alice"))),
		"RevokeOthers in doubt": append(alices, load(2), load(3),
			losing(2, user(2, "revoke others", "alice"), user(3, "revoke all", "alice"))),
		"Put of a user after Destroy of a revoked session": append(alices, load(1), user(0, "forget", "alice"),
			do(1, "destroy"), user(1, "user", "alice"), do(1, "commit")),
	} {
		if err := n.play(t, schedule{steps: steps}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// shrink takes away what is not needed to fail.
func shrink(t *testing.T, n *nodes, s schedule, err error) (schedule, error) {
	try := func(fewer schedule) bool {
		e := n.play(t, fewer)
		if e != nil {
			s, err = fewer, e
		}
		return e != nil
	}
	for i := 0; i < len(s.steps); {
		fewer := s
		fewer.steps = slices.Delete(slices.Clone(s.steps), i, i+1)
		if try(fewer) {
			i = 0
			continue
		}
		if step := s.steps[i]; step.lost != nil {
			fewer.steps = slices.Clone(s.steps)
			fewer.steps[i].lost = nil
			if !try(fewer) && step.lost.during != nil {
				fewer.steps = slices.Clone(s.steps)
				fewer.steps[i].lost = &lost{after: step.lost.after, changes: step.lost.changes}
				try(fewer)
			}
		}
		i++
	}
	if s.limit > 0 {
		fewer := s
		fewer.limit = 0
		try(fewer)
	}
	return s, err
}

// schedule is what happens, one step after the other.
type schedule struct {
	limit  int
	policy pgstore.LimitPolicy
	steps  []step
}

func (s schedule) String() string {
	var text strings.Builder
	if s.limit > 0 {
		fmt.Fprintf(&text, "\n  limit %d, policy %d", s.limit, s.policy)
	}
	for _, step := range s.steps {
		fmt.Fprintf(&text, "\n  %v", step)
	}
	return text.String()
}

// step is one thing that one request does, or that happens beside the requests. What
// makes no sense in its place is passed over, so that any subset of a schedule is one, too.
type step struct {
	request int // those with an odd number go to the second node
	what    string
	key     string
	value   string
	session int // the one to load, merge, revoke, …: by age
	lost    *lost
}

// lost is an answer that the database gives and the store does not get.
type lost struct {
	after   int   // round trips that change nothing
	changes int   // and after so many that do
	during  *step // is done before the store can try again
}

func (s step) String() string {
	text := s.what
	switch s.what {
	case "load", "merge":
		text = fmt.Sprintf("%s session %d", s.what, s.session)
	case "revoke":
		return fmt.Sprintf("revoke session %d of %s%v", s.session, s.value, s.lost)
	case "expire", "iterate", "iterate destroy", "iterate twice", "iterate user":
		return fmt.Sprintf("%s session %d%v", s.what, s.session, s.lost)
	case "put", "pop", "popped", "remove", "write":
		text = fmt.Sprintf("%s %s %s", s.what, s.key, s.value)
	case "user", "signin", "revoke all", "revoke others", "forget":
		text = fmt.Sprintf("%s %s", s.what, s.value)
	}
	return fmt.Sprintf("request %d: %s%v", s.request, text, s.lost)
}

func (l *lost) String() string {
	switch {
	case l == nil:
		return ""
	case l.during == nil:
		return fmt.Sprintf(", an answer is lost after %d and %d", l.after, l.changes)
	default:
		return fmt.Sprintf(", an answer is lost after %d and %d, then {%v}", l.after, l.changes, *l.during)
	}
}

const maxRequests = 5

var (
	users = []string{"alice", "bob"}
	kinds = []string{"put", "put", "put", "put", "write", "remove", "pop", "clear", "renew", "renew", "renew", "destroy", "destroy",
		"commit", "commit", "commit", "end", "user", "user", "no user", "signin", "signin", "signin", "signin", "merge",
		"revoke", "revoke all", "revoke others", "forget", "expire", "iterate"}
	// What is done while another request's answer is lost, by one step that reaches the database.
	meanwhile = []string{"write", "write", "popped", "commit", "end", "renew", "destroy", "signin", "signin", "revoke", "revoke all"}
)

// inMemory are the steps that do not reach the database.
var inMemory = []string{"put", "remove", "pop", "clear", "user", "no user"}

func randomSchedule(seed uint64) schedule {
	r := rand.New(rand.NewPCG(seed, 0))
	var s schedule
	if r.IntN(3) == 0 {
		s.limit = 1 + r.IntN(2)
		s.policy = pgstore.LimitPolicy(r.IntN(3))
	}
	s.steps = []step{{what: "load", session: -1}, {what: "put", key: "a", value: "start"}, {what: "put", key: "b", value: "start"}}
	if r.IntN(2) == 0 {
		s.steps = append(s.steps, step{what: "signin", value: "alice"})
	}
	s.steps = append(s.steps, step{what: "end"})
	requests := 2 + r.IntN(maxRequests-1)
	late := r.IntN(requests) // so many begin when others have done something
	for i := late; i < requests; i++ {
		s.steps = append(s.steps, step{request: 1 + i, what: "load", session: 0})
	}
	random := func(what string, i int) step {
		s := step{request: 1 + r.IntN(requests), what: what, session: r.IntN(2) * r.IntN(5)}
		s.key, s.value = string(rune('a'+r.IntN(4))), fmt.Sprint("v", i)
		switch what {
		case "user", "signin", "revoke", "revoke all", "revoke others", "forget":
			s.key, s.value = userKey, users[min(r.IntN(3), 1)*r.IntN(2)] // as a rule alice
		case "iterate":
			s.what = []string{"iterate", "iterate", "iterate destroy", "iterate twice", "iterate user"}[r.IntN(5)]
		}
		if what == "revoke all" && r.IntN(2) == 0 {
			s.request = 0 // none
		}
		return s
	}
	for i := range 8 + r.IntN(18) {
		if late > 0 && r.IntN(5) == 0 {
			late--
			s.steps = append(s.steps, step{request: 1 + late, what: "load", session: r.IntN(2) * r.IntN(4)})
		}
		next := random(kinds[r.IntN(len(kinds))], i)
		if !slices.Contains(inMemory, next.what) && r.IntN(12) == 0 {
			next.lost = &lost{after: r.IntN(3), changes: r.IntN(2)}
			if r.IntN(2) == 0 {
				during := random(meanwhile[r.IntN(len(meanwhile))], i+100)
				next.lost.during = &during
			}
		}
		s.steps = append(s.steps, next)
	}
	for i := range requests {
		s.steps = append(s.steps, step{request: 1 + i, what: "end"})
	}
	return s
}

// play plays a schedule on the model and on the store, and compares them.
func (n *nodes) play(t *testing.T, s schedule) error {
	m := n.newModel(t, s)
	defer m.finish()
	for i, step := range s.steps {
		err := m.step(t.Context(), step)
		if err == nil && !slices.Contains(inMemory, step.what) {
			err = m.check(t.Context(), i == len(s.steps)-1)
		}
		if err != nil {
			return fmt.Errorf("step %d, %v: %w", i, step, err)
		}
	}
	return nil
}

// wantError says what the store should have returned, unless it has.
func wantError(got, want error) error {
	if errors.Is(got, want) {
		return nil
	}
	return fmt.Errorf("error %s, want %s", fmt.Sprint(got), fmt.Sprint(want))
}
