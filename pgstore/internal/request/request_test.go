package request_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func id(n byte) pgtype.UUID { return pgtype.UUID{Bytes: [16]byte{15: n}, Valid: true} }

func alive(user string) row.Row {
	return row.Row{Present: true, User: user, Data: []byte("loaded"),
		Stamp: row.Stamp{Version: 3, LastSeen: noon.Add(-time.Minute), Expiry: noon.Add(time.Hour), Now: noon}}
}

func ended(reason, user string) row.Row {
	r := alive(user)
	r.EndReason, r.Data = reason, []byte{}
	return r
}

func expired(user string) row.Row {
	r := alive(user)
	r.Expiry = noon
	return r
}

// phaseOf says in which phase a session is, and why it is over.
func phaseOf(r *request.Request, id pgtype.UUID) string {
	s, ok := r.Session(id)
	if !ok {
		return "unknown"
	}
	name := [...]string{request.Absent: "absent", request.Live: "live", request.Over: "over", request.Closed: "closed",
		request.Renewing: "renewing", request.Continued: "continued"}[s.Phase]
	if s.Reason != "" {
		name += " " + s.Reason
	}
	return name
}

// into brings a session of alice into each phase.
var into = []struct {
	phase string
	enter func(*request.Request, pgtype.UUID)
}{
	{"unknown", func(*request.Request, pgtype.UUID) {}},
	{"absent", func(r *request.Request, id pgtype.UUID) { r.Found(id, row.Row{}, false) }},
	{"live", func(r *request.Request, id pgtype.UUID) { r.Found(id, alive("alice"), true) }},
	{"over revoked", func(r *request.Request, id pgtype.UUID) { r.Found(id, ended(row.Revoked, "alice"), true) }},
	{"closed signed_out", func(r *request.Request, id pgtype.UUID) {
		r.Found(id, alive("alice"), true)
		r.SignedOut(id, ended(row.SignedOut, "alice"), false)
	}},
	{"renewing renewed", func(r *request.Request, id pgtype.UUID) {
		r.Found(id, alive("alice"), true)
		r.Renewed(id, ended(row.Renewed, "alice"), noon)
	}},
	{"continued renewed", func(r *request.Request, id pgtype.UUID) {
		r.Found(id, alive("alice"), true)
		r.Renewed(id, ended(row.Renewed, "alice"), noon)
		r.Stored(pgtype.UUID{Bytes: [16]byte{9}, Valid: true}, "alice", []byte("stored"), row.Stamp{}, true, r.Left())
	}},
}

