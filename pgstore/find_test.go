package pgstore_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

// jsonCodec stands for any codec that is not ours.
type jsonCodec struct{}

func (jsonCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"deadline": deadline, "values": values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var v struct {
		Deadline time.Time
		Values   map[string]any
	}
	err := json.Unmarshal(b, &v)
	return v.Deadline, v.Values, err
}

func TestOtherCodecsKeepTheirData(t *testing.T) {
	t.Parallel()
	for name, codec := range map[string]scs.Codec{"gob": scs.GobCodec{}, "json": jsonCodec{}} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				a.sm.Codec = codec
				b := a.browser(t)
				for _, key := range []string{"a", "b", "c", "d"} {
					b.must("/put", "key", key, "value", "v")
				}
				before := a.store.Stat()
				b.must("/renew")
				if got := b.must("/me"); !strings.HasSuffix(got, "keys=a,b,c,d") {
					t.Errorf("%s", got)
				}
				b.must("/me")
				if wrote := a.store.Stat().Writes - before.Writes; a.tracked && wrote != 1 {
					t.Errorf("%d writes, want the renewal's only", wrote)
				}
				b.must("/logout")
				if got := b.must("/me"); !strings.HasSuffix(got, "keys=") {
					t.Errorf("%s", got)
				}
			})
		})
	}
}

// Moving over: rows that scs's codec has written are read by ours.
func TestGobRowsAreRead(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{})
	a.sm.Codec = scs.GobCodec{}
	b := a.browser(t)
	b.must("/put", "key", "cart", "value", "1")
	a.sm.Codec = pgstore.Codec{UserKey: userKey}
	if got := b.must("/me"); !strings.HasSuffix(got, "keys=cart") {
		t.Errorf("%s", got)
	}
	b.must("/login", "user", "alice")
	if got := b.must("/me"); got != "user=alice state=active reason= keys=cart,userID" {
		t.Errorf("%s", got)
	}
}

func TestDamagedRowIsNotFoundAndDoesNotWedge(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"frame cut short": `UPDATE scs_sessions SET data = substring(data FROM 1 FOR octet_length(data) - 1)`,
		"gob cut short":   `UPDATE scs_sessions SET data = '\x40ff810301'`,
		"empty":           `UPDATE scs_sessions SET data = ''`,
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, newApp newAppFunc) {
				a := newApp(t, migrated(t), pgstore.Config{})
				b := a.browser(t)
				b.must("/login", "user", "alice")
				pgtest.Exec(t, a.pool, damage)
				if user := b.user(); user != "" {
					t.Errorf("user %q", user)
				}
				if name == "frame cut short" && a.store.Stat().BadRows == 0 {
					t.Error("the damaged row was not counted")
				}
				b.must("/login", "user", "alice")
				if user := b.user(); user != "alice" {
					t.Errorf("user %q after signing in again", user)
				}
			})
		})
	}
}
