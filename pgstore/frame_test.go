package pgstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"
)

// frameOf builds a frame by hand.
func frameOf(h header, count int, fs ...field) []byte {
	b := appendHeader(nil, h, count)
	for _, f := range fs {
		b = appendField(b, f)
	}
	return b
}

func oneOf(key string) field { return field{key: []byte(key), tag: tagNil} }

func TestFrameLayout(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, Codec{UserKey: "u"}, time.Unix(-1, 5), map[string]any{"u": "al", "n": -2, "": true})
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
	_, got := mustDecode(t, Codec{}, mustEncode(t, Codec{}, testDeadline, want))
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
	b := mustEncode(t, Codec{UserKey: "user"}, testDeadline, map[string]any{
		"user": "alice", "n": 1 << 40, "f": 1.5, "at": testDeadline, "cart": &cart{Note: "x"}, "zero": nil,
	})
	none := mustEncode(t, Codec{}, testDeadline, nil)
	for n := range b {
		cut := b[:n:n]
		if err := checkFrame(cut); !errors.Is(err, errFrame) {
			t.Errorf("%d of %d bytes: got %v, want errFrame", n, len(b), err)
		}
		if n == 0 {
			continue // not marked as a frame
		}
		if _, values, err := (Codec{}).Decode(cut); !errors.Is(err, errFrame) || values != nil {
			t.Errorf("%d of %d bytes: decoded as %v, %v", n, len(b), values, err)
		}
		if sameSession(b, cut) || sameSession(cut, b) {
			t.Errorf("%d of %d bytes are the same session", n, len(b))
		}
		for i, three := range [][3][]byte{{cut, b, b}, {b, cut, b}, {b, b, cut}, {cut, none, none}} {
			if _, ok := mergeSession(three[0], three[1], three[2]); ok {
				t.Errorf("%d of %d bytes were merged in case %d", n, len(b), i)
			}
		}
	}
	longer := append(bytes.Clone(b), 0)
	if err := checkFrame(longer); !errors.Is(err, errFrame) {
		t.Errorf("a byte too many: got %v, want errFrame", err)
	}
	if sameSession(b, longer) || sameSession(longer, b) {
		t.Error("a byte too many is the same session")
	}
}

func TestFrameRefuses(t *testing.T) {
	t.Parallel()
	h := header{sec: 1, user: []byte("alice"), keyed: true}
	good := frameOf(h, 2, oneOf("a"), oneOf("b"))
	if err := checkFrame(good); err != nil {
		t.Fatal(err)
	}
	sealed := bytes.Clone(good)
	sealed[1] = 0x02
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01} // 1<<64 - 1
	over := append(bytes.Repeat([]byte{0xff}, 10), 0x01)
	start := []byte{frameMark, frameVersion, 0, 0}
	for name, b := range map[string][]byte{
		"nil":                  nil,
		"another byte":         []byte("gob"),
		"a later version":      sealed,
		"nanoseconds":          frameOf(header{nsec: uint64(time.Second)}, 0),
		"keys out of order":    frameOf(h, 2, oneOf("b"), oneOf("a")),
		"a key twice":          frameOf(h, 2, oneOf("a"), oneOf("a")),
		"the empty key twice":  frameOf(h, 2, oneOf(""), oneOf("")),
		"too few fields":       frameOf(h, 2, oneOf("a")),
		"too many fields":      frameOf(h, 1, oneOf("a"), oneOf("b")),
		"endless deadline":     append([]byte{frameMark, frameVersion}, over...),
		"endless nanoseconds":  append([]byte{frameMark, frameVersion, 0}, over...),
		"huge user":            append(bytes.Clone(start), append(bytes.Clone(huge), 'x')...),
		"user longer by one":   append(bytes.Clone(start), 3, 'x'),
		"huge count":           append(append(bytes.Clone(start), 0), huge...),
		"endless count":        append(append(bytes.Clone(start), 0), over...),
		"huge key":             append(append(bytes.Clone(start), 0, 1), append(bytes.Clone(huge), 0, 0, 0)...),
		"huge value":           append(append(bytes.Clone(start), 0, 1, 0, tagString), append(bytes.Clone(huge), 0, 0)...),
		"value longer by one":  append(bytes.Clone(start), 0, 1, 0, tagString, 2, 'x'),
		"no tag after the key": append(bytes.Clone(start), 0, 1, 2, 'k', 'k'),
	} {
		if err := checkFrame(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %v, want errFrame", name, err)
		}
		if isFrame(b) {
			if _, _, err := (Codec{}).Decode(b); !errors.Is(err, errFrame) {
				t.Errorf("%s: decoded: %v", name, err)
			}
		}
	}
}

// Not parallel: it counts what is allocated. A count is believed only as far as there
// are bytes for as many fields.
func TestFrameCountsAllocateNoMoreThanTheInputAllows(t *testing.T) {
	const size = 4 << 10
	b := binary.AppendUvarint([]byte{frameMark, frameVersion, 0, 0, 0}, 1<<62)
	b = append(b, make([]byte, size)...)
	atMost := binary.AppendUvarint([]byte{frameMark, frameVersion, 0, 0, 0}, size/minFieldBytes)
	atMost = append(atMost, bytes.Repeat([]byte{0xff}, size)...)
	for _, b := range [][]byte{b, atMost} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := (Codec{}).Decode(b); err == nil {
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
		b := mustEncode(t, Codec{UserKey: "user"}, at, map[string]any{"user": "alice"})
		if got, ok := frameDeadline(b); !ok || !got.Equal(at) || got.Location() != time.UTC {
			t.Errorf("got %v, %t, want %v in UTC", got, ok, at.UTC())
		}
	}
	for _, b := range [][]byte{nil, {}, {0}, {0, 2, 0, 0, 0, 0}, []byte("a gob stream")} {
		if user, keyed, ok := frameUser(b); user != "" || keyed || ok {
			t.Errorf("%x: got the user %q, %t, %t", b, user, keyed, ok)
		}
		if _, ok := frameDeadline(b); ok {
			t.Errorf("%x has a deadline", b)
		}
	}
	if isFrame(nil) || isFrame([]byte("\x01")) || !isFrame([]byte{0}) || !isFrame([]byte{0, 2}) {
		t.Error("isFrame goes by the first byte, whatever the version")
	}
}

// Not parallel: it counts allocations.
func TestFrameFunctionsDoNotAllocate(t *testing.T) {
	b := mustEncode(t, Codec{UserKey: "user"}, testDeadline, sixKeys())
	other := mustEncode(t, Codec{UserKey: "user"}, testDeadline.Add(1), sixKeys())
	late := sixKeys()
	late["visits"] = 18
	changed := mustEncode(t, Codec{UserKey: "user"}, testDeadline, late)
	for name, test := range map[string]struct {
		most float64
		f    func()
	}{
		"checkFrame":            {0, func() { _ = checkFrame(b) }},
		"frameDeadline":         {0, func() { frameDeadline(b) }},
		"frameUser":             {1, func() { frameUser(b) }},
		"sameSession, deadline": {0, func() { sameSession(b, other) }},
		"sameSession, a value":  {0, func() { sameSession(b, changed) }},
		"mergeSession":          {2, func() { mergeSession(b, changed, other) }},
	} {
		if n := testing.AllocsPerRun(100, test.f); n > test.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, test.most)
		}
	}
}
