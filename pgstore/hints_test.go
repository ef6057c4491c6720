package pgstore_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

// With a mistyped UserKey all sessions are anonymous, and no limit ever applies.
func TestMistypedUserKeyIsSaidOnce(t *testing.T) {
	t.Parallel()
	const said = "UserKey is not the session key"
	visits := func(t *testing.T, newApp newAppFunc, cfg pgstore.Config, userKey, do string) string {
		var log lockedBuffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		a := newApp(t, migrated(t), cfg)
		a.sm.Codec = pgstore.Codec{UserKey: userKey}
		a.mux.HandleFunc("/sign-in", func(_ http.ResponseWriter, r *http.Request) {
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
			a.sm.Put(r.Context(), "userID", "alice")
		})
		b := a.browser(t)
		b.must(do, "key", "k", "value", "v")
		for range 99 {
			if strings.Contains(log.String(), said) {
				t.Fatal("said too soon:\n" + log.String())
			}
			b.must("/put", "key", "k", "value", "w")
		}
		for range 99 {
			b.must("/put", "key", "k", "value", "x")
		}
		return log.String()
	}
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		if log := visits(t, newApp, pgstore.Config{UserLimit: 1}, "userId", "/sign-in"); strings.Count(log, said) != 1 || !strings.Contains(log, "level=WARN") {
			t.Errorf("mistyped, said:\n%s", log)
		}
		if log := visits(t, newApp, pgstore.Config{UserLimit: 1}, "userID", "/sign-in"); strings.Contains(log, said) {
			t.Errorf("well typed, said:\n%s", log)
		}
		if log := visits(t, newApp, pgstore.Config{}, "userId", "/sign-in"); strings.Contains(log, said) {
			t.Errorf("without a limit, said:\n%s", log)
		}
	})
}

func TestStatusOfWithoutTrackIsSaidOnce(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		var log lockedBuffer
		a := newApp(t, migrated(t), pgstore.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		b := a.browser(t)
		for range 3 {
			b.must("/me")
		}
		want := 1
		if a.tracked {
			want = 0
		}
		if n := strings.Count(log.String(), "level=WARN"); n != want || strings.Count(log.String(), "StatusOf") != want {
			t.Errorf("said %d times, want %d:\n%s", n, want, log.String())
		}
	})
}
