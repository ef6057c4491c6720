package db_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/internal/pgfault"
	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore/internal/db"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// same compares rows: times by instant.
func same(a, b row.Row) bool {
	return a.Version == b.Version && a.Expiry.Equal(b.Expiry) && a.LastSeen.Equal(b.LastSeen) && a.Now.Equal(b.Now) &&
		a.Present == b.Present && string(a.Data) == string(b.Data) && a.User == b.User && a.EndReason == b.EndReason
}

func TestFindReadsTheWholeRow(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		x.put(session{n: 1, user: "alice", left: time.Hour}, session{n: 2, left: -time.Second, version: 1 << 40},
			session{n: 3, user: `O'Brien "é"`, reason: row.Renewed, left: time.Hour, linked: true})
		link := row.Link{SignIn: true, To: id(1)}
		x.send(func(b *db.Batch) { b.Link(id(3), row.SignedOut, link) })
		at := func(version int64, left time.Duration) row.Stamp {
			return row.Stamp{Version: version, Expiry: noon.Add(left), LastSeen: noon.Add(-time.Minute), Now: noon}
		}
		for n, want := range map[int]row.Row{
			1: {Stamp: at(3, time.Hour), Present: true, Data: []byte("data"), User: "alice"},
			2: {Stamp: at(1<<40, -time.Second), Present: true, Data: []byte("data")},
			3: {Stamp: at(0, time.Hour), Present: true, Data: link.Encode(), User: `O'Brien "é"`, EndReason: row.SignedOut},
			4: {},
		} {
			found, locked := row.Row{User: "left over"}, row.Row{User: "left over"}
			x.send(func(b *db.Batch) { b.Find(id(n), &found); b.Lock(id(n), &locked) })
			alone, err := x.Find(t.Context(), id(n))
			if err != nil || !same(alone, want) || !same(found, want) || !same(locked, want) {
				t.Errorf("%d: %+v, %v, in a batch %+v, locked %+v", n, alone, err, found, locked)
			}
			if got, ok := alone.Link(); ok != (n == 3) || ok && got != link {
				t.Errorf("%d: link %+v, %t", n, got, ok)
			}
		}
	})
}