// The table in the package comment: every phase through every event. "" is no change.
func TestPhaseAfterEveryEvent(t *testing.T) {
	t.Parallel()
	const (
		over    = "over evicted"
		gone    = "over"
		closed  = "closed signed_out"
		revoked = "closed revoked"
	)
	all := func(*request.Session) bool { return true }
	for _, event := range []struct {
		name  string
		occur func(*request.Request, pgtype.UUID)
		after [7]string // of unknown, absent, live, over, closed, renewing, continued
	}{
		{"Found, alive", func(r *request.Request, id pgtype.UUID) { r.Found(id, alive("alice"), true) },
			[7]string{"live", "live", "", "", "", "", ""}},
		{"Found, alive, unreadable", func(r *request.Request, id pgtype.UUID) { r.Found(id, alive("alice"), false) },
			[7]string{"absent", "", "", "", "", "", ""}},
		{"Found, over", func(r *request.Request, id pgtype.UUID) { r.Found(id, ended(row.Evicted, "alice"), false) },
			[7]string{over, over, over, "", "", "", ""}},
		{"Found, past its expiry", func(r *request.Request, id pgtype.UUID) { r.Found(id, expired("alice"), true) },
			[7]string{"over timed_out", "over timed_out", "over timed_out", "", "", "", ""}},
		{"Found, gone", func(r *request.Request, id pgtype.UUID) { r.Found(id, row.Row{}, false) },
			[7]string{"absent", "", gone, "", "", "", ""}},
		{"Stored", func(r *request.Request, id pgtype.UUID) {
			r.Stored(id, "alice", []byte("stored"), row.Stamp{}, true, nil)
		},
			[7]string{"live", "live", "", "", "", "", ""}},
		{"Stored, having left it", func(r *request.Request, at pgtype.UUID) {
			r.Stored(id(77), "alice", []byte("stored"), row.Stamp{}, true, r.Left())
		}, [7]string{"", "", "", "", "", "continued renewed", ""}},
		{"Lost", func(r *request.Request, id pgtype.UUID) { r.Lost(id, ended(row.Evicted, "alice")) },
			[7]string{over, over, over, "", "", "", ""}},
		{"Lost, gone", func(r *request.Request, id pgtype.UUID) { r.Lost(id, row.Row{}) },
			[7]string{gone, gone, gone, "", "", "", ""}},
		// This request's own user was signed out of it.
		{"Lost, another user's", func(r *request.Request, id pgtype.UUID) { r.Lost(id, alive("bob")) },
			[7]string{"over signed_out", "over signed_out", "over signed_out", "", "", "", ""}},
		{"LostWith", func(r *request.Request, at pgtype.UUID) {
			r.LostWith(at, request.Session{Phase: request.Over, Reason: row.Evicted})
		},
			[7]string{over, over, over, "", "", "", ""}},
		{"Touched", func(r *request.Request, id pgtype.UUID) { touch(r, id, row.Stamp{}) },
			[7]string{"", "", "", "", "", "", ""}},
		{"NotTouched", func(r *request.Request, id pgtype.UUID) {
			if s, ok := r.Session(id); ok {
				r.NotTouched(s, s.Version)
			}
		}, [7]string{"", "", "", "", "", "", ""}},
		{"Renewed", func(r *request.Request, id pgtype.UUID) { r.Renewed(id, ended(row.Renewed, "alice"), noon) },
			[7]string{"renewing renewed", "renewing renewed", "renewing renewed", "", "", "", ""}},
		{"Renewed, over by then", func(r *request.Request, id pgtype.UUID) { r.Renewed(id, ended(row.Revoked, "alice"), noon) },
			[7]string{"renewing revoked", "renewing revoked", "renewing revoked", "", "", "", ""}},
		{"Renewed, gone", func(r *request.Request, id pgtype.UUID) { r.Renewed(id, row.Row{}, noon) },
			[7]string{"", "", "renewing", "", "", "", ""}},
		{"SignedOut", func(r *request.Request, id pgtype.UUID) { r.SignedOut(id, ended(row.SignedOut, "alice"), false) },
			[7]string{closed, "", closed, closed, closed, closed, closed}},
		{"SignedOut, ended by others", func(r *request.Request, id pgtype.UUID) { r.SignedOut(id, ended(row.Revoked, "alice"), false) },
			[7]string{revoked, "", revoked, revoked, revoked, revoked, revoked}},
		{"SignedOut, gone", func(r *request.Request, id pgtype.UUID) { r.SignedOut(id, row.Row{}, false) },
			[7]string{"", "", "closed", "closed", "closed", "closed", "closed"}},
		{"Revoked", func(r *request.Request, _ pgtype.UUID) { r.Revoked("alice", all) },
			[7]string{"", "", "over revoked", "", "", "over revoked", ""}},
		{"Revoked, but not this one", func(r *request.Request, _ pgtype.UUID) {
			r.Revoked("alice", func(*request.Session) bool { return false })
		},
			[7]string{"", "", "", "", "", "", ""}},
		{"Revoked, of another user", func(r *request.Request, _ pgtype.UUID) { r.Revoked("bob", all) },
			[7]string{"", "", "", "", "", "", ""}},
		{"Fenced", func(r *request.Request, _ pgtype.UUID) { r.Fenced("alice", noon) },
			[7]string{"", "", "", "", "", "", ""}},
	} {
		for i, start := range into {
			var r request.Request
			start.enter(&r, id(1))
			if got := phaseOf(&r, id(1)); got != start.phase {
				t.Fatalf("%s, want %s", got, start.phase)
			}
			event.occur(&r, id(1))
			want := event.after[i]
			if want == "" {
				want = start.phase
			}
			if got := phaseOf(&r, id(1)); got != want {
				t.Errorf("%s, then %s: %s, want %s", start.phase, event.name, got, want)
			}
		}
	}
}

