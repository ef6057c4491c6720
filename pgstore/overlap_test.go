package pgstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// Three requests of one browser have loaded its session, and then do this or that in any
// order. Whatever it is, the browser is signed in in one session, or in none.
func TestOverlapsOfThreeRequestsEndAsTheyShould(t *testing.T) {
	t.Parallel()
	for _, start := range []string{"anonymous", "signed in"} {
		for _, limit := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, limit %d", start, limit), func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: limit, LimitPolicy: pgstore.Reject})
				rnd := rand.New(rand.NewPCG(uint64(limit), uint64(len(start))))
				for round := range 60 {
					overlapOfThree(t, a, rnd, start == "signed in", fmt.Sprintf("user%d", round))
				}
			})
		}
	}
}

func overlapOfThree(t *testing.T, a *app, rnd *rand.Rand, signedIn bool, user string) {
	ways := [][]action{ // each also puts what is its own
		{wait}, {renew, wait}, {wait, renew}, {renew, wait, renew},
		{wait, signIn(user)}, {renew, wait, signIn(user)}, {destroy, wait, signIn(user)},
		{destroy, wait}, {wait, destroy}, {renew, wait, destroy},
	}
	const signIns, destroys = 4, 7 // where they begin in ways
	browser := a.browser(t)
	if browser.do(put("cart")); signedIn {
		browser.do(signIn(user))
	}
	id := pgstore.IDOf(browser.token())
	requests, picked := make([]*script, 3), make([]int, 3)
	for i := range requests {
		picked[i] = rnd.IntN(len(ways))
		requests[i] = browser.start(slices.Concat([]action{wait, put(fmt.Sprint("own", i))}, ways[picked[i]])...)
	}
	end := []string{"", "evicted", "timed_out", "signed_out"}[max(0, rnd.IntN(8)-4)]
	if end != "" {
		pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET end_reason = $2, data = '' WHERE id = $1`, id, end)
	}
	order := []int{0, 0, 1, 1, 2, 2}
	rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var signedOut, renewed bool
	var lastSignIn, lastRenewal string
	started := map[int]bool{}
	for _, i := range order {
		if !started[i] {
			started[i] = true
			requests[i].goOn()
			continue
		}
		token := requests[i].finish()
		switch way := picked[i]; {
		case way >= destroys:
			signedOut = true
		case way >= signIns:
			lastSignIn = token
		case way > 0:
			renewed, lastRenewal = true, token
		}
	}

	want, what, token := 0, "the last renewal's", lastRenewal
	switch {
	case lastSignIn != "":
		want, what, token = 1, "the last sign-in's", lastSignIn
	case signedIn && end == "" && !signedOut:
		want = 1
	}
	if n := live(t, a.pool, user); n != want {
		t.Errorf("%v in the order %v, ended %q: %d live sessions, want %d", picked, order, end, n, want)
	}
	got := a.opens(t, token)
	if lastSignIn != "" && !strings.HasPrefix(got, user+":") || want == 1 && lastSignIn == "" && renewed && got == "nothing" {
		t.Errorf("%v in the order %v, ended %q: %s opens %q", picked, order, end, what, got)
	}
	for i, way := range picked {
		if lastSignIn == "" && want == 1 && renewed && way > 0 && !strings.Contains(got, fmt.Sprint("own", i)) {
			t.Errorf("%v in the order %v: %s opens %q", picked, order, what, got)
		}
	}
}
