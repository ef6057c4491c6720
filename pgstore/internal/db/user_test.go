package db_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

func TestFenceMovesForwardOnly(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		locked := func(user string) (fence time.Time) {
			fence = noon // left over
			x.send(func(b *db.Batch) { b.LockUser(user, &fence) })
			return fence
		}
		if at := locked("alice"); !at.IsZero() {
			t.Errorf("a new user has a fence: %v", at)
		}
		if at := locked("alice"); !at.IsZero() {
			t.Errorf("a user without has a fence: %v", at)
		}
		for _, step := range []struct{ at, want time.Time }{
			{noon, noon}, {noon.Add(-time.Microsecond), noon}, {noon, noon}, {noon.Add(time.Microsecond), noon.Add(time.Microsecond)},
		} {
			var fence time.Time
			x.send(func(b *db.Batch) { b.Fence("alice", step.at, &fence) })
			if at := locked("alice"); !fence.Equal(step.want) || !at.Equal(step.want) {
				t.Errorf("set to %v, it is %v and %v", step.at, fence, at)
			}
		}
		if at := locked("bob"); !at.IsZero() {
			t.Errorf("bob has alice's fence: %v", at)
		}
		x.send(func(b *db.Batch) { b.Forget("alice") })
		if users := pgtest.Query[[]string](t, x.pool, `SELECT array_agg(user_id) FROM scs_users`); !slices.Equal(users, []string{"bob"}) {
			t.Errorf("left after Forget: %q", users)
		}
	})
}

func TestLockUserKeepsOthersOfTheUserOut(t *testing.T) {
	t.Parallel()
	x := open(t)
	var fence time.Time
	x.send(func(b *db.Batch) { b.LockUser("alice", &fence); b.LockUser("bob", &fence) })
	err := x.InTx(t.Context(), func(tx *db.Tx) error {
		b := tx.Begin()
		b.LockUser("alice", &fence)
		if err := tx.Send(t.Context(), b); err != nil {
			return err
		}
		for user, want := range map[string]string{"alice": pgfault.LockNotAvailable, "bob": ""} {
			if _, err := x.pool.Exec(t.Context(), `SELECT FROM scs_users WHERE user_id = $1 FOR UPDATE NOWAIT`, user); pgfault.Code(err) != want {
				t.Errorf("%s: %v", user, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// The clock is that of the moment, not that of the start of the transaction.
func TestClockIsReadWhenItsTurnComes(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		var clock row.Clock
		asked := time.Now()
		x.send(func(b *db.Batch) { b.Clock(&clock) })
		if !clock.Read.Equal(noon.Add(time.Second)) || clock.Heard.Before(asked) || time.Since(clock.Heard) < 0 {
			t.Errorf("%+v", clock)
		}
	})
}

func TestUsersSessionsAreReadInPages(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.index("alice", 1, 2, 3, 4, 5, 300)
		x.index("bob", 2, 6)
		for _, tt := range []struct {
			after pgtype.UUID
			n     int
			want  string
		}{
			{pgtype.UUID{}, 10, "[1 2 3 4 5 300]"},
			{pgtype.UUID{}, 2, "[1 2]"},
			{id(2), 2, "[3 4]"},
			{id(5), 2, "[300]"},
			{id(300), 2, "[]"},
		} {
			list := []row.UserSession{{ID: id(99)}}
			x.send(func(b *db.Batch) { b.UserSessions("alice", tt.after, tt.n, &list) })
			var got []pgtype.UUID
			for _, s := range list {
				got = append(got, s.ID)
				if n := int(s.ID.Bytes[14])<<8 | int(s.ID.Bytes[15]); !s.CreatedAt.Equal(began(n)) {
					t.Errorf("%v began at %v", s.ID, s.CreatedAt)
				}
			}
			if numbers(got) != tt.want {
				t.Errorf("%d after %v: %s, want %s", tt.n, tt.after, numbers(got), tt.want)
			}
		}
		x.send(func(b *db.Batch) { b.Relabel("alice", id(3), "phone"); b.Relabel("bob", id(3), "not his") })
		for _, tt := range []struct {
			user string
			n    int
			want row.Place
		}{
			{"alice", 2, since(2)}, {"alice", 3, row.Place{Since: began(3), Label: "phone"}},
			{"alice", 6, row.Place{}}, {"carol", 2, row.Place{}}, {"", 2, row.Place{}},
		} {
			got := row.Place{Since: noon, Label: "left over"}
			x.send(func(b *db.Batch) { b.Place(tt.user, id(tt.n), &got); b.Clock(new(row.Clock)) })
			if !got.Since.Equal(tt.want.Since) || got.Label != tt.want.Label {
				t.Errorf("%q, %d: %v, want %v", tt.user, tt.n, got, tt.want)
			}
		}
	})
}

func TestUserSessionsSayWhatHasBecomeOfEach(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(
			session{n: 1, user: "alice", left: time.Hour},
			session{n: 2, user: "alice"}, // expired: the reader compares
			session{n: 3, user: "alice", left: time.Hour, reason: row.Revoked},
			session{n: 4, user: "alice", left: time.Hour, reason: row.Renewed},
			session{n: 5, user: "alice", left: time.Hour, reason: row.Renewed, linked: true},
			session{n: 6, user: "bob", left: time.Hour},
			session{n: 7, left: time.Hour},
			session{n: 9, user: "alice", left: time.Hour}, // not in the index
			session{n: 10, user: "bob", left: time.Hour, reason: row.Renewed},
		)
		x.index("alice", 1, 2, 3, 4, 5, 6, 7, 8, 10)
		x.index("bob", 6)
		const what = "[1 live 2 live 3 gone 4 pending 5 gone 6 unsettled 7 unsettled 8 unsettled 10 gone]"
		read := func(after pgtype.UUID, n int) (list []row.UserSession) {
			list = []row.UserSession{{ID: id(99)}}
			x.send(func(b *db.Batch) { b.UserSessions("alice", after, n, &list) })
			return list
		}
		list := read(pgtype.UUID{}, 100)
		var got []string
		for _, s := range list {
			n := int(s.ID.Bytes[15])
			state := map[bool]string{true: "gone", false: "live"}[s.Gone]
			if s.Pending && !s.Gone {
				state = "pending"
			}
			if s.Unsettled {
				state = "unsettled"
			}
			got = append(got, fmt.Sprint(n, " ", state))
			left := time.Hour
			if n == 2 {
				left = 0
			}
			if !s.CreatedAt.Equal(began(n)) || n != 8 && (!s.LastSeen.Equal(noon.Add(-time.Minute)) || !s.Expiry.Equal(noon.Add(left))) {
				t.Errorf("%+v", s)
			}
		}
		if fmt.Sprint(got) != what {
			t.Errorf("%v, want %s", got, what)
		}
		for _, tt := range []struct {
			after pgtype.UUID
			n     int
			want  []row.UserSession
		}{{pgtype.UUID{}, 3, list[:3]}, {id(3), 4, list[3:7]}, {id(7), 4, list[7:]}, {id(10), 4, nil}} {
			if page := read(tt.after, tt.n); !slices.EqualFunc(page, tt.want, func(x, y row.UserSession) bool { return x.ID == y.ID && x.Gone == y.Gone }) {
				t.Errorf("%d after %v: %+v", tt.n, tt.after, page)
			}
		}
	})
}

