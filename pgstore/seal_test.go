package pgstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
	"github.com/scspg/scspg/pgstore/keyring"
)

func sealKey(id uint32) keyring.Key {
	return keyring.Key{ID: id, Secret: bytes.Repeat([]byte{byte(id)}, 32)}
}

func newRing(t testing.TB, ids ...uint32) *keyring.Ring {
	t.Helper()
	r, err := keyring.New(sealKey(1))
	if err == nil {
		err = rotate(r, ids...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rotate(r *keyring.Ring, ids ...uint32) error {
	var keys []keyring.Key
	for _, id := range ids {
		keys = append(keys, sealKey(id))
	}
	return r.Rotate(keys...)
}

// sealedWith counts the live rows by the key that they are sealed with, 0 for none.
func sealedWith(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return pgtest.Query[string](t, pool, `SELECT coalesce(string_agg(key || ':' || n, ' ' ORDER BY key), '') FROM (
		SELECT CASE WHEN position('\x01'::bytea || 'sealed:' IN data) = 1 THEN get_byte(data, 11) ELSE 0 END AS key, count(*) AS n
		FROM scs_sessions WHERE end_reason IS NULL AND expiry > now() GROUP BY 1) AS rows`)
}

func TestSealedSessionsWorkAsOthersDo(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		pool := migrated(t)
		a := newApp(t, pool, pgstore.Config{UserLimit: 2, Seal: newRing(t, 1)})
		b := a.browser(t)
		b.must("/put", "key", "cart", "value", "findme") // while anonymous
		b.must("/login", "user", "alice")
		b.must("/put", "key", "note", "value", "findme")
		b.must("/renew")
		if got := b.must("/me"); got != "user=alice state=active reason= keys=cart,note,userID" && a.tracked ||
			!strings.HasSuffix(got, "keys=cart,note,userID") {
			t.Error(got)
		}
		for range 2 {
			a.browser(t).must("/login", "user", "alice")
		}
		if got := live(t, pool, "alice"); got != 2 {
			t.Errorf("%d live", got)
		}
		if got := sealedWith(t, pool); got != "1:2" {
			t.Errorf("sealed: %s", got)
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions WHERE position('findme' IN data) > 0 OR position('alice' IN data) > 0`); n != 0 {
			t.Errorf("%d rows can be read", n)
		}
	})
}

func TestSealedSessionIsMergedAndNotWrittenWithoutNeed(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{Seal: newRing(t, 1)})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	finish := b.hold("after", "put")
	b.must("/put", "key", "other", "value", "1")
	if status, body := finish(); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	before := a.store.Stat()
	if got := b.keys(); got != "held,other,userID" {
		t.Error(got)
	}
	if after := a.store.Stat(); after.Writes != before.Writes || after.Skips != before.Skips+1 {
		t.Errorf("%+v", after)
	}
}

// Each row opens where it was sealed only, and one that does not costs nobody an error.
func TestSealedDataOpensInItsRowOnly(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"another id":   `UPDATE scs_sessions SET data = (SELECT data FROM scs_sessions WHERE id = $2) WHERE id = $1`,
		"another user": `UPDATE scs_sessions SET user_id = 'mallory' WHERE id = $1 AND $2::uuid IS NOT NULL`,
		"a byte":       `UPDATE scs_sessions SET data = set_byte(data, 50, get_byte(data, 50) # 1) WHERE id = $1 AND $2::uuid IS NOT NULL`,
		"plain data":   `UPDATE scs_sessions SET data = '\x00' WHERE id = $1 AND $2::uuid IS NOT NULL`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				pool := migrated(t)
				a := newApp(t, pool, pgstore.Config{Seal: newRing(t, 1)})
				b, other := a.browser(t), a.browser(t)
				b.must("/login", "user", "alice")
				other.must("/login", "user", "alice")
				id := pgstore.IDOf(b.token())
				pgtest.Exec(t, pool, change, id, pgstore.IDOf(other.token()))
				stored := pgtest.Query[[]byte](t, pool, `SELECT data FROM scs_sessions WHERE id = $1`, id)
				if got := b.must("/me"); !strings.HasPrefix(got, "user= ") {
					t.Error(got)
				}
				if n := a.store.Stat().BadRows; n != 1 {
					t.Errorf("%d bad rows", n)
				}
				if now := pgtest.Query[[]byte](t, pool, `SELECT data FROM scs_sessions WHERE id = $1`, id); !bytes.Equal(now, stored) {
					t.Error("the row has changed")
				}
				if got := other.must("/me"); !strings.HasPrefix(got, "user=alice ") {
					t.Errorf("the other session: %s", got)
				}
				b.must("/login", "user", "alice") // nobody is locked out
			})
		})
	}
}

