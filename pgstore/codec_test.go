package pgstore

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// cart is an app's own type; gob writes its map in no particular order.
type cart struct {
	Items map[string]int
	Note  string
}

// hexID is an id as uuid.UUID is one: an array with a String method.
type hexID [4]byte

func (id hexID) String() string { return fmt.Sprintf("%x", id[:]) }

// fragile is a type whose author expects no foreign bytes.
type fragile struct{ b byte }

func (f fragile) GobEncode() ([]byte, error) { return []byte{f.b}, nil }

func (f *fragile) GobDecode(b []byte) error {
	if b[0] == '!' {
		panic("fragile: unexpected byte")
	}
	f.b = b[0]
	return nil
}

// Names of one length, so that a test can patch one into another that no process
// has registered.
const (
	cartName    = "pgstore/test.known.cart"
	cartAlien   = "pgstore/test.alien.cart"
	hexIDName   = "pgstore/test.known.id"
	hexIDAlien  = "pgstore/test.alien.id"
	fragileName = "pgstore/test.fragile"
)

func init() {
	gob.RegisterName(cartName, &cart{})
	gob.RegisterName(hexIDName, hexID{})
	gob.RegisterName(fragileName, fragile{})
}

var testDeadline = time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.UTC)

func mustEncode(t testing.TB, c Codec, deadline time.Time, values map[string]any) []byte {
	t.Helper()
	b, err := c.Encode(deadline, values)
	if err != nil {
		t.Fatal(err)
	}
	if err := frame.Check(b); err != nil {
		t.Fatalf("Encode made a frame that frame.Check refuses: %v", err)
	}
	return b
}

func mustDecode(t testing.TB, c Codec, b []byte) (time.Time, map[string]any) {
	t.Helper()
	deadline, values, err := c.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return deadline, values
}

func TestCodecThroughSessionManager(t *testing.T) {
	t.Parallel()
	sm := scs.New()
	sm.Store = memstore.NewWithCleanupInterval(0)
	sm.Codec = Codec{UserKey: "user"}
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 5*3600+45*60))
	want := map[string]any{
		"user":   int64(42),
		"string": "text",
		"bool":   true,
		"int":    -7,
		"int32":  int32(1 << 30),
		"int64":  int64(-1 << 62),
		"float":  2.5,
		"bytes":  []byte{0, 1, 255},
		"time":   at,
		"cart":   &cart{Items: map[string]int{"apple": 2, "pear": 1}, Note: "gift"},
		"list":   []string{"a", "b"},
	}

	ctx, err := sm.Load(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range want {
		sm.Put(ctx, key, v)
	}
	sm.RememberMe(ctx, true)
	token, _, err := sm.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	deadline := sm.Deadline(ctx)
	if ctx, err = sm.Load(context.Background(), token); err != nil {
		t.Fatal(err)
	}

	got := map[string]any{
		"user":   sm.GetInt64(ctx, "user"),
		"string": sm.GetString(ctx, "string"),
		"bool":   sm.GetBool(ctx, "bool"),
		"int":    sm.GetInt(ctx, "int"),
		"int32":  sm.GetInt32(ctx, "int32"),
		"int64":  sm.GetInt64(ctx, "int64"),
		"float":  sm.GetFloat(ctx, "float"),
		"bytes":  sm.GetBytes(ctx, "bytes"),
		"time":   sm.GetTime(ctx, "time"),
		"cart":   sm.Get(ctx, "cart"),
		"list":   sm.Get(ctx, "list"),
	}
	for key := range want {
		if !reflect.DeepEqual(got[key], want[key]) {
			t.Errorf("%s: got %#v, want %#v", key, got[key], want[key])
		}
	}
	if !sm.GetBool(ctx, "__rememberMe") {
		t.Error("RememberMe was lost")
	}
	if !sm.Deadline(ctx).Equal(deadline) {
		t.Errorf("deadline: got %v, want %v", sm.Deadline(ctx), deadline)
	}
}

func TestCodecIsDeterministic(t *testing.T) {
	t.Parallel()
	values := make(map[string]any)
	for i := range 100 {
		values[fmt.Sprint("key", i)] = i
	}
	c := Codec{UserKey: "key7"}
	want := mustEncode(t, c, testDeadline, values)
	for range 20 {
		again := maps.Clone(values)
		// The same instant elsewhere, and a reading of the monotonic clock, change nothing.
		if b := mustEncode(t, c, testDeadline.In(time.FixedZone("", 3600)), again); !bytes.Equal(b, want) {
			t.Fatalf("got %x, want %x", b, want)
		}
	}
	deadline, decoded := mustDecode(t, c, want)
	if b := mustEncode(t, c, deadline, decoded); !bytes.Equal(b, want) {
		t.Fatalf("re-encoded: got %x, want %x", b, want)
	}
}

