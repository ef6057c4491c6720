package pgstore_test

import (
	"testing"

	"github.com/scspg/scspg/pgstore"
)

// An attacker has planted the token of an anonymous session, the victim signs in on it.
// A request of the attacker's that had loaded it gets nothing of the victim's.
func TestPlantedTokenLeadsToNoSignIn(t *testing.T) {
	t.Parallel()
	signsIn := []action{signIn("alice"), put("secret")}
	for name, tt := range map[string]struct {
		victim, attacker []action
		stolen, own      string // what the attacker and the victim have in the end
	}{
		"renews":                      {signsIn, []action{wait, renew}, "nothing", "alice: planted secret"},
		"writes and renews":           {signsIn, []action{put("x"), wait, renew}, "nothing", "alice: planted secret"},
		"has renewed before":          {signsIn, []action{renew, wait}, "nothing", "alice: secret"},
		"merges":                      {signsIn, []action{wait, renew, mergeIn("unknown")}, "nothing", "alice: planted secret"},
		"signs in as somebody else":   {signsIn, []action{wait, signIn("mallory")}, "mallory: planted", "alice: planted secret"},
		"signs out and signs in":      {signsIn, []action{wait, destroy, signIn("mallory")}, "mallory:", "alice: planted secret"},
		"renews after a hand-made":    {[]action{renew, set(userKey, "alice"), put("secret")}, []action{wait, renew}, "nothing", "alice: planted secret"},
		"renews after a later change": {[]action{signIn("alice"), put("secret"), renew}, []action{wait, renew}, "nothing", "alice: planted secret"},
		// The app did not renew: whoever has the token may end the session, and no more.
		"renews after one without": {[]action{set(userKey, "alice"), put("secret")}, []action{wait, renew}, "nothing", "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				attacker, victim := a.browser(t), a.browser(t)
				attacker.do(put("planted"))
				victim.setToken(attacker.token())
				s := attacker.start(tt.attacker...)
				own := victim.do(tt.victim...)
				a.expect(t, "the attacker's", s.finish(), tt.stolen)
				a.expect(t, "the victim's", own, tt.own)
			})
		})
	}
}

// Nor does a session of one user's lead to that of the next.
func TestRenewalLeadsToNoOtherUsersSession(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
		for _, next := range []string{"bob", "alice"} { // a sign-in of the same user is one, too
			a := newApp(t, migrated(t), pgstore.Config{})
			browser := a.signedIn(t, "alice")
			b, c := browser.start(put("b"), wait, renew), browser.start(put("c"), wait)
			token := browser.do(signIn(next), put("secret"))
			a.expect(t, "the renewal's", b.finish(), "nothing")
			c.finish()
			a.expect(t, "the sign-in's", token, next+": secret")
			a.expectLive(t, next, 1)
		}
	})
}

// A thief has the session's token and the app raises its privileges after a second factor:
// it renews, notes it, and ends all else. It is the owner's request, or a second click of
// the owner's that overlaps.
var besideASecondFactor = map[string]func(thief, owner *browser) (stolen, raised string){
	"renewed after": func(thief, owner *browser) (string, string) {
		b := thief.start(wait, renew)
		raised := owner.do(renew, revokeOthers, put("raised"))
		return b.finish(), raised
	},
	"renewed before": func(thief, owner *browser) (string, string) {
		o := owner.start(wait, renew, revokeOthers, put("raised"))
		stolen := thief.do(renew)
		return stolen, o.finish()
	},
	"renewed before, committed after": func(thief, owner *browser) (string, string) {
		o, b := owner.start(wait, renew, revokeOthers, put("raised")), thief.start(renew, wait)
		raised := o.finish()
		return b.finish(), raised
	},
	"committed in between": func(thief, owner *browser) (string, string) {
		b := thief.start(wait, renew)
		o := owner.start(renew, wait, revokeOthers, put("raised"))
		stolen := b.finish()
		return stolen, o.finish()
	},
	"committed after the fence": func(thief, owner *browser) (string, string) {
		b := thief.start(wait, renew)
		o := owner.start(renew, revokeOthers, put("raised"), wait)
		stolen := b.finish()
		return stolen, o.finish()
	},
}

func TestRenewalDoesNotPassASecondFactor(t *testing.T) {
	t.Parallel()
	for name, run := range besideASecondFactor {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				owner, thief := a.signedIn(t, "alice"), a.browser(t)
				thief.setToken(owner.token())
				stolen, _ := run(thief, owner)
				a.expect(t, "the thief's", stolen, "nothing")
			})
		})
	}
}

// Two renewals end in one session: that of the request that revoked the others.
func TestSecondFactorBesideARenewalStaysSignedIn(t *testing.T) {
	t.Parallel()
	for name, run := range besideASecondFactor {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{})
			owner, again := a.signedIn(t, "alice"), a.browser(t)
			again.setToken(owner.token())
			_, raised := run(again, owner)
			a.expect(t, "the owner's", raised, "alice: raised")
			a.expectLive(t, "alice", 1)
		})
	}
}
