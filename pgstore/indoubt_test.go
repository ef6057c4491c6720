package pgstore_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// inDoubt reports whether an answer says that nobody knows whether the write was stored.
func inDoubt(status int, body string) bool {
	return status == http.StatusInternalServerError && strings.Contains(body, "is not known")
}

// lostWrite is a request whose write is stored, or not, while the client cannot know.
type lostWrite struct {
	text  string // of the statement
	begin func(a *app, b *browser) (finish func() (int, string))
	token func(a *app, b *browser) string // of the session that is written
	adds  int                             // to the session's version, if it is stored once
	keys  string                          // as it then holds them
}

// heldPut is a handler's heldPut, in a request that began before what follows.
func heldPut(_ *app, b *browser) func() (int, string) { return b.hold("after", "put") }

func lostWrites() map[string]lostWrite {
	own := func(_ *app, b *browser) string { return b.token() }
	return map[string]lostWrite{
		"write": {"SET data = $2", heldPut, own, 1, "cart,held,userID"},
		"merge": {"COMMIT\x00", func(a *app, b *browser) func() (int, string) {
			finish := heldPut(a, b)
			// A write of somebody else, so that this one has to be merged.
			b.must("/put", "key", "theirs", "value", "yes")
			return finish
		}, own, 1, "cart,held,theirs,userID"},
		"user switch": {"COMMIT\x00", func(_ *app, b *browser) func() (int, string) {
			return b.hold("after", "put-user", "user", "dave")
		}, own, 1, "cart,userID"},
	}
}

// A write whose answer was lost, and which was stored, is not stored again.
func TestLostAnswersWriteIsDoneOnce(t *testing.T) {
	t.Parallel()
	for name, w := range lostWrites() {
		for how, lose := range map[string]func(*losing, string, func()){"answer": (*losing).answer, "statement": (*losing).statement} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 2})
				b := a.browser(t)
				b.must("/put", "key", "cart", "value", "1")
				b.must("/login", "user", "alice")
				finish := w.begin(a, b)
				version := versionOf(t, other, w.token(a, b))
				before := a.store.Stat()
				lose(l, w.text, nil)
				if status, body := finish(); status != http.StatusOK || !l.lost() {
					t.Fatalf("%d %s, lost: %t", status, body, l.lost())
				}
				if got := versionOf(t, other, w.token(a, b)) - version; got != w.adds {
					t.Errorf("the version grew by %d, want %d", got, w.adds)
				}
				if after := a.store.Stat(); after.Writes != before.Writes+1 || after.Retries == before.Retries {
					t.Errorf("%d writes, %d retries", after.Writes-before.Writes, after.Retries-before.Retries)
				}
				if got := b.keys(); got != w.keys {
					t.Errorf("it holds %s, want %s", got, w.keys)
				}
				checkIndex(t, other.pool, a.store, "alice", "dave")
			})
		}
	}
}

func versionOf(t *testing.T, a *app, token string) int {
	t.Helper()
	return pgtest.Query[int](t, a.pool, `SELECT version FROM scs_sessions WHERE id = $1`, pgstore.IDOf(token))
}

// Once somebody has read what was stored, and has removed or replaced it, it must not be
// stored again.
func TestLostAnswersWriteIsInDoubtOnceOthersHaveWritten(t *testing.T) {
	t.Parallel()
	for name, w := range lostWrites() {
		for what, meanwhile := range map[string]func(b *browser){
			"removed":         func(b *browser) { b.must("/remove", "key", "held"); b.must("/remove", "key", "cart") },
			"replaced":        func(b *browser) { b.must("/put", "key", "held", "value", "theirs") },
			"written besides": func(b *browser) { b.must("/put", "key", "other", "value", "theirs") },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 2})
				b := a.browser(t)
				b.must("/put", "key", "cart", "value", "1")
				b.must("/login", "user", "alice")
				finish := w.begin(a, b)
				before := ""
				id := pgstore.IDOf(b.token())
				l.answer(w.text, func() {
					meanwhile(b.on(other))
					before = stored(t, other.pool, id)
				})
				if status, body := finish(); !inDoubt(status, body) || !l.lost() {
					t.Errorf("%d %s, lost: %t", status, body, l.lost())
				}
				if got := stored(t, other.pool, id); got != before || before == "" {
					t.Errorf("%s, before %s", got, before)
				}
				checkIndex(t, other.pool, a.store, "alice", "dave")
			})
		}
	}
}

