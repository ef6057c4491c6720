package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

var testDeadline = time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.UTC)

// codec is an scs.Codec, as pgstore makes one of a frame.
type codec struct{ userKey string }

func (c codec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	user := ""
	if v := values[c.userKey]; c.userKey != "" && v != nil {
		user = fmt.Sprint(v)
	}
	return Encode(deadline, user, c.userKey != "", values)
}

func (c codec) Decode(b []byte) (time.Time, map[string]any, error) {
	if !Is(b) {
		return DecodeGobCodec(b)
	}
	return Decode(b, c.userKey)
}

func mustEncode(t testing.TB, c codec, deadline time.Time, values map[string]any) []byte {
	t.Helper()
	b, err := c.Encode(deadline, values)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(b); err != nil {
		t.Fatalf("Encode made a frame that Check refuses: %v", err)
	}
	return b
}

func mustDecode(t testing.TB, c codec, b []byte) (time.Time, map[string]any) {
	t.Helper()
	deadline, values, err := c.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return deadline, values
}

func sixKeys() map[string]any {
	return map[string]any{
		"user": "7b1f0c3e-8a51-4d0b-9b0a-2f3d5c6e7f80", "csrf": strings.Repeat("t", 43), "__rememberMe": true,
		"visits": 17, "seen": time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC), "theme": "dark",
	}
}

// frameOf builds a frame by hand, with the zero time's deadline and, unless that is "", a
// user.
func frameOf(user string, count int, fs ...field) []byte {
	b := appendHeader(nil, time.Time{}, []byte(user), user != "", count)
	for _, f := range fs {
		b = appendField(b, f)
	}
	return b
}

func oneOf(key string) field { return field{key: []byte(key), tag: tagNil} }

func TestFrameLayout(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, codec{"u"}, time.Unix(-1, 5), map[string]any{"u": "al", "n": -2, "": true})
	want := []byte{
		0x00, 0x01, // mark, version
		0x01, 0x05, // -1 s, 5 ns
		0x03, 'a', 'l',
		0x03, // fields
		0x00, tagBool, 0x01, 0x01,
		0x01, 'n', tagInt, 0x01, 0x03,
		0x01, 'u', tagString, 0x02, 'a', 'l',
	}
	if !bytes.Equal(b, want) {
		t.Errorf("got  %x\nwant %x: rows already written could not be read", b, want)
	}
}

func TestFrameKeysOfAnyBytes(t *testing.T) {
	t.Parallel()
	want := map[string]any{"": 1, "\x00": 2, "\xff\xfe": 3, "é": 4, "a": 5, "aa": 6}
	_, got := mustDecode(t, codec{}, mustEncode(t, codec{}, testDeadline, want))
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for key, v := range want {
		if got[key] != v {
			t.Errorf("%q: got %v, want %v", key, got[key], v)
		}
	}
}

func TestFrameCutShort(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, codec{"user"}, testDeadline, map[string]any{
		"user": "alice", "n": 1 << 40, "f": 1.5, "at": testDeadline, "cart": &cart{Note: "x"}, "zero": nil,
	})
	none := mustEncode(t, codec{}, testDeadline, nil)
	for n := range b {
		cut := b[:n:n]
		if err := Check(cut); !errors.Is(err, errFrame) {
			t.Errorf("%d of %d bytes: got %v, want errFrame", n, len(b), err)
		}
		if n == 0 {
			continue // not marked as a frame
		}
		if _, values, err := Decode(cut, ""); !errors.Is(err, errFrame) || values != nil {
			t.Errorf("%d of %d bytes: decoded as %v, %v", n, len(b), values, err)
		}
		if Same(b, cut) || Same(cut, b) {
			t.Errorf("%d of %d bytes are the same session", n, len(b))
		}
		for i, three := range [][3][]byte{{cut, b, b}, {b, cut, b}, {b, b, cut}, {cut, none, none}} {
			if _, ok := Merge(three[0], three[1], three[2]); ok {
				t.Errorf("%d of %d bytes were merged in case %d", n, len(b), i)
			}
		}
	}
	longer := append(bytes.Clone(b), 0)
	if err := Check(longer); !errors.Is(err, errFrame) {
		t.Errorf("a byte too many: got %v, want errFrame", err)
	}
	if Same(b, longer) || Same(longer, b) {
		t.Error("a byte too many is the same session")
	}
}