func touch(r *request.Request, id pgtype.UUID, latest row.Stamp) {
	if s, ok := r.Session(id); ok {
		r.Touched(s, latest)
	}
}

// session returns what is known of a session that must be known.
func session(t *testing.T, r *request.Request, id pgtype.UUID) request.Session {
	t.Helper()
	s, ok := r.Session(id)
	if !ok {
		t.Fatal("it is not known")
	}
	return s
}

func TestFoundKeepsWhatTheFirstReadSaw(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	again := alive("alice")
	again.Version, again.Data = 4, []byte("by others")
	r.Found(id(1), again, true)
	s := session(t, &r, id(1))
	if string(s.Base) != "loaded" || s.Version != 3 || !s.RowHoldsBase || s.Window != time.Hour+time.Minute || s.User != "alice" || s.Settled ||
		time.Since(s.TakenAt) > time.Minute || !s.Had() {
		t.Errorf("%+v", s)
	}
}

func TestStoredIsWhatChangesAreToldAgainst(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive(""), true)
	latest := row.Stamp{Version: 5, Expiry: noon.Add(2 * time.Hour), LastSeen: noon, Now: noon}
	r.Stored(id(1), "alice", []byte("stored"), latest, false, nil)
	s := session(t, &r, id(1))
	if string(s.Base) != "stored" || s.Stamp != latest || s.RowHoldsBase || !s.Settled || s.User != "alice" {
		t.Errorf("%+v", s)
	}
}

// A session that was ended beside a commit stays ended.
func TestStoredDoesNotReviveWhatWasEndedBesideIt(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	r.Revoked("alice", func(*request.Session) bool { return true })
	r.Stored(id(1), "alice", []byte("stored"), row.Stamp{Version: 4}, true, nil)
	if s := session(t, &r, id(1)); s.Phase != request.Over || s.Version != 3 || string(s.Base) != "loaded" {
		t.Errorf("%+v", s)
	}
}

func TestRenewedKeepsTheVersionOfItsBase(t *testing.T) {
	t.Parallel()
	var r request.Request
	left := ended(row.Renewed, "alice")
	left.Version = 7 // others have written meanwhile
	r.Found(id(1), alive(""), true)
	r.Renewed(id(1), left, noon)
	r.Renewed(id(2), left, noon)
	if s := session(t, &r, id(1)); s.User != "" || s.Version != 3 || !s.DeletedAt.Equal(noon) || !s.Had() {
		t.Errorf("found: %+v", s)
	}
	if s := session(t, &r, id(2)); s.User != "alice" || s.Version != 7 || s.Had() {
		t.Errorf("not found: %+v", s)
	}
}

// A commit has been dropped: the renewal that follows must not start afresh, nor take the
// row of then for its base.
func TestRenewedLeavesASessionThatIsOver(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	met := ended(row.Renewed, "alice")
	met.Version = 7
	r.Lost(id(1), met)
	r.Renewed(id(1), met, noon)
	if left := r.Left(); len(left) != 1 || left[0].Phase != request.Renewing || left[0].RowHoldsBase {
		t.Errorf("%+v", left)
	}
}

// A sign-out by the request itself makes what follows new, whoever had ended the session.
func TestHadOverLeavesOutWhatTheRequestHasSignedOut(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	r.Revoked("alice", func(*request.Session) bool { return true })
	if r.HadOver("alice") == nil {
		t.Error("revoked by the request itself: nil")
	}
	r.SignedOut(id(1), ended(row.Revoked, "alice"), false)
	if s := r.HadOver("alice"); s != nil {
		t.Errorf("%+v", s)
	}
}