// That nobody has stored it shows as long as one other write at most has come in between.
func TestLostStatementIsRepeatedBesideAnothersWrite(t *testing.T) {
	t.Parallel()
	l, a, other := losingApps(t, newApp, pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	l.statement("SET data = $2", func() { b.on(other).must("/put", "key", "theirs", "value", "yes") })
	b.must("/put", "key", "mine", "value", "yes")
	if got := b.keys(); got != "mine,theirs,userID" || !l.lost() {
		t.Errorf("it holds %s", got)
	}
	if n := versionOf(t, other, b.token()); n != 3 {
		t.Errorf("version %d, want 3", n)
	}
}

// A write that was stored, and to a session that has ended since, brings nothing back.
func TestLostAnswersWriteIsDroppedOnceTheSessionHasEnded(t *testing.T) {
	t.Parallel()
	for name, w := range lostWrites() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 2})
			b := a.browser(t)
			b.must("/put", "key", "cart", "value", "1")
			b.must("/login", "user", "alice")
			finish := w.begin(a, b)
			l.answer(w.text, func() {
				for _, user := range []string{"alice", "dave"} {
					if _, err := other.store.RevokeAll(t.Context(), user); err != nil {
						t.Error(err)
					}
				}
			})
			if status, body := finish(); status != http.StatusOK || !strings.Contains(body, "reason=revoked") || !l.lost() {
				t.Errorf("%d %s, lost: %t", status, body, l.lost())
			}
			if n := live(t, other.pool, "alice") + live(t, other.pool, "dave"); n != 0 {
				t.Errorf("%d live", n)
			}
		})
	}
}

// A first visit, and a sign-in: rows that were not there before.
func TestLostAnswersNewSessionIsMadeOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		do   func(b *browser) (int, string)
		keys string
	}{
		"first visit": {"INSERT INTO scs_sessions", func(b *browser) (int, string) { return b.get("/put", "key", "cart", "value", "1") }, "cart"},
		"sign-in":     {"INSERT INTO scs_sessions", func(b *browser) (int, string) { return b.get("/login", "user", "alice") }, "userID"},
	} {
		for how, lose := range map[string]func(*losing, string, func()){"answer": (*losing).answer, "statement": (*losing).statement} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				bothWays(t, func(t *testing.T, newApp newAppFunc) {
					l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 1})
					b := a.browser(t)
					lose(l, tt.text, nil)
					if status, body := tt.do(b); status != http.StatusOK || !l.lost() {
						t.Fatalf("%d %s, lost: %t", status, body, l.lost())
					}
					if st := a.store.Stat(); a.tracked && (st.Writes != 1 || versionOf(t, other, b.token()) != 1) || st.Evictions != 0 {
						t.Errorf("%d writes, %d evictions, version %d", st.Writes, st.Evictions, versionOf(t, other, b.token()))
					}
					if n := pgtest.Query[int](t, other.pool, `SELECT count(*) FROM scs_sessions`); n != 1 {
						t.Errorf("%d sessions", n)
					}
					if got := b.keys(); got != tt.keys {
						t.Errorf("it holds %s", got)
					}
					checkIndex(t, other.pool, a.store, "alice")
				})
			})
		}
	}
}