func TestFrameRefuses(t *testing.T) {
	t.Parallel()
	const user = "alice"
	good := frameOf(user, 2, oneOf("a"), oneOf("b"))
	if err := Check(good); err != nil {
		t.Fatal(err)
	}
	sealed := bytes.Clone(good)
	sealed[1] = 0x02
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01} // 1<<64 - 1
	over := append(bytes.Repeat([]byte{0xff}, 10), 0x01)
	start := []byte{mark, version, 0, 0}
	for name, b := range map[string][]byte{
		"nil":                  nil,
		"another byte":         []byte("gob"),
		"a later version":      sealed,
		"nanoseconds":          append(binary.AppendUvarint([]byte{mark, version, 0}, uint64(time.Second)), 0, 0),
		"keys out of order":    frameOf(user, 2, oneOf("b"), oneOf("a")),
		"a key twice":          frameOf(user, 2, oneOf("a"), oneOf("a")),
		"the empty key twice":  frameOf(user, 2, oneOf(""), oneOf("")),
		"too few fields":       frameOf(user, 2, oneOf("a")),
		"too many fields":      frameOf(user, 1, oneOf("a"), oneOf("b")),
		"endless deadline":     append([]byte{mark, version}, over...),
		"endless nanoseconds":  append([]byte{mark, version, 0}, over...),
		"huge user":            append(bytes.Clone(start), append(bytes.Clone(huge), 'x')...),
		"user longer by one":   append(bytes.Clone(start), 3, 'x'),
		"huge count":           append(append(bytes.Clone(start), 0), huge...),
		"endless count":        append(append(bytes.Clone(start), 0), over...),
		"huge key":             append(append(bytes.Clone(start), 0, 1), append(bytes.Clone(huge), 0, 0, 0)...),
		"huge value":           append(append(bytes.Clone(start), 0, 1, 0, tagString), append(bytes.Clone(huge), 0, 0)...),
		"value longer by one":  append(bytes.Clone(start), 0, 1, 0, tagString, 2, 'x'),
		"no tag after the key": append(bytes.Clone(start), 0, 1, 2, 'k', 'k'),
	} {
		if err := Check(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %v, want errFrame", name, err)
		}
		if Is(b) {
			if _, _, err := Decode(b, ""); !errors.Is(err, errFrame) {
				t.Errorf("%s: decoded: %v", name, err)
			}
		}
	}
}

// Not parallel: it counts what is allocated. A count is believed only as far as there
// are bytes for as many fields.
func TestFrameCountsAllocateNoMoreThanTheInputAllows(t *testing.T) {
	const size = 4 << 10
	b := binary.AppendUvarint([]byte{mark, version, 0, 0, 0}, 1<<62)
	b = append(b, make([]byte, size)...)
	atMost := binary.AppendUvarint([]byte{mark, version, 0, 0, 0}, size/minFieldBytes)
	atMost = append(atMost, bytes.Repeat([]byte{0xff}, size)...)
	for _, b := range [][]byte{b, atMost} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := Decode(b, ""); err == nil {
			t.Error("decoded")
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 100*size {
			t.Errorf("%d bytes allocated for an input of %d", n, len(b))
		}
	}
}

func TestFrameUserAndDeadline(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{testDeadline, {}, time.Unix(-1, 999999999), time.Unix(1<<40, 1), testDeadline.In(time.FixedZone("", -7200))} {
		b := mustEncode(t, codec{"user"}, at, map[string]any{"user": "alice"})
		if got, ok := Deadline(b); !ok || !got.Equal(at) || got.Location() != time.UTC {
			t.Errorf("got %v, %t, want %v in UTC", got, ok, at.UTC())
		}
	}
	for _, b := range [][]byte{nil, {}, {0}, {0, 2, 0, 0, 0, 0}, []byte("a gob stream")} {
		if user, keyed, ok := User(b); user != "" || keyed || ok {
			t.Errorf("%x: got the user %q, %t, %t", b, user, keyed, ok)
		}
		if _, ok := Deadline(b); ok {
			t.Errorf("%x has a deadline", b)
		}
	}
	if Is(nil) || Is([]byte("\x01")) || !Is([]byte{0}) || !Is([]byte{0, 2}) {
		t.Error("Is goes by the first byte, whatever the version")
	}
}

// Not parallel: it counts allocations.
func TestFrameFunctionsDoNotAllocate(t *testing.T) {
	b := mustEncode(t, codec{"user"}, testDeadline, sixKeys())
	other := mustEncode(t, codec{"user"}, testDeadline.Add(1), sixKeys())
	late := sixKeys()
	late["visits"] = 18
	changed := mustEncode(t, codec{"user"}, testDeadline, late)
	for name, test := range map[string]struct {
		most float64
		f    func()
	}{
		"Check":          {0, func() { _ = Check(b) }},
		"Deadline":       {0, func() { Deadline(b) }},
		"User":           {1, func() { User(b) }},
		"Same, deadline": {0, func() { Same(b, other) }},
		"Same, a value":  {0, func() { Same(b, changed) }},
		"Merge":          {2, func() { Merge(b, changed, other) }},
	} {
		if n := testing.AllocsPerRun(100, test.f); n > test.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, test.most)
		}
	}
}
