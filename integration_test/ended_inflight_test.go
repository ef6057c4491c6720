package integration_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

// A request in flight must not bring its session back, whatever it does meanwhile.
func TestEndedSessionStaysEnded(t *testing.T) {
	t.Parallel()
	endings := []struct {
		name, reason string
		end          func(t *testing.T, a *app, b *browser, token string)
	}{
		{"signed out", "signed_out", func(_ *testing.T, a *app, b *browser, token string) {
			other := a.browser(b.t)
			other.setToken(token)
			other.must("/logout")
		}},
		{"revoked", "revoked", func(t *testing.T, a *app, _ *browser, token string) {
			if ok, err := a.store.Revoke(t.Context(), "alice", pgstore.IDOf(token)); !ok || err != nil {
				t.Errorf("Revoke: %t, %v", ok, err)
			}
		}},
		{"all revoked", "revoked", func(t *testing.T, a *app, _ *browser, _ string) {
			if n, err := a.store.RevokeAll(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("RevokeAll: %d, %v", n, err)
			}
		}},
		{"evicted", "evicted", func(t *testing.T, a *app, _ *browser, _ string) {
			a.browser(t).must("/login", "user", "alice")
		}},
		{"renewed", "renewed", func(t *testing.T, a *app, _ *browser, token string) {
			other := a.browser(t)
			other.setToken(token)
			other.must("/renew")
		}},
		{"timed out", "", func(t *testing.T, a *app, _ *browser, token string) {
			mustExec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE id = $1`, pgstore.IDOf(token))
		}},
	}
	inFlight := []struct{ name, before, after string }{
		{"writes", "", "put"},
		{"renews after", "", "renew"},
		{"renews before", "renew", ""},
		{"changes nothing", "", ""},
	}
	for _, e := range endings {
		for _, f := range inFlight {
			if f.before == "renew" && e.reason != "revoked" {
				continue // the session is over by its own doing: nothing to end
			}
			t.Run(e.name+", "+f.name, func(t *testing.T) {
				bothWays(t, func(t *testing.T, tracked bool) {
					a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
					b := a.browser(t)
					b.must("/login", "user", "alice")
					token := b.token()
					if f.before == "renew" && e.name == "all revoked" {
						endPendingRenewal(t, a, b, tracked)
						return
					}
					if f.before == "renew" {
						return // by id: see TestRevokeStopsAPendingRenewal
					}
					finish := b.hold("before", f.before, "after", f.after)
					e.end(t, a, b, token)
					status, body := finish()
					if status != 200 {
						t.Fatalf("the request in flight got %d %s", status, body)
					}
					if tracked && f.after != "" { // one that changes nothing does not ask
						if want := map[bool]string{true: "state=expired", false: "state=ended reason=" + e.reason}[e.reason == ""]; !strings.Contains(body, want) {
							t.Errorf("it was told %q, want %q", body, want)
						}
					}
					stays(t, a, token)
					stays(t, a, b.token())
					if (f.after != "" || !tracked) && a.store.Stat().Dropped() == 0 {
						t.Error("the dropped write was not counted")
					}
				})
			})
		}
	}
}

// stays checks that the token opens nothing.
func stays(t *testing.T, a *app, token string) {
	t.Helper()
	if _, found, err := a.store.Find(token); found || err != nil {
		t.Errorf("the session is back: found %t, %v", found, err)
	}
}

func endPendingRenewal(t *testing.T, a *app, b *browser, _ bool) {
	finish := b.hold("before", "renew")
	if _, err := a.store.RevokeAll(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if status, body := finish(); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	stays(t, a, b.token())
	if n := live(t, a.pool, "alice"); n != 0 {
		t.Errorf("%d sessions live after RevokeAll", n)
	}
}

func TestRevokeStopsAPendingRenewal(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, tracked bool) {
		a := newApp(t, migrated(t), pgstore.Config{}, tracked)
		b := a.browser(t)
		b.must("/login", "user", "alice")
		id := pgstore.IDOf(b.token())
		finish := b.hold("before", "renew")
		if _, err := a.store.Revoke(t.Context(), "alice", id); err != nil {
			t.Error(err)
		}
		finish()
		if n := live(t, a.pool, "alice"); n != 0 {
			t.Errorf("%d sessions live", n)
		}
	})
}

// A tracked request does not recreate a session whose tombstone is gone.
func TestSweptSessionStaysGone(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"put", "renew", ""} {
		t.Run("then "+after, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{}, true)
			b := a.browser(t)
			b.must("/login", "user", "alice")
			finish := b.hold("after", after)
			mustExec(t, a.pool, `DELETE FROM scs_sessions`)
			mustExec(t, a.pool, `DELETE FROM scs_user_sessions`)
			if status, body := finish(); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			if n := query[int](t, a.pool, `SELECT count(*) FROM scs_sessions`); n != 0 {
				t.Errorf("%d rows are back", n)
			}
		})
	}
}

// A request that began as one user must not write into another's session.
func TestUserSwitchDropsTheOldUsersWrite(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	finish := b.hold("after", "put")
	other := a.browser(t)
	other.setToken(b.token())
	other.must("/put", "key", userKey, "value", "bob") // on the same token
	if _, body := finish(); !strings.Contains(body, "state=ended") {
		t.Errorf("it was told %q", body)
	}
	if got := other.must("/me"); got != "user=bob state=active reason= keys=userID" {
		t.Errorf("bob's session: %s", got)
	}
}

func TestStatusOfTellsWhyTheSessionEnded(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2}, true)
	first, second := a.browser(t), a.browser(t)
	if got := first.must("/me"); got != "user= state=none reason= keys=" {
		t.Errorf("without a cookie: %s", got)
	}
	first.must("/login", "user", "alice")
	second.must("/login", "user", "alice")
	a.browser(t).must("/login", "user", "alice")
	if got := first.must("/me"); !strings.Contains(got, "state=ended reason=evicted") {
		t.Errorf("evicted: %s", got)
	}
	token := second.token()
	second.must("/logout")
	second.setToken(token)
	if got := second.must("/me"); !strings.Contains(got, "state=ended reason=signed_out") {
		t.Errorf("signed out: %s", got)
	}
	third := a.browser(t)
	third.must("/login", "user", "bob")
	mustExec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE user_id = 'bob'`)
	if got := third.must("/me"); !strings.Contains(got, "state=expired reason= ") {
		t.Errorf("timed out: %s", got)
	}
}
