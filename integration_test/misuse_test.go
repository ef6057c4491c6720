package integration_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/scspg/scspg/pgstore"
)

// lockedBuffer is a log that requests write to at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTrackInsideLoadAndSaveIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	a := newApp(t, migrated(t), pgstore.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, false)
	a.Config.Handler = a.sm.LoadAndSave(a.store.Track(a.mux)) // the wrong way round
	b := a.browser(t)
	b.must("/put", "key", "k", "value", "v")
	for range 3 {
		if got := b.must("/me"); !strings.Contains(got, "keys=k") {
			t.Error(got) // it works all the same, as a plain store does
		}
	}
	if n := strings.Count(log.String(), "store.Track(sm.LoadAndSave(mux))"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if a.store.Stat().Untracked() == 0 {
		t.Error("nothing was counted")
	}
}

func TestTrackTwiceIsHarmless(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{}, true)
	a.Config.Handler = a.store.Track(a.Config.Handler)
	b := a.browser(t)
	b.must("/login", "user", "alice")
	b.must("/renew")
	if b.user() != "alice" || a.store.Stat().Untracked() != 0 {
		t.Errorf("%q, %d untracked", b.user(), a.store.Stat().Untracked())
	}
}

// Whatever a request does with a token that was never stored, what it puts must be
// there afterwards.
func TestNothingIsLostBeforeTheFirstCommit(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string]func(a *app, r *http.Request) error{
		"renewed": func(a *app, r *http.Request) error { return a.sm.RenewToken(r.Context()) },
		"renewed twice": func(a *app, r *http.Request) error {
			_ = a.sm.RenewToken(r.Context())
			return a.sm.RenewToken(r.Context())
		},
		"destroyed": func(a *app, r *http.Request) error { return a.sm.Destroy(r.Context()) },
		"destroyed and renewed": func(a *app, r *http.Request) error {
			_ = a.sm.Destroy(r.Context())
			return a.sm.RenewToken(r.Context())
		},
	} {
		for _, tracked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, tracked %v", name, tracked), func(t *testing.T) {
				t.Parallel()
				a := newApp(t, migrated(t), pgstore.Config{UserLimit: 1}, tracked)
				a.mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
					if err := steps(a, r); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
						return
					}
					a.sm.Put(r.Context(), userKey, "alice")
					a.sm.Put(r.Context(), "cart", "tea")
				})
				b := a.browser(t)
				for range 2 { // the second time, there is a session
					b.must("/visit")
					if got := b.must("/me"); !strings.HasPrefix(got, "user=alice state=") || !strings.Contains(got, "cart") {
						t.Error(got)
					}
					if n, err := a.store.Count(t.Context(), "alice"); err != nil || n != 1 {
						t.Errorf("%d sessions, %v", n, err)
					}
				}
			})
		}
	}
}

// number is a user id whose text is not its value's.
type number int

func (n number) String() string { return fmt.Sprintf("no. %d", int(n)) }

func init() { gob.Register(number(0)) }

func TestUserIDsThatAreNoStrings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id   any
		user string
	}{{int(42), "42"}, {int64(-7), "-7"}, {uint32(0), "0"}, {number(3), "no. 3"}} {
		a := newApp(t, migrated(t), pgstore.Config{UserLimit: 2}, true)
		a.mux.HandleFunc("/as", func(w http.ResponseWriter, r *http.Request) {
			if err := a.sm.RenewToken(r.Context()); err != nil {
				t.Error(err)
			}
			a.sm.Put(r.Context(), userKey, c.id)
		})
		a.mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
			v := a.sm.Get(r.Context(), userKey)
			fmt.Fprintf(w, "%T %v", v, v)
		})
		var last *browser
		for range 4 {
			last = a.browser(t)
			last.must("/as")
		}
		if got, want := last.must("/who"), fmt.Sprintf("%T %v", c.id, c.id); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if n, err := a.store.Count(t.Context(), c.user); err != nil || n != 2 {
			t.Errorf("%v: %d sessions of %q, %v", c.id, n, c.user, err)
		}
	}
}
