package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type namedString string

func TestValuesKeepTheirTypes(t *testing.T) {
	t.Parallel()
	for i, v := range []any{
		nil, "", "x", "\xff\x00", strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 1<<14),
		[]byte{}, []byte{0}, bytes.Repeat([]byte{0xff}, 1<<14),
		true, false,
		0, 1, -1, 63, 64, -64, -65, math.MaxInt, math.MinInt,
		int8(0), int8(math.MaxInt8), int8(math.MinInt8),
		int16(0), int16(math.MaxInt16), int16(math.MinInt16),
		int32(0), int32(math.MaxInt32), int32(math.MinInt32),
		int64(0), int64(math.MaxInt64), int64(math.MinInt64),
		uint(0), uint(math.MaxUint), uint8(0), uint8(math.MaxUint8), uint16(math.MaxUint16),
		uint32(math.MaxUint32), uint64(0), uint64(math.MaxUint64),
		float32(0), float32(math.MaxFloat32), float32(math.Inf(-1)),
		0.0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, math.Inf(1),
		time.Duration(0), -time.Nanosecond, time.Duration(math.MaxInt64),
		time.Time{}, testDeadline, time.Unix(0, 0).UTC(),
	} {
		t.Run(fmt.Sprintf("%d %T", i, v), func(t *testing.T) {
			t.Parallel()
			values := map[string]any{"key": v}
			b := mustEncode(t, codec{}, testDeadline, values)
			deadline, got := mustDecode(t, codec{}, b)
			if !reflect.DeepEqual(got, values) || !deadline.Equal(testDeadline) {
				t.Errorf("got %#v, want %#v", got, values)
			}
			if again := mustEncode(t, codec{}, deadline, got); !bytes.Equal(again, b) {
				t.Errorf("re-encoded as %x, was %x", again, b)
			}
			f := onlyField(t, b)
			if f.tag == tagGob {
				t.Errorf("%T went through gob", v)
			}
		})
	}
}

func onlyField(t testing.TB, b []byte) field {
	t.Helper()
	r := open(b)
	if !r.next() {
		t.Fatalf("no field: %v", r.err)
	}
	return r.field
}

func TestValuesNaN(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, codec{}, testDeadline, map[string]any{"a": math.NaN(), "b": float32(math.NaN())})
	_, values := mustDecode(t, codec{}, b)
	if !math.IsNaN(values["a"].(float64)) || !math.IsNaN(float64(values["b"].(float32))) {
		t.Errorf("got %v", values)
	}
	if !bytes.Equal(mustEncode(t, codec{}, testDeadline, values), b) {
		t.Error("a NaN makes an unchanged session look changed")
	}
}

func TestValuesNilBytesComeBackEmpty(t *testing.T) {
	t.Parallel()
	_, values := mustDecode(t, codec{}, mustEncode(t, codec{}, testDeadline, map[string]any{"key": []byte(nil)}))
	if got, ok := values["key"].([]byte); !ok || got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty []byte", values["key"])
	}
}

func TestValuesThroughGob(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		[]string{"a", ""}, []int{1, 2}, complex(1, 2), &cart{Items: map[string]int{"a": 1}}, hexID{1, 2, 3, 4}, fragile{'x'},
	} {
		b := mustEncode(t, codec{}, testDeadline, map[string]any{"key": v})
		if tag := onlyField(t, b).tag; tag != tagGob {
			t.Errorf("%T: tag %d, want gob", v, tag)
		}
		if _, got := mustDecode(t, codec{}, b); !reflect.DeepEqual(got["key"], v) {
			t.Errorf("got %#v, want %#v", got["key"], v)
		}
	}
	if _, err := (codec{}).Encode(testDeadline, map[string]any{"key": namedString("x")}); err == nil {
		t.Error("an unregistered named string was taken for a string")
	}
}