func TestListingAndCountAreOfLiveSessionsOfTheUser(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(
			session{n: 1, user: "alice", left: time.Hour},
			session{n: 2, user: "alice", left: time.Microsecond},
			session{n: 3, user: "alice"},
			session{n: 4, user: "alice", left: time.Hour, reason: row.Renewed},
			session{n: 5, user: "bob", left: time.Hour},
			session{n: 6, left: time.Hour},
		)
		x.index("alice", 2, 3, 4, 5, 6, 7)
		client := db.Client{IP: netip.MustParseAddr("2001:db8::1"), UserAgent: "agent", Label: "laptop"}
		x.send(func(b *db.Batch) { b.Enlist("alice", id(1), since(1), client) })
		list, err := x.Listing(t.Context(), "alice")
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, s := range list {
			n := int(s.ID.Bytes[15])
			want := row.Listed{ID: id(n), User: "alice", Expiry: noon.Add(time.Microsecond)}
			if n == 1 {
				want.IP, want.UserAgent, want.Label, want.Expiry = client.IP, client.UserAgent, client.Label, noon.Add(time.Hour)
			}
			if s.ID != want.ID || s.User != want.User || s.IP != want.IP || s.UserAgent != want.UserAgent || s.Label != want.Label || !s.CreatedAt.Equal(began(n)) ||
				!s.Expiry.Equal(want.Expiry) || !s.LastSeen.Equal(noon.Add(-time.Minute)) {
				t.Errorf("%+v", s)
			}
		}
		if list, err := x.Listing(t.Context(), "carol"); list == nil || len(list) != 0 || err != nil {
			t.Errorf("carol's: %#v, %v", list, err)
		}
		for user, want := range map[string]int{"alice": 2, "bob": 0, "carol": 0} {
			if n, err := x.Count(t.Context(), user); n != want || err != nil {
				t.Errorf("%s has %d, %v", user, n, err)
			}
		}
	})
}

// A listing leaves no transaction open, also where it fails.
func TestListingEndsItsTransaction(t *testing.T) {
	t.Parallel()
	x := open(t, pgtest.MaxConns(1))
	check := func() {
		t.Helper()
		conn, err := x.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if status := conn.Conn().PgConn().TxStatus(); status != 'I' {
			t.Errorf("the transaction status is %c", status)
		}
	}
	if _, err := x.Listing(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	check()
	pgtest.Exec(t, x.pool, `ALTER TABLE scs_sessions RENAME COLUMN expiry TO other`)
	if _, err := x.Listing(t.Context(), "alice"); err == nil {
		t.Error("no error")
	}
	check()
}
