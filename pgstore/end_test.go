package pgstore_test

import (
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// A request in flight must not bring its session back, whatever it does meanwhile.
func TestEndedSessionStaysEnded(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]string{"writes": "put", "changes nothing": ""} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) { endedSessionStaysEnded(t, newApp, after) })
		})
	}
	t.Run("renews", func(t *testing.T) { endedSessionStaysEnded(t, newApp, "renew") })
}

func endedSessionStaysEnded(t *testing.T, newApp newAppFunc, after string) {
	for _, e := range []struct {
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
			pgtest.Exec(t, a.pool, `UPDATE scs_sessions SET expiry = now() WHERE id = $1`, pgstore.IDOf(token))
		}},
	} {
		if after == "renew" && e.name == "renewed" {
			continue // the renewal then continues the other one
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			token := b.token()
			finish := b.hold("after", after)
			e.end(t, a, b, token)
			status, body := finish()
			if status != 200 {
				t.Fatalf("the request in flight got %d %s", status, body)
			}
			if a.tracked && after != "" { // one that changes nothing does not ask
				if want := map[bool]string{true: "state=expired", false: "state=ended reason=" + e.reason}[e.reason == ""]; !strings.Contains(body, want) {
					t.Errorf("it was told %q, want %q", body, want)
				}
			}
			stays(t, a, token)
			stays(t, a, b.token())
			if (after != "" || !a.tracked) && a.store.Stat().Dropped == 0 {
				t.Error("the dropped write was not counted")
			}
		})
	}
}

// stays checks that the token opens nothing.
func stays(t *testing.T, a *app, token string) {
	t.Helper()
	if _, found, err := a.store.Find(token); found || err != nil {
		t.Errorf("the session is back: found %t, %v", found, err)
	}
}
