package pgstore_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

func TestOverlappingRequestsKeepTheirChanges(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	var wg sync.WaitGroup
	want := []string{userKey}
	for i := range 100 {
		key := fmt.Sprintf("key%03d", i)
		want = append(want, key)
		wg.Go(func() { b.must("/put", "key", key, "value", "v") })
	}
	wg.Wait()
	slices.Sort(want)
	if got := b.keys(); got != strings.Join(want, ",") {
		t.Errorf("%d keys are left: %s", strings.Count(got, ",")+1, got)
	}
}

// What happens to one request's change when another does something meanwhile.
func TestMergeKeepsWhatBothRequestsChanged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		after string   // what the request that was held does last
		other []string // what the other does meanwhile
		want  string   // the keys in the end
	}{
		"both put":                 {"put", []string{"/put", "key", "other", "value", "1"}, "a,b,held,other,userID"},
		"the other removes":        {"put", []string{"/remove", "key", "a"}, "b,held,userID"},
		"the other clears":         {"put", []string{"/clear"}, "held"},
		"renewed after a write":    {"renew", []string{"/put", "key", "other", "value", "1"}, "a,b,other,userID"},
		"signed in after a write":  {"signin", []string{"/put", "key", "other", "value", "1"}, "a,b,other,userID"},
		"nothing against a change": {"", []string{"/put", "key", "other", "value", "1"}, "a,b,other,userID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, migrated(t), pgstore.Config{UserLimit: 5})
			b := a.browser(t)
			b.must("/login", "user", "alice")
			b.must("/put", "key", "a", "value", "1")
			b.must("/put", "key", "b", "value", "1")
			other := a.browser(t)
			other.setToken(b.token())
			finish := b.hold("after", tt.after, "user", "alice")
			other.must(tt.other[0], tt.other[1:]...)
			if status, body := finish(); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			if name == "the other clears" {
				// The other's clearing took the user off: the change is dropped whole.
				if got := other.keys(); got != "" {
					t.Errorf("keys %s", got)
				}
				return
			}
			if got := b.keys(); got != tt.want {
				t.Errorf("keys %s, want %s", got, tt.want)
			}
			if st := a.store.Stat(); tt.after != "" && st.Merges != 1 {
				t.Errorf("%d merges counted", st.Merges)
			}
			checkIndex(t, a.pool, a.store, "alice")
		})
	}
}

// A write on top of a later deadline does not bring the old expiry back.
func TestMergeKeepsTheLaterDeadline(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.sm.IdleTimeout, a.sm.Lifetime = 0, time.Hour
	a.mux.HandleFunc("/remember", func(_ http.ResponseWriter, r *http.Request) {
		a.sm.SetDeadline(r.Context(), time.Now().Add(48*time.Hour))
	})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	for _, after := range []string{"put", "renew"} {
		other := a.browser(t)
		other.setToken(b.token())
		finish := b.hold("after", after)
		other.must("/remember")
		finish()
		want := 47.0
		if after == "renew" {
			want = 0.9 // scs sets a new deadline then, and of two the earlier counts
		}
		left := pgtest.Query[float64](t, a.pool, `SELECT extract(epoch FROM expiry - now())::float8 / 3600 FROM scs_sessions WHERE id = $1`, pgstore.IDOf(b.token()))
		if left < want {
			t.Errorf("%s: %.1f hours left, want %.1f", after, left, want)
		}
	}
}

// A write to a token that another request has renewed is dropped.
func TestWriteToARenewedTokenIsDropped(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	other := a.browser(t)
	other.setToken(b.token())
	finish := b.hold("after", "put")
	other.must("/renew")
	if _, body := finish(); body != "state=ended reason=renewed" {
		t.Errorf("it was told %q", body)
	}
	if got := other.keys(); got != userKey {
		t.Errorf("keys %s", got)
	}
}

// A request that began as one user must not write into another's session.
func TestUserSwitchDropsTheOldUsersWrite(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
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