func TestSignedOutSaysWhetherASignInWasFaster(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	for _, replaced := range []bool{true, false} {
		r.SignedOut(id(1), ended(row.SignedOut, "bob"), replaced)
		if s := session(t, &r, id(1)); s.LeftAlone != replaced || s.User != "alice" {
			t.Errorf("%+v", s)
		}
	}
	r.SignedOut(id(2), ended(row.SignedOut, "bob"), false)
	if s := session(t, &r, id(2)); s.User != "bob" {
		t.Errorf("not found before: %+v", s)
	}
}

func TestLostWithSaysWhyTheOtherIsOver(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(1), alive("alice"), true)
	r.Found(id(1), ended(row.Revoked, "alice"), true)
	r.LostWith(id(2), session(t, &r, id(1)))
	first, s := session(t, &r, id(1)), session(t, &r, id(2))
	if s.User != "alice" || s.Reason != row.Revoked || s.Stamp != first.Stamp || s.TakenAt != first.TakenAt {
		t.Errorf("%+v", s)
	}
}

// The result of a touch must not overwrite what the request has done meanwhile.
func TestLateTouchDoesNotOverwrite(t *testing.T) {
	t.Parallel()
	late := row.Stamp{Version: 100}
	for name, meanwhile := range map[string]func(*request.Request){
		"nothing":    func(*request.Request) {},
		"stored":     func(r *request.Request) { r.Stored(id(1), "alice", []byte("stored"), row.Stamp{Version: 4}, true, nil) },
		"ended":      func(r *request.Request) { r.Found(id(1), ended(row.Revoked, "alice"), true) },
		"lost":       func(r *request.Request) { r.Lost(id(1), ended(row.Revoked, "alice")) },
		"renewed":    func(r *request.Request) { r.Renewed(id(1), ended(row.Renewed, "alice"), noon) },
		"signed out": func(r *request.Request) { r.SignedOut(id(1), ended(row.SignedOut, "alice"), false) },
		"revoked":    func(r *request.Request) { r.Revoked("alice", func(*request.Session) bool { return true }) },
		"touched":    func(r *request.Request) { touch(r, id(1), row.Stamp{Version: 3}) },
	} {
		var r request.Request
		r.Found(id(1), alive("alice"), true)
		copied := session(t, &r, id(1))
		meanwhile(&r)
		before := session(t, &r, id(1))
		r.NotTouched(copied, copied.Version)
		if s := session(t, &r, id(1)); s.Settled != (before.Settled || name == "nothing") {
			t.Errorf("%s, no touch needed: settled %t", name, s.Settled)
		}
		r.Touched(copied, late)
		if s := session(t, &r, id(1)); (s.Version == late.Version) != (name == "nothing") {
			t.Errorf("%s: %+v", name, s)
		} else if name == "nothing" && (!s.RowHoldsBase || !s.Settled || !s.Written) {
			t.Errorf("touched: %+v", s)
		}
	}
	var r request.Request
	r.Found(id(2), alive("alice"), true)
	r.NotTouched(session(t, &r, id(2)), 4)
	if session(t, &r, id(2)).RowHoldsBase {
		t.Error("the row has another version, but is taken to hold what was loaded")
	}
	r.Touched(request.Session{ID: id(1)}, late)
	r.NotTouched(request.Session{ID: id(1)}, 0)
	if got := phaseOf(&r, id(1)); got != "unknown" {
		t.Error(got)
	}
}

