package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

func TestOldPageReadsLiveRowsByToken(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		// Our names in another's table are not ours.
		table := pgx.Identifier{pgtest.Query[string](t, x.pool, `SELECT current_schema()`), `scs_sessions "old" $1`}
		pgtest.Exec(t, x.pool, `CREATE TABLE `+table.Sanitize()+` (token text PRIMARY KEY, data bytea NOT NULL, expiry timestamptz NOT NULL)`)
		pgtest.Exec(t, x.pool, `INSERT INTO `+table.Sanitize()+` SELECT 'token' || n, decode('00ff0' || n, 'hex'), now() + (n - 2) * interval '1 hour' FROM generate_series(1, 5) n`)
		pgtest.Exec(t, x.pool, `UPDATE `+table.Sanitize()+` SET expiry = 'infinity' WHERE token = 'token5'`)
		var got string
		var after string
		for n := 2; n == 2; {
			page, err := x.OldPage(t.Context(), table, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page {
				left := o.Expiry.Sub(o.Now)
				if o.Expiry.Equal(row.Forever) {
					left = 0
				}
				got += fmt.Sprintf("%s %x %v, ", o.Token, o.Data, left)
				after = o.Token
			}
			got += "; "
			n = len(page)
		}
		if want := "token3 00ff03 1h0m0s, token4 00ff04 2h0m0s, ; token5 00ff05 0s, ; "; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestTakeOverWritesOverTheVersionThatWasMet(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(session{n: 2, user: "bob", left: time.Hour}, session{n: 3, left: 3 * time.Hour}, session{n: 4, left: time.Hour},
			session{n: 5, reason: row.SignedOut, left: time.Hour}, session{n: 6, reason: row.Renewed, linked: true, left: time.Hour}, session{n: 7, left: -time.Hour})
		take := func(n int, user string, over int64) {
			x.send(func(b *db.Batch) {
				b.TakeOver(db.Write{ID: id(n), User: user, Data: []byte("new")}, 1<<40, noon.Add(2*time.Hour), over)
			})
		}
		take(1, "alice", 0)
		take(2, "alice", 3)
		take(3, "", 3)
		take(4, "alice", 0) // somebody was faster
		take(5, "alice", 3)
		take(6, "alice", 0)
		take(7, "alice", 3)
		for n, want := range map[int]string{
			1: "alice v1099511627776 live 'new' 7200 0",
			2: "alice v1099511627776 live 'new' 7200 -60",
			3: "nobody v1099511627776 live 'new' 10800 -60",
			4: "nobody v3 live 'data' 3600 -60",
			5: "nobody v3 signed_out 'data' 3600 -60",
			6: "nobody v0 renewed 'data' 3600 -60",
			7: "alice v1099511627776 live 'new' 7200 -60",
		} {
			if got := x.row(n); got != want {
				t.Errorf("%d: %s, want %s", n, got, want)
			}
		}
	})
}