func TestValuesTimes(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Time{
		"UTC":            testDeadline,
		"Local":          testDeadline.In(time.Local),
		"now, monotonic": time.Now(),
		"east":           testDeadline.In(time.FixedZone("NPT", 5*3600+45*60)),
		"west":           testDeadline.In(time.FixedZone("NST", -3*3600-30*60)),
		"Greenwich":      testDeadline.In(time.FixedZone("GMT", 0)),
		"zero":           {},
		"before 1970":    time.Date(1815, 12, 10, 1, 2, 3, 4, time.UTC),
		"far":            time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		b := mustEncode(t, codec{}, testDeadline, map[string]any{"key": at})
		_, values := mustDecode(t, codec{}, b)
		got, ok := values["key"].(time.Time)
		_, wantOffset := at.Zone()
		_, gotOffset := got.Zone()
		if !ok || !got.Equal(at) || gotOffset != wantOffset || (got.Location() == time.UTC) != (at.Location() == time.UTC) {
			t.Errorf("%s: got %v, want %v", name, got, at)
		}
		if again := mustEncode(t, codec{}, testDeadline, values); !bytes.Equal(again, b) {
			t.Errorf("%s: re-encoded as %x, was %x", name, again, b)
		}
	}
}

// What does not fit its tag is carried through, whoever wrote it.
func TestValuesMalformedAreOpaque(t *testing.T) {
	t.Parallel()
	wide := binary.AppendVarint(nil, math.MaxInt64)
	for _, test := range []struct {
		tag     byte
		payload []byte
	}{
		{tagNil, []byte{0}},
		{tagBool, nil}, {tagBool, []byte{2}}, {tagBool, []byte{1, 1}},
		{tagInt, nil}, {tagInt, []byte{0x80}}, {tagInt, []byte{0, 0}}, {tagInt, bytes.Repeat([]byte{0xff}, 11)},
		{tagInt8, wide}, {tagInt16, wide}, {tagInt32, wide},
		{tagUint8, wide}, {tagUint16, wide}, {tagUint32, wide}, {tagUint64, nil},
		{tagDuration, nil}, {tagFloat32, make([]byte, 3)}, {tagFloat64, make([]byte, 9)},
		{tagTime, nil}, {tagTime, make([]byte, 15)}, {tagTime, []byte{1, 0}},
		{tagGob, nil}, {tagGob, []byte("nonsense")},
		{200, nil}, {255, []byte("from a newer release")},
	} {
		b := frameOf("", 1, field{key: []byte("key"), tag: test.tag, payload: test.payload})
		deadline, values := mustDecode(t, codec{}, b)
		if _, ok := values["key"].(Opaque); !ok {
			t.Errorf("tag %d, payload %x: got %#v, want an opaque value", test.tag, test.payload, values["key"])
		}
		if again := mustEncode(t, codec{}, deadline, values); !bytes.Equal(again, b) {
			t.Errorf("tag %d: re-encoded as %x, was %x", test.tag, again, b)
		}
	}
}

// Such zones are those of the local mean times of old, which the zero time is in.
func TestValuesTimesInZonesWithSecondsBecomeUTC(t *testing.T) {
	t.Parallel()
	for _, offset := range []int{-60, -75, -119, -17762, 59, -59, 7172, 60 * 40000, -60 * 40000} {
		at := time.Time{}.In(time.FixedZone("LMT", offset))
		b := mustEncode(t, codec{}, testDeadline, map[string]any{"key": at})
		_, values := mustDecode(t, codec{}, b)
		if got, ok := values["key"].(time.Time); !ok || !got.Equal(at) || got.Location() != time.UTC {
			t.Errorf("offset %d: got %v, want %v in UTC", offset, values["key"], at)
		}
		if again := mustEncode(t, codec{}, testDeadline, values); !bytes.Equal(again, b) {
			t.Errorf("offset %d: re-encoded as %x, was %x", offset, again, b)
		}
	}
}

func TestValuesWhoseDecoderPanicsAreOpaque(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, codec{}, testDeadline, map[string]any{"key": fragile{'!'}})
	deadline, values := mustDecode(t, codec{}, b)
	if again := mustEncode(t, codec{}, deadline, values); !bytes.Equal(again, b) {
		t.Errorf("re-encoded as %x, was %x", again, b)
	}
}
