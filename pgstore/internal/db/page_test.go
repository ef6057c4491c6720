package db_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

func TestPagesAreOfLiveSessionsInOrder(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(
			session{n: 5, user: "alice", left: time.Hour},
			session{n: 1, left: time.Hour, version: 7},
			session{n: 2, user: "alice"},
			session{n: 3, user: "alice", left: time.Hour, reason: row.Revoked},
			session{n: 4, user: "bob", left: time.Microsecond},
			session{n: 6, user: "bob", left: time.Hour},
		)
		x.index("alice", 5, 6) // 6 was hers before
		x.send(func(b *db.Batch) {
			b.Enlist("bob", id(4), since(4), db.Client{IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "agent"})
		})
		for _, tt := range []struct {
			after pgtype.UUID
			n     int
			want  []int
		}{
			{pgtype.UUID{Valid: true}, 10, []int{1, 4, 5, 6}}, {pgtype.UUID{Valid: true}, 2, []int{1, 4}},
			{id(4), 1, []int{5}}, {id(5), 2, []int{6}}, {pgtype.UUID{Valid: true}, 1, []int{1}}, {id(6), 2, nil},
		} {
			page, err := x.Page(t.Context(), tt.after, tt.n, false)
			if err != nil || len(page) != len(tt.want) {
				t.Fatalf("%d after %v: %+v, %v", tt.n, tt.after, page, err)
			}
			for i, s := range page {
				want := row.Listed{User: "alice", Expiry: noon.Add(time.Hour), CreatedAt: began(5)}
				switch tt.want[i] {
				case 1:
					want.User, want.CreatedAt = "", time.Time{}
				case 4:
					want = row.Listed{User: "bob", Expiry: noon.Add(time.Microsecond), CreatedAt: began(4), IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "agent"}
				case 6: // his, though only her index has it
					want.User, want.CreatedAt = "bob", time.Time{}
				}
				if s.ID != id(tt.want[i]) || s.User != want.User || s.IP != want.IP || s.UserAgent != want.UserAgent ||
					!s.CreatedAt.Equal(want.CreatedAt) || !s.Expiry.Equal(want.Expiry) || !s.LastSeen.Equal(noon.Add(-time.Minute)) {
					t.Errorf("%d after %v: %+v", tt.n, tt.after, s)
				}
			}

			var got []string
			full, err := x.Page(t.Context(), tt.after, tt.n, true)
			for _, s := range full {
				got = append(got, fmt.Sprintf("%d v%d %s", s.ID.Bytes[15], s.Version, s.Data))
			}
			var want []string
			for _, m := range tt.want {
				version := 3
				if m == 1 {
					version = 7
				}
				want = append(want, fmt.Sprintf("%d v%d data", m, version))
			}
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d after %v: %v, %v", tt.n, tt.after, got, err)
			}
		}
	})
}

func TestTotalsCountRows(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		check := func(what string, exact, sample float64, want db.Totals) {
			t.Helper()
			got, err := x.Totals(t.Context(), exact, sample)
			got.OldestExpired = got.OldestExpired.UTC()
			if got != want || err != nil {
				t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
			}
		}
		check("none, without statistics", 0, 0, db.Totals{})
		x.put(session{n: 1, user: "alice", left: time.Hour}, session{n: 2, user: "alice", left: time.Microsecond},
			session{n: 3, user: "bob", left: time.Hour}, session{n: 4, left: time.Hour})
		check("live ones", 0, 0, db.Totals{Live: 4, SignedIn: 3, Users: 2})
		x.put(session{n: 5, user: "carol"}, session{n: 6, left: -3 * time.Hour},
			session{n: 7, user: "dave", left: time.Hour, reason: row.Revoked}, session{n: 8, user: "dave", left: -2 * time.Hour, reason: row.Renewed})
		all := db.Totals{Live: 4, SignedIn: 3, Users: 2, Expired: 3, OldestExpired: noon.Add(-3 * time.Hour).UTC()}
		check("some", 0, 0, all)
		pgtest.Exec(t, x.pool, `ANALYZE scs_sessions`)
		check("as many as are counted", 8, 0, all)
		// The sample is the whole table, of which the statistics say that it is twice as large.
		pgtest.Exec(t, x.pool, `UPDATE pg_class SET reltuples = 16 WHERE oid = 'scs_sessions'::regclass`)
		all.Live, all.SignedIn, all.Expired, all.Estimated = 8, 6, 6, true
		check("more than are counted", 15, 16, all)
	})
}
