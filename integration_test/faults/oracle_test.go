package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// tale writes a history for the oracle: each request takes a second, and begins a second
// after the one before.
type tale struct {
	at     time.Time
	events []event
	rows   []row
}

func newTale() *tale { return &tale{at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (w *tale) add(e event) *tale {
	e.start, e.end = w.at.Add(time.Second), w.at.Add(2*time.Second)
	w.at = e.end
	if e.user == "" {
		e.user = "u"
	}
	w.events = append(w.events, e)
	return w
}

// in signs session n of u in; its token is "n/0".
func (w *tale) in(n int, o outcome) *tale {
	e := event{kind: signIn, session: n, outcome: o}
	if o == acked {
		e.token = fmt.Sprintf("%d/0", n)
	}
	return w.add(e)
}

func (w *tale) do(n int, k kind, o outcome, reason string) *tale {
	return w.add(event{kind: k, session: n, outcome: o, sent: fmt.Sprintf("%d/0", n), reason: reason})
}

func (w *tale) renewed(n int) *tale {
	return w.add(event{kind: renew, session: n, outcome: acked, sent: fmt.Sprintf("%d/0", n), token: fmt.Sprintf("%d/1", n)})
}

// put writes in session 1.
func (w *tale) put(value string, o outcome) *tale {
	return w.add(event{kind: put, session: 1, outcome: o, sent: "1/0", key: "k", value: value})
}

// got reads what is in session 1.
func (w *tale) got(token, value string) *tale {
	return w.add(event{kind: get, session: 1, outcome: acked, sent: token, seenUser: "u", seen: map[string]string{"k": value}})
}

// row is one in the end; alive without a reason.
func (w *tale) row(token, reason string) *tale {
	w.rows = append(w.rows, row{id: token, user: "u", alive: reason == "", reason: reason})
	return w
}

func TestOracleFinds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tale                *tale
		lost, revived, over int
	}{
		"nothing where nothing is wrong": {tale: newTale().in(1, acked).put("a", acked).got("1/0", "a").
			do(1, signOut, acked, "").do(1, probe, denied, "signed_out").row("1/0", "signed_out")},
		"a write that is not there": {tale: newTale().in(1, acked).put("a", acked).got("1/0", "").row("1/0", ""), lost: 1},
		"a write that an older one has replaced": {tale: newTale().in(1, acked).put("a", failed).put("b", acked).
			got("1/0", "a").row("1/0", ""), lost: 1},
		"nothing in a failed write that is there, or not": {tale: newTale().in(1, acked).put("a", acked).put("b", failed).
			got("1/0", "a").got("1/0", "b").row("1/0", "")},
		"a failed write in the place of another value": {tale: newTale().in(1, acked).put("b", failed).got("1/0", "c").row("1/0", ""), lost: 1},
		"a sign-in that is not there":                  {tale: newTale().in(1, acked).do(1, get, denied, "none"), lost: 2},
		"a sign-in whose row is gone":                  {tale: newTale().in(1, acked), lost: 1},
		"a session that is another user's": {tale: newTale().in(1, acked).add(event{kind: get, session: 1, outcome: acked, sent: "1/0", seenUser: "v"}).
			row("1/0", ""), lost: 1},
		"an eviction that nobody needed": {tale: newTale().in(1, acked).in(2, acked).do(1, get, denied, "evicted").
			row("1/0", "evicted").row("2/0", ""), lost: 1},
		"an eviction unseen by its client": {tale: newTale().in(1, acked).in(2, acked).row("1/0", "evicted").row("2/0", ""), lost: 1},
		"an eviction for one whose place was free": {tale: newTale().in(1, acked).in(2, acked).do(2, signOut, acked, "").in(3, acked).
			do(1, get, denied, "evicted").row("1/0", "evicted").row("2/0", "signed_out").row("3/0", ""), lost: 1},
		"nothing in an eviction by the third sign-in": {tale: newTale().in(1, acked).in(2, acked).in(3, acked).
			do(1, get, denied, "evicted").row("1/0", "evicted").row("2/0", "").row("3/0", "")},
		"nothing in an eviction by one that failed": {tale: newTale().in(1, acked).in(2, acked).in(3, failed).
			do(1, get, denied, "evicted").row("1/0", "evicted").row("2/0", "")},
		"nothing in an eviction by a renewal": {tale: newTale().in(2, acked).in(1, acked).in(3, acked).renewed(2).
			do(1, get, denied, "evicted").row("1/0", "evicted").row("2/1", "").row("3/0", "")},
		"an end that nobody asked for": {tale: newTale().in(1, acked).do(1, get, denied, "signed_out").row("1/0", "signed_out"), lost: 1},
		"nothing in a failed sign-out": {tale: newTale().in(1, acked).do(1, signOut, failed, "").do(1, get, denied, "signed_out").row("1/0", "signed_out")},
		"nothing in a failed renewal":  {tale: newTale().in(1, acked).do(1, renew, failed, "").do(1, get, denied, "renewed").row("1/0", "renewed").row("?", "")},
		"a sign-out that was undone":   {tale: newTale().in(1, acked).do(1, signOut, acked, "").got("1/0", "").row("1/0", "signed_out"), revived: 1},
		"a sign-out that is not there in the end": {tale: newTale().in(1, acked).do(1, signOut, acked, "").row("1/0", ""),
			revived: 1, over: 1},
		"an evicted session that is back": {tale: newTale().in(1, acked).in(2, acked).in(3, acked).do(1, get, denied, "evicted").
			got("1/0", "").row("1/0", "evicted").row("2/0", "").row("3/0", ""), revived: 1},
		"a token that was renewed away and answers": {tale: newTale().in(1, acked).renewed(1).do(1, probe, acked, "").row("1/1", ""), revived: 1},
		"nothing in a probe of it":                  {tale: newTale().in(1, acked).renewed(1).do(1, probe, denied, "renewed").got("1/1", "").row("1/1", "")},
		"a revoked session that answers": {tale: newTale().in(1, acked).in(2, acked).do(2, revoke, acked, "").got("1/0", "").
			row("1/0", "revoked").row("2/0", ""), revived: 1},
		"nothing in a revocation": {tale: newTale().in(1, acked).in(2, acked).do(2, revoke, acked, "").do(1, get, denied, "revoked").
			row("1/0", "revoked").row("2/0", "")},
		"a revocation by nobody":                    {tale: newTale().in(1, acked).in(2, acked).do(1, get, denied, "revoked").row("1/0", "revoked").row("2/0", ""), lost: 1},
		"a surplus session":                         {tale: newTale().in(1, acked).in(2, acked).in(3, acked).row("1/0", "").row("2/0", "").row("3/0", ""), over: 1},
		"a session of nobody's":                     {tale: newTale().in(1, acked).row("1/0", "").row("?", ""), over: 1},
		"nothing in what a failed sign-in has left": {tale: newTale().in(1, acked).in(2, failed).row("1/0", "").row("?", "")},
		"a refused sign-in that lives":              {tale: newTale().in(1, acked).in(2, denied).row("1/0", "").row("?", ""), over: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := judge(c.tale.events, c.tale.rows, func(token string) string { return token }, 2)
			if len(v.lost) != c.lost || len(v.revived) != c.revived || len(v.over) != c.over {
				t.Errorf("lost %d, revived %d, over %d; want %d, %d, %d\n%s", len(v.lost), len(v.revived), len(v.over),
					c.lost, c.revived, c.over, strings.Join(append(append(v.lost, v.revived...), v.over...), "\n"))
			}
		})
	}
}