// The data of a session that was found is never nil: that says that it was found.
func TestFindOfEmptyDataIsNotNil(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		if _, err := x.Insert(t.Context(), db.Write{ID: id(1), Data: []byte{}, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if r, err := x.Find(t.Context(), id(1)); err != nil || r.Data == nil || len(r.Data) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestLockKeepsOthersFromTheRow(t *testing.T) {
	t.Parallel()
	x := open(t)
	x.put(session{n: 1, left: time.Hour}, session{n: 2, left: time.Hour})
	err := x.InTx(t.Context(), func(tx *db.Tx) error {
		var locked, found row.Row
		b := tx.Begin()
		b.Lock(id(1), &locked)
		b.Find(id(2), &found)
		if err := tx.Send(t.Context(), b); err != nil {
			return err
		}
		for n, want := range map[int]string{1: pgfault.LockNotAvailable, 2: ""} {
			if _, err := x.pool.Exec(t.Context(), `SELECT FROM scs_sessions WHERE id = $1 FOR UPDATE NOWAIT`, id(n)); pgfault.Code(err) != want {
				t.Errorf("%d: %v", n, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Which rows each write reaches, of every kind of row that it may meet.
func TestWritesReachWhatTheirGuardsSay(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name string
		row  session
	}{
		{"live", session{user: "alice", left: time.Hour}},
		{"about to expire", session{user: "alice", left: time.Microsecond}},
		{"expired", session{user: "alice"}},
		{"newer", session{user: "alice", version: 4, left: time.Hour}},
		{"nobody's", session{left: time.Hour}},
		{"bob's", session{user: "bob", left: time.Hour}},
		{"pending", session{user: "alice", reason: row.Renewed, left: time.Hour}},
		{"pending, expired", session{user: "alice", reason: row.Renewed}},
		{"pending, bob's", session{user: "bob", reason: row.Renewed, left: time.Hour}},
		{"linked", session{user: "alice", reason: row.Renewed, linked: true, left: time.Hour}},
		{"revoked", session{user: "alice", reason: row.Revoked, left: time.Hour}},
		{"gone", session{}},
	}
	const (
		hers  = "live, about to expire"
		every = "live, about to expire, newer, nobody's, bob's"
	)
	inEveryMode(t, func(t *testing.T, x *tables) {
		ctx := t.Context()
		write := func(n int, user string) db.Write {
			return db.Write{ID: id(n), User: user, Data: []byte("new"), TTL: 2 * time.Hour}
		}
		unseen := func(n int) db.Write {
			w := write(n, "alice")
			w.Unseen = true
			return w
		}
		update := func(w db.Write, version int64) func(*db.Batch, *db.Written) {
			return func(b *db.Batch, out *db.Written) { b.Update(w, version, out) }
		}
		// did says whether add, sent as a batch, has written.
		did := func(add func(*db.Batch, *db.Written)) bool {
			out := db.Written{OK: true, Stamp: row.Stamp{Version: 9}}
			x.send(func(b *db.Batch) { add(b, &out) })
			if !out.OK && out != (db.Written{}) {
				t.Errorf("nothing was written, but %+v", out)
			}
			return out.OK
		}
		end := func(n int, e db.Ending) bool {
			alive, pending := 7, 7
			x.send(func(b *db.Batch) { b.End(ids(n), e, &alive, &pending) })
			return alive+pending == 1
		}
		// silent writes do not say whether they have written.
		silent := func(n int, add func(*db.Batch)) bool {
			before := x.row(n)
			x.send(add)
			return x.row(n) != before
		}
		for _, op := range []struct {
			name string
			do   func(n int) bool
			want string
		}{
			{"Update", func(n int) bool { return did(update(write(n, "alice"), 3)) }, hers},
			{"Update alone", func(n int) bool {
				out, err := x.Update(ctx, write(n, "alice"), 3)
				return err == nil && out.OK
			}, hers},
			{"Update of any version", func(n int) bool { return did(update(write(n, "alice"), db.AnyVersion)) }, hers + ", newer"},
			{"Update of nobody's", func(n int) bool { return did(update(write(n, ""), 3)) }, "nobody's"},
			{"Update unseen", func(n int) bool { return did(update(unseen(n), 3)) }, hers},
			{"Touch", func(n int) bool {
				out, err := x.Touch(ctx, id(n), "alice", 3, 2*time.Hour)
				return err == nil && out.OK
			}, hers},
			{"Touch of nobody's", func(n int) bool {
				out, err := x.Touch(ctx, id(n), "", 3, 2*time.Hour)
				return err == nil && out.OK
			}, "nobody's"},
			{"SwitchUser", func(n int) bool {
				return did(func(b *db.Batch, out *db.Written) { b.SwitchUser(write(n, "carol"), out) })
			}, every},
			{"Insert", func(n int) bool {
				out, err := x.Insert(ctx, write(n, ""))
				return err == nil && out.OK
			}, "gone"},
			{"End", func(n int) bool { return end(n, db.Ending{Reason: row.Revoked, User: "alice"}) }, hers + ", newer, pending, pending, expired"},
			{"End of nobody's", func(n int) bool { return end(n, db.Ending{Reason: row.Revoked}) }, "nobody's"},
			{"End of anybody's", func(n int) bool { return end(n, db.Ending{Reason: row.SignedOut, Any: true}) },
				every + ", pending, pending, expired, pending, bob's"},
			{"Renew", func(n int) bool {
				renewed := 7
				x.send(func(b *db.Batch) { b.Renew(id(n), &renewed) })
				return renewed == 1
			}, every},
			{"TimeOut by now()", func(n int) bool { return silent(n, func(b *db.Batch) { b.TimeOut(ids(n), "alice", time.Time{}) }) }, "expired"},
			{"TimeOut by an earlier clock", func(n int) bool { return silent(n, func(b *db.Batch) { b.TimeOut(ids(n), "alice", noon.Add(-1)) }) }, "expired"},
			{"TimeOut by a later clock", func(n int) bool {
				return silent(n, func(b *db.Batch) { b.TimeOut(ids(n), "alice", noon.Add(time.Microsecond)) })
			}, "about to expire, expired"},
			{"TimeOut of anybody's", func(n int) bool { return silent(n, func(b *db.Batch) { b.TimeOut(ids(n), "", noon.Add(time.Hour)) }) },
				"live, about to expire, expired, newer, nobody's, bob's"},
			{"Link", func(n int) bool {
				return silent(n, func(b *db.Batch) { b.Link(id(n), row.Renewed, row.Link{To: id(99)}) })
			},
				"live, about to expire, expired, newer, nobody's, bob's, pending, pending, expired, pending, bob's, linked, revoked"},
			{"Anonymize", func(n int) bool { return silent(n, func(b *db.Batch) { b.Anonymize("alice", ids(n)) }) },
				"pending, pending, expired, linked, revoked"},
		} {
			pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
			var reached []string
			for n, kind := range kinds {
				kind.row.n = n
				if kind.name != "gone" {
					x.put(kind.row)
				}
				before := x.row(n)
				wrote := op.do(n)
				if wrote {
					reached = append(reached, kind.name)
				}
				if wrote != (x.row(n) != before) {
					t.Errorf("%s, %s: it says %t, but the row was %s and is %s", op.name, kind.name, wrote, before, x.row(n))
				}
			}
			if got := strings.Join(reached, ", "); got != op.want {
				t.Errorf("%s reaches %s, want %s", op.name, got, op.want)
			}
		}
	})
}

// What each write leaves behind. The session was alice's, in its version 3, with an hour
// left, last seen a minute ago.
func TestWhatWritesLeave(t *testing.T) {
	t.Parallel()
	write := db.Write{ID: id(1), User: "alice", Data: []byte("new"), TTL: 2 * time.Hour}
	with := func(change func(*db.Write)) db.Write {
		w := write
		change(&w)
		return w
	}
	inEveryMode(t, func(t *testing.T, x *tables) {
		ctx := t.Context()
		for _, tt := range []struct {
			name string
			do   func(out *db.Written) error
			want string
		}{
			{"Update", func(out *db.Written) (err error) { *out, err = x.Update(ctx, write, 3); return err }, "alice v4 live 'new' 7200 0"},
			{"Update, shorter", func(out *db.Written) (err error) {
				*out, err = x.Update(ctx, with(func(w *db.Write) { w.TTL = time.Microsecond }), 3)
				return err
			}, "alice v4 live 'new' 1e-06 0"},
			{"Update, over as it begins", func(out *db.Written) (err error) {
				*out, err = x.Update(ctx, with(func(w *db.Write) { w.TTL = -time.Second }), 3)
				return err
			}, "alice v4 live 'new' -1 0"},
			{"Update, for centuries", func(out *db.Written) (err error) {
				*out, err = x.Update(ctx, with(func(w *db.Write) { w.TTL = 1<<63 - 1 }), 3)
				return err
			}, "alice v4 live 'new' 9223372036.854776 0"},
			{"Update unseen does not extend", func(out *db.Written) (err error) {
				*out, err = x.Update(ctx, with(func(w *db.Write) { w.Unseen = true }), 3)
				return err
			}, "alice v4 live 'new' 3600 -60"},
			{"Update unseen shortens", func(out *db.Written) (err error) {
				*out, err = x.Update(ctx, with(func(w *db.Write) { w.Unseen, w.TTL = true, time.Minute }), 3)
				return err
			}, "alice v4 live 'new' 60 -60"},
			{"Touch", func(out *db.Written) (err error) {
				*out, err = x.Touch(ctx, id(1), "alice", 3, 2*time.Hour)
				return err
			},
				"alice v3 live 'data' 7200 0"},
			{"Touch does not shorten", func(out *db.Written) (err error) { *out, err = x.Touch(ctx, id(1), "alice", 3, 0); return err },
				"alice v3 live 'data' 3600 0"},
			{"SwitchUser", func(out *db.Written) error {
				x.send(func(b *db.Batch) { b.SwitchUser(with(func(w *db.Write) { w.User = "bob" }), out) })
				return nil
			}, "bob v4 live 'new' 7200 0"},
			{"SwitchUser to nobody", func(out *db.Written) error {
				x.send(func(b *db.Batch) { b.SwitchUser(with(func(w *db.Write) { w.User = "" }), out) })
				return nil
			}, "nobody v4 live 'new' 7200 0"},
			{"Insert", func(out *db.Written) (err error) {
				pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
				*out, err = x.Insert(ctx, with(func(w *db.Write) { w.User = "" }))
				return err
			}, "nobody v1 live 'new' 7200 0"},
			{"SignIn", func(out *db.Written) error {
				pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
				x.send(func(b *db.Batch) { b.SignIn(write, out) })
				return nil
			}, "alice v1 live 'new' 7200 0"},
			{"SignIn of nobody", func(out *db.Written) error {
				pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
				x.send(func(b *db.Batch) { b.SignIn(with(func(w *db.Write) { w.User = "" }), out) })
				return nil
			}, "nobody v1 live 'new' 7200 0"},
		} {
			pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
			x.put(session{n: 1, user: "alice", left: time.Hour})
			var out db.Written
			if err := tt.do(&out); err != nil || !out.OK {
				t.Errorf("%s: %+v, %v", tt.name, out, err)
			}
			if got := x.row(1); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
			r, err := x.Find(ctx, id(1))
			if err != nil || out.Version != r.Version || !out.Expiry.Equal(r.Expiry) || !out.LastSeen.Equal(r.LastSeen) || !out.Now.Equal(r.LastSeen) {
				t.Errorf("%s says %+v, the row is %+v, %v", tt.name, out, r, err)
			}
		}
	})
}

func TestWhatEndingsLeave(t *testing.T) {
	t.Parallel()
	x := open(t)
	for _, tt := range []struct {
		name string
		row  session
		add  func(*db.Batch)
		want string
	}{
		{"End", session{left: time.Hour}, func(b *db.Batch) { b.End(ids(1), db.Ending{Reason: row.Evicted, User: "alice"}, nil, nil) },
			"alice v3 evicted '' 3600 -60"},
		{"End of a pending one", session{left: time.Hour, reason: row.Renewed},
			func(b *db.Batch) { b.End(ids(1), db.Ending{Reason: row.SignedOut, User: "alice"}, nil, nil) }, "alice v3 signed_out '' 3600 -60"},
		{"TimeOut", session{}, func(b *db.Batch) { b.TimeOut(ids(1), "", time.Time{}) }, "alice v3 timed_out '' 0 -60"},
		// Until the session that goes on is stored.
		{"Renew", session{left: time.Hour}, func(b *db.Batch) { b.Renew(id(1), new(int)) }, "alice v3 renewed 'data' 3600 -60"},
		{"Anonymize", session{left: time.Hour, reason: row.Revoked}, func(b *db.Batch) { b.Anonymize("alice", ids(1)) },
			"nobody v3 revoked '' 3600 -60"},
		// It ends before the ending that follows, and keeps its reason.
		{"TimeOut, then End", session{}, func(b *db.Batch) {
			b.TimeOut(ids(1), "alice", noon)
			b.End(ids(1), db.Ending{Reason: row.Revoked, User: "alice"}, nil, nil)
		}, "alice v3 timed_out '' 0 -60"},
	} {
		pgtest.Exec(t, x.pool, `DELETE FROM scs_sessions`)
		tt.row.n, tt.row.user = 1, "alice"
		x.put(tt.row)
		x.send(tt.add)
		if got := x.row(1); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestEndCountsWhatItEnds(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		for n := 1; n <= 4; n++ {
			x.put(session{n: n, user: "alice", left: time.Hour})
		}
		x.put(
			session{n: 5, user: "bob", left: time.Hour},
			session{n: 6, user: "alice", left: time.Hour, reason: row.Renewed},
			session{n: 7, user: "alice", left: time.Hour, reason: row.Renewed},
		)
		for _, tt := range []struct {
			which          []pgtype.UUID
			alive, pending int
		}{{nil, 0, 0}, {ids(), 0, 0}, {ids(1), 1, 0}, {ids(1), 0, 0}, {ids(1, 2, 3, 5, 6, 9), 2, 1}, {ids(5, 4), 1, 0}, {ids(7), 0, 1}} {
			alive, pending := 7, 7
			x.send(func(b *db.Batch) {
				b.End(tt.which, db.Ending{Reason: row.Revoked, User: "alice"}, &alive, &pending)
				b.TimeOut(nil, "alice", noon)
			})
			if alive != tt.alive || pending != tt.pending {
				t.Errorf("%s: %d and %d ended, want %d and %d", numbers(tt.which), alive, pending, tt.alive, tt.pending)
			}
		}
		if got := x.row(5); got != "bob v3 live 'data' 3600 -60" {
			t.Errorf("bob's: %s", got)
		}
	})
}

func TestInsertAndSignInOverwriteNothing(t *testing.T) {
	t.Parallel()
	x := open(t)
	x.put(session{n: 1, user: "alice", reason: row.Revoked})
	before := x.row(1)
	w := db.Write{ID: id(1), Data: []byte("new"), TTL: time.Hour}
	if out, err := x.Insert(t.Context(), w); err != nil || out != (db.Written{}) {
		t.Errorf("Insert: %+v, %v", out, err)
	}
	b, out := x.Batch(), db.Written{}
	b.SignIn(w, &out)
	if err := x.Send(t.Context(), b); pgfault.Code(err) != pgfault.UniqueViolation || out.OK {
		t.Errorf("SignIn: %+v, %v", out, err)
	}
	if got := x.row(1); got != before {
		t.Errorf("the row was %s and is %s", before, got)
	}
}

// Only touches may be lost in a crash.
func TestOnlyTouchesCommitAsynchronously(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		pgtest.Exec(t, x.pool, `CREATE TABLE noted (setting text)`)
		pgtest.Exec(t, x.pool, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$`)
		pgtest.Exec(t, x.pool, `CREATE TRIGGER note BEFORE UPDATE ON scs_sessions FOR EACH ROW EXECUTE FUNCTION note()`)
		x.put(session{n: 1, user: "alice", left: time.Hour})
		for range 2 {
			if _, err := x.Touch(t.Context(), id(1), "alice", 3, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := x.Update(t.Context(), db.Write{ID: id(1), User: "alice", Data: []byte("new"), TTL: time.Hour}, 3); err != nil {
			t.Fatal(err)
		}
		if got := pgtest.Query[[]string](t, x.pool, `SELECT array_agg(setting) FROM noted`); !slices.Equal(got, []string{"off", "off", "on"}) {
			t.Error(got)
		}
	})
}

func TestEnlistAndDelistKeepTheUsersIndex(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, x *tables) {
		v4 := db.Client{IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "a 'quoted' agent", Label: "laptop"}
		v6 := db.Client{IP: netip.MustParseAddr("2001:db8::1")}
		for _, step := range []struct {
			add  func(*db.Batch)
			want string
		}{
			{func(b *db.Batch) { b.Enlist("alice", id(1), since(1), v4) }, "01 00:01:00 192.0.2.1 a 'quoted' agent laptop"},
			{func(b *db.Batch) { b.Enlist("alice", id(1), row.Place{Since: began(1), Label: "kept"}, v4) }, "01 00:01:00 192.0.2.1 a 'quoted' agent laptop"},
			{func(b *db.Batch) { b.Enlist("alice", id(1), row.Place{Since: began(1), Label: "kept"}, v6) }, "01 00:01:00 2001:db8::1 kept"},
			{func(b *db.Batch) { b.Relabel("alice", id(1), "phone") }, "01 00:01:00 2001:db8::1 phone"},
			{func(b *db.Batch) { b.Relabel("alice", id(1), "") }, "01 00:01:00 2001:db8::1"},
			{func(b *db.Batch) { b.Enlist("alice", id(1), since(2), v6) }, "01 00:02:00 2001:db8::1"},
			{func(b *db.Batch) { b.Enlist("alice", id(1), row.Place{}, db.Client{}) }, "01 00:00:00"},
			{func(b *db.Batch) {
				for n := 2; n <= 5; n++ {
					b.Enlist("alice", id(n), since(n), db.Client{})
				}
				b.Enlist("bob", id(2), since(2), db.Client{})
			}, "01 00:00:00, 02 00:02:00, 03 00:03:00, 04 00:04:00, 05 00:05:00"},
			{func(b *db.Batch) { b.Delist("alice") }, "01 00:00:00, 02 00:02:00, 03 00:03:00, 04 00:04:00, 05 00:05:00"},
			{func(b *db.Batch) { b.Delist("", id(1)) }, "01 00:00:00, 02 00:02:00, 03 00:03:00, 04 00:04:00, 05 00:05:00"},
			{func(b *db.Batch) { b.Delist("alice", id(2)) }, "01 00:00:00, 03 00:03:00, 04 00:04:00, 05 00:05:00"},
			{func(b *db.Batch) { b.Delist("alice", ids(1, 4, 9)...) }, "03 00:03:00, 05 00:05:00"},
		} {
			x.send(step.add)
			if got := x.indexed("alice"); got != step.want {
				t.Errorf("%s, want %s", got, step.want)
			}
		}
		if got := x.indexed("bob"); got != "02 00:02:00" {
			t.Errorf("bob's: %s", got)
		}
	})
}