func TestCodecEmptySession(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{nil, {}} {
		deadline, got := mustDecode(t, Codec{}, mustEncode(t, Codec{}, time.Time{}, values))
		if got == nil || len(got) != 0 || !deadline.Equal(time.Time{}) {
			t.Errorf("got %v, %#v, want the zero time and an empty map that can be written to", deadline, got)
		}
	}
}

func TestCodecDecodeDoesNotAliasItsInput(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, Codec{}, testDeadline, map[string]any{"string": "text", "bytes": []byte("bytes"), "cart": &cart{Note: "note"}})
	b = append(make([]byte, 0, 2*len(b)), b...) // spare capacity is not part of it
	_, values := mustDecode(t, Codec{}, b)
	for i := range b {
		b[i] = 0xff
	}
	want := map[string]any{"string": "text", "bytes": []byte("bytes"), "cart": &cart{Note: "note"}}
	if !reflect.DeepEqual(values, want) {
		t.Errorf("got %#v, want %#v", values, want)
	}
}

func TestCodecLargeValue(t *testing.T) {
	t.Parallel()
	want := map[string]any{"large": strings.Repeat("0123456789", 1<<20), "small": 1}
	b := mustEncode(t, Codec{}, testDeadline, want)
	if _, got := mustDecode(t, Codec{}, b); !reflect.DeepEqual(got, want) {
		t.Error("10 MB did not survive")
	}
}

func TestCodecConcurrently(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			c := Codec{UserKey: "user"}
			want := map[string]any{"user": fmt.Sprint("user", n), "data": strings.Repeat(fmt.Sprint(n), 20_000*n), "cart": &cart{Note: fmt.Sprint(n)}}
			for range 50 {
				b, err := c.Encode(testDeadline, want)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = c.Encode(testDeadline, map[string]any{"a": n, "b": make(chan int)}) // fails half way
				_, got, err := c.Decode(b)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("got %#v, %v, want %#v", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCodecNamesTheValueItCannotEncode(t *testing.T) {
	t.Parallel()
	type unregistered struct{ N int }
	for name, v := range map[string]any{
		"unregistered struct": unregistered{1},
		"channel":             make(chan int),
		"func":                func() {},
		"nil pointer":         (*cart)(nil),
	} {
		_, err := Codec{}.Encode(testDeadline, map[string]any{"fine": 1, "the basket": v})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, part := range []string{"pgstore: ", `"the basket"`, reflect.TypeOf(v).String(), "gob.Register"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not contain %q", name, err, part)
			}
		}
	}
}

// A value whose type another process knows must survive this one, byte for byte.
func TestCodecCarriesUnknownGobTypes(t *testing.T) {
	t.Parallel()
	c := Codec{UserKey: "user"}
	want := map[string]any{"user": hexID{0xde, 0xad, 0xbe, 0xef}, "cart": &cart{Items: map[string]int{"apple": 1}}, "n": 1}
	known := mustEncode(t, c, testDeadline, want)
	alien := bytes.ReplaceAll(known, []byte(cartName), []byte(cartAlien))
	alien = bytes.ReplaceAll(alien, []byte(hexIDName), []byte(hexIDAlien))
	if bytes.Equal(known, alien) {
		t.Fatal("the frame does not name the types")
	}

	deadline, values := mustDecode(t, c, alien)
	if _, ok := values["cart"].(frame.Opaque); !ok {
		t.Fatalf("cart is %#v, want an opaque value", values["cart"])
	}
	values["n"] = 2
	changed := mustEncode(t, c, deadline, values)
	if user, keyed, ok := frame.User(changed); user != "deadbeef" || !keyed || !ok {
		t.Errorf("the user is %q, %t, %t, want deadbeef", user, keyed, ok)
	}
	values["n"] = 1
	if b := mustEncode(t, c, deadline, values); !bytes.Equal(b, alien) {
		t.Errorf("got %x, want %x", b, alien)
	}
	if !frame.Same(alien, alien) || frame.Same(alien, changed) {
		t.Error("sessions with opaque values are not told apart by their bytes")
	}

	// Back in a process that knows the types.
	changed = bytes.ReplaceAll(changed, []byte(cartAlien), []byte(cartName))
	changed = bytes.ReplaceAll(changed, []byte(hexIDAlien), []byte(hexIDName))
	want["n"] = 2
	if _, got := mustDecode(t, c, changed); !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestCodecReadsGobRows(t *testing.T) {
	t.Parallel()
	want := map[string]any{"string": "text", "int": 7, "bytes": []byte("b"), "float": 1.5, "cart": &cart{Items: map[string]int{"a": 1}}}
	b, err := scs.GobCodec{}.Encode(testDeadline, want)
	if err != nil {
		t.Fatal(err)
	}
	deadline, got := mustDecode(t, Codec{UserKey: "user"}, b)
	if !deadline.Equal(testDeadline) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %#v, want %v, %#v", deadline, got, testDeadline, want)
	}

	if b, err = (scs.GobCodec{}).Encode(testDeadline, nil); err != nil {
		t.Fatal(err)
	}
	if deadline, got = mustDecode(t, Codec{}, b); got == nil || !deadline.Equal(testDeadline) {
		t.Errorf("without values: got %v, %#v, want a map that can be written to", deadline, got)
	}
}

// Not parallel: it looks at what is logged.
func TestCodecStartsOverWhereAGobRowIsUnreadable(t *testing.T) {
	row, err := scs.GobCodec{}.Encode(testDeadline, map[string]any{"secret": "hush-hush", "cart": &cart{}})
	if err != nil {
		t.Fatal(err)
	}
	panics, err := scs.GobCodec{}.Encode(testDeadline, map[string]any{"fragile": fragile{'!'}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nil":          nil,
		"empty":        {},
		"cut short":    row[:len(row)-1],
		"unknown type": bytes.ReplaceAll(row, []byte(cartName), []byte(cartAlien)),
		"JSON":         []byte(`{"secret":"hush-hush"}`),
		"ones":         bytes.Repeat([]byte{0xff}, 64),
		"type panics":  panics,
	} {
		log := captureLog(t)
		deadline, values, err := Codec{}.Decode(b)
		if err != nil || values == nil || len(values) != 0 || !deadline.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: got %v, %#v, %v, want an empty session in the past", name, deadline, values, err)
		}
		if lines := strings.Count(log.String(), "level=ERROR"); lines != 1 {
			t.Errorf("%s: %d errors logged, want 1", name, lines)
		}
		if strings.Contains(log.String(), "hush") {
			t.Errorf("%s: session data was logged: %s", name, log)
		}
	}
}

func captureLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return &log
}

func TestCodecRefusesBrokenFrames(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, Codec{}, testDeadline, map[string]any{"key": "value"})
	deadline, values, err := Codec{}.Decode(b[:len(b)-1])
	if err == nil || !strings.HasPrefix(err.Error(), "pgstore: ") || values != nil || !deadline.IsZero() {
		t.Errorf("got %v, %#v, %v, want an error of ours and nothing else", deadline, values, err)
	}
}