// Current is the session that the request came with or, once that is over, the one that
// has replaced it.
func TestCurrentFollowsTheRequestsOwnSession(t *testing.T) {
	t.Parallel()
	stored := func(r *request.Request, n byte) {
		r.Stored(id(n), "alice", []byte("stored"), row.Stamp{}, true, r.Left())
	}
	for _, tt := range []struct {
		what string
		do   func(*request.Request)
		want string // number and phase
	}{
		{"no session", func(*request.Request) {}, "none"},
		{"a token that names none", func(r *request.Request) { r.Found(id(1), row.Row{}, false) }, "1 absent"},
		{"a session", func(r *request.Request) { r.Found(id(1), alive("alice"), true) }, "1 live"},
		{"one that is over", func(r *request.Request) { r.Found(id(1), ended(row.Revoked, "alice"), true) }, "1 over revoked"},
		{"the second token names one", func(r *request.Request) {
			r.Found(id(1), row.Row{}, false)
			r.Found(id(2), alive("alice"), true)
		}, "2 live"},
		{"the second token names one that is over", func(r *request.Request) {
			r.Found(id(1), row.Row{}, false)
			r.Found(id(2), ended(row.Revoked, "alice"), true)
		}, "2 over revoked"},
		{"the first is found at last", func(r *request.Request) {
			r.Found(id(1), row.Row{}, false)
			r.Found(id(2), row.Row{}, false)
			r.Found(id(1), alive("alice"), true)
		}, "1 live"},
		{"one loaded besides", func(r *request.Request) {
			r.Found(id(1), alive("alice"), true)
			r.Found(id(2), alive("alice"), true)
		}, "1 live"},
		{"one loaded besides one that is over", func(r *request.Request) {
			r.Found(id(1), ended(row.Revoked, "alice"), true)
			r.Found(id(2), alive("alice"), true)
		}, "1 over revoked"},
		{"the first one stored", func(r *request.Request) { stored(r, 1) }, "1 live"},
		{"stored after a token that names none", func(r *request.Request) {
			r.Found(id(1), row.Row{}, false)
			stored(r, 2)
		}, "2 live"},
		{"stored besides", func(r *request.Request) {
			r.Found(id(1), alive("alice"), true)
			stored(r, 2)
		}, "1 live"},
		{"renewed, not yet stored", func(r *request.Request) { into[5].enter(r, id(1)) }, "1 renewing renewed"},
		{"renewed and stored", func(r *request.Request) {
			into[5].enter(r, id(1))
			stored(r, 2)
		}, "2 live"},
		{"signed out", func(r *request.Request) { into[4].enter(r, id(1)) }, "1 closed signed_out"},
		{"signed out and in", func(r *request.Request) {
			into[4].enter(r, id(1))
			stored(r, 2)
		}, "2 live"},
		{"over, and a new one dropped with it", func(r *request.Request) {
			into[3].enter(r, id(1))
			r.LostWith(id(2), request.Session{Reason: row.Revoked})
		}, "2 over revoked"},
		{"over, and a new one lost", func(r *request.Request) {
			into[3].enter(r, id(1))
			r.Lost(id(2), ended(row.Evicted, "alice"))
		}, "2 over evicted"},
		{"over, and a new one gone", func(r *request.Request) {
			into[3].enter(r, id(1))
			r.Lost(id(2), row.Row{})
		}, "1 over revoked"},
		{"over, and another one renewed", func(r *request.Request) {
			into[3].enter(r, id(1))
			r.Renewed(id(2), ended(row.Renewed, "alice"), noon)
		}, "2 renewing renewed"},
		{"over, and another one signed out", func(r *request.Request) {
			into[3].enter(r, id(1))
			r.SignedOut(id(2), ended(row.SignedOut, "alice"), false)
		}, "2 closed signed_out"},
		{"over, and a known one changed", func(r *request.Request) {
			r.Found(id(1), alive("alice"), true)
			r.Found(id(2), alive("alice"), true)
			r.Found(id(1), ended(row.Revoked, "alice"), true)
			stored(r, 2)
		}, "1 over revoked"},
		{"replaced twice", func(r *request.Request) {
			into[5].enter(r, id(1))
			stored(r, 2)
			r.Renewed(id(2), ended(row.Renewed, "alice"), noon)
			stored(r, 3)
		}, "3 live"},
	} {
		var r request.Request
		tt.do(&r)
		got := "none"
		if s, ok := r.Current(); ok {
			got = fmt.Sprintf("%d %s", s.ID.Bytes[15], phaseOf(&r, s.ID))
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

func TestListsOfSessions(t *testing.T) {
	t.Parallel()
	var r request.Request
	for i, start := range into {
		start.enter(&r, id(byte(i)))
	}
	r.Found(id(10), alive("bob"), true)
	r.Found(id(10), ended(row.SignedOut, "bob"), true)
	r.Found(id(11), alive("bob"), true)
	r.Lost(id(11), ended(row.Evicted, "bob"))
	r.SignedOut(id(12), ended(row.Revoked, "bob"), false) // if only too late
	r.Renewed(id(13), ended(row.Renewed, "bob"), noon)
	numbers := func(list []request.Session) (ns []byte) {
		for _, s := range list {
			ns = append(ns, s.ID.Bytes[15])
		}
		return ns
	}
	// What has continued the last of these has continued the one that was renewing, too.
	if got := numbers(r.Unsettled()); !slices.Equal(got, []byte{2}) {
		t.Errorf("unsettled: %d", got)
	}
	if got := numbers(r.Left()); !slices.Equal(got, []byte{4, 12, 13}) {
		t.Errorf("left: %d", got)
	}
	r.Found(id(14), ended(row.Renewed, "bob"), false) // by others
	if got := numbers(r.Renewing()); !slices.Equal(got, []byte{14}) {
		t.Errorf("renewing: %d", got)
	}
	if s := r.HadOver("bob"); s == nil || s.ID != id(11) {
		t.Errorf("had of bob: %+v", s)
	}
	if s := r.HadOver("alice"); s != nil { // the one that is over was over when it was found
		t.Errorf("had of alice: %+v", s)
	}
}

func TestExemptAreTheRequestsOwnFences(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Fenced("alice", noon)
	r.Fenced("bob", noon.Add(1))
	for _, tt := range []struct {
		user string
		at   time.Time
		want bool
	}{
		{"alice", noon, true}, {"alice", noon.In(time.FixedZone("", 60)), true}, {"alice", noon.Add(1), false}, {"alice", noon.Add(-1), false},
		{"bob", noon, false}, {"bob", noon.Add(1), true}, {"carol", noon, false},
	} {
		if got := r.Exempt(tt.user, tt.at); got != tt.want {
			t.Errorf("%s, %v: %t", tt.user, tt.at, got)
		}
	}
}

// Copies do not change with the request, and calls may overlap: -race tells.
func TestCallsMayOverlap(t *testing.T) {
	t.Parallel()
	var r request.Request
	r.Found(id(0), alive("alice"), true)
	copied := session(t, &r, id(0))
	var wg sync.WaitGroup
	for n := range byte(8) {
		wg.Go(func() {
			r.Found(id(n), alive("alice"), true)
			r.Found(id(n), alive("alice"), true)
			touch(&r, id(n), row.Stamp{})
			r.Stored(id(n), "alice", []byte("stored"), row.Stamp{}, true, r.Left())
			for _, s := range r.Unsettled() {
				r.NotTouched(s, s.Version)
			}
			r.Fenced("alice", noon)
			_ = r.Exempt("alice", noon)
			_, _ = r.Current()
			_ = r.HadOver("alice")
			switch n % 4 {
			case 0:
				r.Renewed(id(n), ended(row.Renewed, "alice"), noon)
				r.Stored(id(n+100), "alice", []byte("stored"), row.Stamp{}, true, r.Left())
			case 1:
				r.SignedOut(id(n), ended(row.SignedOut, "alice"), false)
			case 2:
				r.Lost(id(n), ended(row.Revoked, "alice"))
				r.LostWith(id(n+100), copied)
			case 3:
				r.Revoked("alice", func(s *request.Session) bool { return s.ID == id(n) })
			}
		})
	}
	wg.Wait()
	for n, want := range []string{"continued", "closed", "over", "over"} {
		for _, n := range []byte{byte(n), byte(n) + 4} {
			if got := phaseOf(&r, id(n)); got[:len(want)] != want {
				t.Errorf("%d: %s, want %s", n, got, want)
			}
		}
	}
	if copied.Phase != request.Live || copied.Reason != "" || copied.Version != 3 {
		t.Errorf("the copy has changed: %+v", copied)
	}
}
