package db_test

import (
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/migrations"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// everything runs each statement once, and returns the first error.
func everything(t *testing.T, d *db.DB) error {
	ctx := t.Context()
	var r row.Row
	var out db.Written
	var at time.Time
	var n int
	var sessions []row.UserSession
	w := db.Write{ID: id(1), Data: []byte("data"), TTL: time.Hour}
	anonymous, unseen, signedIn := w, w, w
	unseen.Unseen = true
	signedIn.ID, signedIn.User = id(2), "alice"
	err := d.InTx(ctx, func(tx *db.Tx) error {
		b := tx.Begin()
		b.LockUser("alice", &at)
		b.Clock(new(row.Clock))
		b.Lock(id(1), &r)
		b.Find(id(1), &r)
		b.Place("alice", id(1), new(row.Place))
		b.UserSessions("alice", pgtype.UUID{}, 1, &sessions)
		if err := tx.Send(ctx, b); err != nil {
			return err
		}
		b = tx.Batch()
		b.SignIn(signedIn, &out)
		b.SwitchUser(signedIn, &out)
		b.Update(signedIn, db.AnyVersion, &out)
		b.Enlist("alice", id(2), row.Place{}, db.Client{IP: netip.IPv6Loopback()})
		b.Relabel("alice", id(2), "laptop")
		b.TimeOut(ids(2), "alice", time.Time{})
		b.End(ids(3), db.Ending{Reason: row.Revoked, User: "alice"}, &n, &n)
		b.End(ids(3, 4), db.Ending{Reason: row.Revoked, User: "alice"}, &n, &n)
		b.Notify(db.Ended{IDs: ids(3)})
		b.Renew(id(2), &n)
		b.Link(id(2), row.Renewed, row.Link{To: id(1)})
		b.Anonymize("alice", ids(2))
		b.Delist("alice", id(2))
		b.Delist("alice", ids(2, 3)...)
		b.Fence("alice", time.Now(), &at)
		b.Forget("alice")
		return tx.Commit(ctx, b)
	})
	steps := []func() error{
		func() error { _, err := d.Insert(ctx, anonymous); return err },
		func() error { _, err := d.Update(ctx, w, 1); return err },
		func() error { _, err := d.Update(ctx, unseen, 2); return err },
		func() error { _, err := d.Touch(ctx, id(1), "", 3, time.Hour); return err },
		func() error { _, err := d.Find(ctx, id(1)); return err },
		func() error { _, err := d.Listing(ctx, "alice"); return err },
		func() error { _, err := d.Count(ctx, "alice"); return err },
		func() error { _, err := d.Page(ctx, pgtype.UUID{}, 1, false); return err },
		func() error { _, err := d.Page(ctx, pgtype.UUID{}, 1, true); return err },
		func() error { _, err := d.Totals(ctx, 1e6, 1e5); return err },
		func() error { _, err := d.Totals(ctx, -2, 1e9); return err }, // the sample: all of it
	}
	for _, step := range steps {
		if err == nil {
			err = step()
		}
	}
	return err
}

// A named schema is used whatever the search_path says, and whatever its name is.
func TestTablesOfANamedSchemaNeedNoSearchPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain_", "My-Schema ", `we"ird `, `it's `, `scs_sessions`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			name += rand.Text()
			pool := pgtest.Pool(t) // whose search_path has other tables of these names
			if err := migrations.Up(t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			if err := migrations.Up(t.Context(), pool, migrations.Schema(name)); err != nil {
				t.Fatal(err)
			}
			schema := pgx.Identifier{name}.Sanitize()
			t.Cleanup(func() { pgtest.Exec(t, pool, "DROP SCHEMA "+schema+" CASCADE") })
			for range 2 { // the second time with statements that have been qualified before
				if err := everything(t, db.New(pool, name, time.Minute, 1, func() {})); err != nil {
					t.Fatal(err)
				}
				in := func(tables string) int { return pgtest.Query[int](t, pool, `SELECT count(*) FROM `+tables) }
				if in("scs_sessions")+in("scs_users")+in("scs_user_sessions") != 0 || in(schema+".scs_sessions") != 2 {
					t.Error("rows went elsewhere")
				}
				pgtest.Exec(t, pool, `DELETE FROM `+schema+`.scs_sessions`)
			}
		})
	}
}

// Errors are returned wherever they arise.
func TestErrorsAreReturned(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	calls := map[string]func(*db.DB) error{
		"Find":    func(d *db.DB) error { _, err := d.Find(ctx, id(1)); return err },
		"Insert":  func(d *db.DB) error { _, err := d.Insert(ctx, db.Write{}); return err },
		"Update":  func(d *db.DB) error { _, err := d.Update(ctx, db.Write{}, 1); return err },
		"Touch":   func(d *db.DB) error { _, err := d.Touch(ctx, id(1), "", 1, 0); return err },
		"Listing": func(d *db.DB) error { _, err := d.Listing(ctx, "alice"); return err },
		"Count":   func(d *db.DB) error { _, err := d.Count(ctx, "alice"); return err },
		"Page":    func(d *db.DB) error { _, err := d.Page(ctx, id(0), 9, false); return err },
		"data":    func(d *db.DB) error { _, err := d.Page(ctx, id(0), 9, true); return err },
		"Totals":  func(d *db.DB) error { _, err := d.Totals(ctx, 0, 0); return err },
		"Send":    func(d *db.DB) error { b := d.Batch(); b.Forget("alice"); return d.Send(ctx, b) },
		"InTx":    func(d *db.DB) error { return d.InTx(ctx, func(*db.Tx) error { return nil }) },
	}
	closed := pgtest.Pool(t)
	closed.Close()
	for name, call := range calls {
		if err := call(db.New(closed, "", time.Minute, 1, func() {})); err == nil {
			t.Errorf("%s on a closed pool: no error", name)
		}
	}
	// Rows that cannot be read.
	for change, broken := range map[string][]string{
		`ALTER TABLE scs_sessions ALTER version DROP DEFAULT, ALTER version TYPE text USING 'none'`: {"Find", "Page", "data"},
		`ALTER TABLE scs_user_sessions ALTER ip TYPE text USING 'nowhere'`:                          {"Page", "Listing"},
		`DROP TABLE scs_user_sessions`: {"Page"},
	} {
		x := open(t)
		x.put(session{n: 1, user: "alice", left: time.Hour})
		x.index("alice", 1)
		pgtest.Exec(t, x.pool, change)
		for _, name := range broken {
			if err := calls[name](x.DB); err == nil {
				t.Errorf("%s after %s: no error", name, change)
			}
		}
	}
}