func TestCodecSaysWhichUserIDIsWrong(t *testing.T) {
	t.Parallel()
	c := Codec{UserKey: "userID"}
	for name, v := range map[string]any{
		"struct":        cart{},
		"bool":          true,
		"too long":      strings.Repeat("x", maxUserIDBytes+1),
		"not UTF-8":     "\xff",
		"with NUL":      "a\x00b",
		"Stringer long": longID{},
	} {
		_, err := c.Encode(testDeadline, map[string]any{"userID": v})
		if err == nil || !strings.Contains(err.Error(), `"userID"`) {
			t.Errorf("%s: got %v, want an error that names the key", name, err)
		}
		if _, err := (Codec{UserKey: "other"}).Encode(testDeadline, map[string]any{"other": 1}); err != nil {
			t.Errorf("another key: %v", err)
		}
	}
}

type longID struct{}

func (longID) String() string { return strings.Repeat("x", maxUserIDBytes+1) }

func TestCodecWritesTheUserIntoTheFrame(t *testing.T) {
	t.Parallel()
	c := Codec{UserKey: "user"}
	longest := strings.Repeat("é", maxUserIDBytes/2) + "x"
	for _, test := range []struct {
		codec  Codec
		values map[string]any
		user   string
		keyed  bool
	}{
		{Codec{}, map[string]any{"user": "alice", "": "bob"}, "", false},
		{c, nil, "", true},
		{c, map[string]any{"user": nil}, "", true},
		{c, map[string]any{"user": ""}, "", true},
		{c, map[string]any{"user": "alice"}, "alice", true},
		{c, map[string]any{"user": 0}, "0", true},
		{c, map[string]any{"user": longest}, longest, true},
		{c, map[string]any{"user": hexID{1}}, "01000000", true},
	} {
		b := mustEncode(t, test.codec, testDeadline, test.values)
		if user, keyed, ok := frame.User(b); user != test.user || keyed != test.keyed || !ok {
			t.Errorf("%v: got %q, %t, %t, want %q, %t", test.values, user, keyed, ok, test.user, test.keyed)
		}
	}
}