// Nobody else knows the token yet, but an operator's Iterate finds the session.
func TestLostAnswersNewSessionIsInDoubtOnceOthersHaveWritten(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(b *browser) (int, string){
		"first visit": func(b *browser) (int, string) { return b.get("/put", "key", "cart", "value", "1") },
		"sign-in":     func(b *browser) (int, string) { return b.get("/login", "user", "alice") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 1})
			b := a.browser(t)
			before := ""
			l.answer("INSERT INTO scs_sessions", func() {
				if err := other.sm.Iterate(context.Background(), func(ctx context.Context) error { return other.putAndCommit(ctx, "notice", "hello") }); err != nil {
					t.Error(err)
				}
				before = rows(t, other)
			})
			if status, body := do(b); status == http.StatusOK || !strings.Contains(body, "is not known") || !l.lost() {
				t.Errorf("%d %s, lost: %t", status, body, l.lost())
			}
			if name == "first visit" && rows(t, other) != before {
				t.Errorf("%s, before %s", rows(t, other), before)
			}
			if n := live(t, other.pool, "alice"); n != 0 { // whose handler was told that nobody is signed in
				t.Errorf("%d live", n)
			}
			checkIndex(t, other.pool, a.store, "alice")
		})
	}
}

func rows(t *testing.T, a *app) string {
	t.Helper()
	return pgtest.Query[string](t, a.pool, `SELECT string_agg(s::text, ' ' ORDER BY id) FROM scs_sessions s`)
}

// Another device has taken its place by the time that the sign-in is repeated.
func TestLostAnswersSignInDoesNotTakeItsPlaceTwice(t *testing.T) {
	t.Parallel()
	l, a, other := losingApps(t, newApp, pgstore.Config{UserLimit: 1})
	b, winner := a.browser(t), other.browser(t)
	l.answer("INSERT INTO scs_sessions", func() { winner.must("/login", "user", "alice") })
	if status, body := b.get("/login", "user", "alice"); status != http.StatusConflict || body != pgstore.ErrEnded.Error() || !l.lost() {
		t.Errorf("%d %s, lost: %t", status, body, l.lost())
	}
	if winner.user() != "alice" || b.user() != "" || live(t, other.pool, "alice") != 1 {
		t.Errorf("winner %q, the other %q, %d live", winner.user(), b.user(), live(t, other.pool, "alice"))
	}
	checkIndex(t, other.pool, a.store, "alice")
}

func TestLostAnswersCommitOfIterateIsDoneOnceOrInDoubt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lose      func(*losing, string, func())
		meanwhile bool
		err, keys string
	}{
		"answer":                  {(*losing).answer, false, "", "notice,userID"},
		"statement":               {(*losing).statement, false, "", "notice,userID"},
		"answer, others write":    {(*losing).answer, true, "is not known", "notice,theirs,userID"},
		"statement, others write": {(*losing).statement, true, pgstore.ErrStale.Error(), "theirs,userID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				l, a, other := losingApps(t, newApp, pgstore.Config{})
				b := a.browser(t)
				b.must("/login", "user", "alice")
				before, version := a.store.Stat().Writes, versionOf(t, other, b.token())
				var then func()
				if tt.meanwhile {
					then = func() { b.on(other).must("/put", "key", "theirs", "value", "yes") }
				}
				err := a.sm.Iterate(context.Background(), func(ctx context.Context) error {
					tt.lose(l, "SET data = $2", then)
					return a.putAndCommit(ctx, "notice", "hello")
				})
				if tt.err == "" && (err != nil || a.store.Stat().Writes != before+1 || versionOf(t, other, b.token()) != version+1) ||
					tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || !l.lost() {
					t.Errorf("error %v, %d writes, the version grew by %d", err, a.store.Stat().Writes-before, versionOf(t, other, b.token())-version)
				}
				if got := b.keys(); got != tt.keys {
					t.Errorf("it holds %s, want %s", got, tt.keys)
				}
			})
		})
	}
}