func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	t.Parallel()
	pool, ring := migrated(t), newRing(t, 1)
	a := newApp(t, pool, pgstore.Config{Seal: ring, TouchAfter: 1})
	var browsers []*browser
	for i := range 4 {
		b := a.browser(t)
		b.must("/login", "user", fmt.Sprint("user", i))
		browsers = append(browsers, b)
	}
	if err := rotate(ring, 2, 1); err != nil {
		t.Fatal(err)
	}
	browsers[0].must("/put", "key", "k", "value", "v")
	browsers[1].must("/me") // a touch
	if got := sealedWith(t, pool); got != "1:3 2:1" {
		t.Errorf("after a data write: %s", got)
	}
	before := pgtest.Query[string](t, pool, `SELECT string_agg(concat(version, expiry, last_seen_at), ' ' ORDER BY id) FROM scs_sessions`)
	finish := browsers[2].hold("after", "put") // a request that has loaded what Reseal changes
	n, err := a.store.Reseal(t.Context())
	if n != 3 || err != nil {
		t.Errorf("resealed %d, %v", n, err)
	}
	if after := pgtest.Query[string](t, pool, `SELECT string_agg(concat(version, expiry, last_seen_at), ' ' ORDER BY id) FROM scs_sessions`); after != before {
		t.Errorf("more than the data has changed: %s, was %s", after, before)
	}
	if status, body := finish(); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if c := a.store.Stat().Conflicts; c != 0 {
		t.Errorf("%d conflicts with it", c)
	}
	if n, err := a.store.Reseal(t.Context()); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}
	if err := rotate(ring, 2); err != nil {
		t.Fatal(err)
	}
	for i, b := range browsers {
		if got := b.user(); got != fmt.Sprint("user", i) {
			t.Errorf("%d: %q", i, got)
		}
	}
	if got := sealedWith(t, pool); got != "2:4" {
		t.Error(got)
	}
}

func TestSessionsOfAMissingKeyComeBackWithIt(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		var log bytes.Buffer
		pool, ring := migrated(t), newRing(t, 1)
		a := newApp(t, pool, pgstore.Config{Seal: ring, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		b, other := a.browser(t), a.browser(t)
		b.must("/login", "user", "alice")
		other.must("/login", "user", "bob")
		if err := rotate(ring, 2); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, b := range []*browser{b, other} {
				guest := a.browser(t) // its own jar may get another cookie
				guest.setToken(b.token())
				if got := guest.must("/me"); !strings.HasPrefix(got, "user= ") {
					t.Error(got)
				}
			}
		}
		if n := a.store.Stat().BadRows; n != 4 {
			t.Errorf("%d bad rows", n)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "key 1, which is not in the ring") {
			t.Errorf("%d errors: %s", n, log.String())
		}
		if n, err := a.store.Reseal(t.Context()); n != 0 || err != nil {
			t.Errorf("resealed %d, %v", n, err)
		}
		if err := rotate(ring, 2, 1); err != nil {
			t.Fatal(err)
		}
		if b.user() != "alice" || other.user() != "bob" {
			t.Error("they are not back")
		}
	})
}

// Another node writes with a key that this one does not have, while a request is under way.
func TestWhatCannotBeOpenedIsNotOverwritten(t *testing.T) {
	t.Parallel()
	pool, ring, newer := migrated(t), newRing(t, 1), newRing(t, 2, 1)
	a, node := newApp(t, pool, pgstore.Config{Seal: ring}), newApp(t, pool, pgstore.Config{Seal: newer})
	b := a.browser(t)
	b.must("/login", "user", "alice")
	finish := b.hold("after", "put")
	there := node.browser(t)
	there.setToken(b.token())
	there.must("/put", "key", "other", "value", "1")
	if status, body := finish(); status != 500 || !strings.Contains(body, "Config.Seal: keyring: it was encrypted with key 2, which is not in the ring") {
		t.Errorf("%d %s", status, body)
	}
	if got := there.keys(); got != "other,userID" {
		t.Error(got)
	}
}

func TestPlainRowsOpenIfAllowed(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	plain := newApp(t, pool, pgstore.Config{})
	b, other := plain.browser(t), plain.browser(t)
	b.must("/login", "user", "alice")
	other.must("/login", "user", "bob")

	strict := newApp(t, pool, pgstore.Config{Seal: newRing(t, 1)})
	lenient := newApp(t, pool, pgstore.Config{Seal: newRing(t, 1), AllowPlain: true})
	as := func(a *app, b *browser) string {
		guest := a.browser(t)
		guest.setToken(b.token())
		return guest.user()
	}
	if as(strict, b) != "" || as(lenient, b) != "alice" {
		t.Errorf("%q, %q", as(strict, b), as(lenient, b))
	}
	if n, err := lenient.store.Reseal(t.Context()); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if as(strict, b) != "alice" || as(strict, other) != "bob" {
		t.Error("they do not open")
	}
	// Without Seal, what is sealed is not taken for data.
	if got := as(plain, b); got != "" || plain.store.Stat().BadRows != 1 {
		t.Errorf("%q, %+v", got, plain.store.Stat())
	}
	if _, err := plain.store.Reseal(t.Context()); err == nil || !strings.Contains(err.Error(), "Config.Seal is not set") {
		t.Error(err)
	}
}

// A key service that does not answer.
type brokenAEAD struct{}

var errKMS = errors.New("the KMS does not answer")

func (brokenAEAD) Encrypt([]byte, []byte) ([]byte, error) { return nil, errKMS }
func (brokenAEAD) Decrypt([]byte, []byte) ([]byte, error) { return nil, errKMS }

func TestNothingIsStoredThatCannotBeSealed(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, newApp newAppFunc) {
		pool := migrated(t)
		a := newApp(t, pool, pgstore.Config{Seal: brokenAEAD{}})
		b := a.browser(t)
		for _, path := range []string{"/put", "/login"} {
			if status, body := b.get(path, "key", "k", "value", "v", "user", "alice"); status < 400 || !strings.Contains(body, "Config.Seal: the KMS does not answer") {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		if n := pgtest.Query[int](t, pool, `SELECT count(*) FROM scs_sessions`); n != 0 {
			t.Errorf("%d rows", n)
		}
		err := a.store.Commit("token", []byte("data"), time.Now().Add(time.Hour))
		if !errors.Is(err, errKMS) {
			t.Error(err)
		}
	})
}
