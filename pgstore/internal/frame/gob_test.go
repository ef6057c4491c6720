package frame

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

type (
	// cart is an app's own type; gob writes its map in no particular order.
	cart struct {
		Items map[string]int
		Note  string
	}
	point struct {
		X, Y int
		Name string
		_    map[string]any // unexported, so gob leaves it out
	}
	tree struct {
		Left, Right *tree
		Value       point
	}
	holder struct {
		Any  any
		Some []any
	}
	shapes map[string][]point

	// prices holds floats wherever gob lets them be. With Order, no two encodings are alike.
	prices struct {
		One    float64
		Few    [2]float32
		List   []float64
		ByName map[string]float64
		Next   *prices
		Any    any
		Clock  clock
		Order  map[int]int
		at     time.Time // gob leaves it out
	}
)

// clock decodes itself, into what reflect cannot compare by its parts: a func, and itself.
type clock struct {
	self  *clock
	now   func() float64
	Reads float64
}

func (c clock) MarshalBinary() ([]byte, error) { return []byte{byte(c.Reads)}, nil }

func (c *clock) UnmarshalBinary(b []byte) error {
	c.self, c.Reads = c, float64(b[0])
	if b[0] == '!' {
		c.now = func() float64 { return 1 }
	}
	return nil
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

func init() {
	gob.RegisterName("frame/test.point", point{})
	for _, v := range []any{&cart{}, hexID{}, fragile{}, &tree{}, holder{}, shapes{}, []point{}, map[int]string{}, time.Time{}, &prices{}, map[string]float64{}, map[float64]int{}, map[string]any{}, []any{}} {
		gob.Register(v)
	}
}

func gobValues(n int) []any {
	return []any{
		point{X: n, Y: -n, Name: fmt.Sprint(n)}, point{Name: strings.Repeat("x", 100*n)},
		&tree{Left: &tree{Value: point{X: n}}, Value: point{Y: n}},
		holder{Any: point{X: n}, Some: []any{n, "text", []point{{Y: n}}}}, holder{Any: &tree{Value: point{X: n}}}, holder{},
		shapes{"a": {{X: n}}, "b": nil}, []point{{X: n}, {}}, map[int]string{n: "x"}, []string{fmt.Sprint(n)}, hexID{byte(n)}, fragile{'x'},
	}
}

func streamOf(t testing.TB, v any) []byte {
	t.Helper()
	f := onlyField(t, mustEncode(t, codec{}, testDeadline, map[string]any{"": v}))
	if f.tag != tagGob {
		t.Fatalf("%T did not go through gob", v)
	}
	return f.payload
}

// Each stream can be read alone, by any decoder.
func TestGobStreamsStandAlone(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 10 {
				for _, v := range gobValues(worker*10 + n) {
					stream := streamOf(t, v)
					if got, ok := decodeGob(stream); !ok || !reflect.DeepEqual(got, v) {
						t.Errorf("%T: %#v, %t", v, got, ok)
					}
					var got any
					if err := gob.NewDecoder(bytes.NewReader(stream)).Decode(&got); err != nil || !reflect.DeepEqual(got, v) {
						t.Errorf("%T, read by gob: %#v, %v", v, got, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestGobRefusesNilsAndStreamsCutShort(t *testing.T) {
	t.Parallel()
	if _, err := appendValue(nil, []*point{nil}); err == nil {
		t.Error("a nil in a slice was encoded")
	}
	stream := streamOf(t, point{X: 1})
	for cut := range stream {
		if v, ok := decodeGob(stream[:cut]); ok {
			t.Errorf("cut to %d bytes: %v", cut, v)
		}
	}
}

// The second point of a process, written with definitions kept from the first.
func TestGobStreamsInTablesDecode(t *testing.T) {
	t.Parallel()
	const row = "\x00\x01\xb2\xef\x91\xb6\x0e\x95\x9a\xef:\x06alice\x04\x04list\x12!\x16\x10\x00\b[]string\x7f\x02\x01\x02\xff\x80\x00\x01\f\x00\x00" +
		"\t\xff\x80\x06\x00\x02\x01a\x01b\x01n\x04\x01\x0e\x01p\x12M<\x10\x00\x10frame/test.point\xff\x81\x03\x01\x01\x06zpoint\x01\xff\x82\x00" +
		"\x01\x03\x01\x01X\x01\x04\x00\x01\x01Y\x01\x04\x00\x01\x04Name\x01\f\x00\x00\x00\x0f\xff\x82\f\x01\b\x01\a\x01\x05north\x00\x04user\x01\x05alice"
	want := map[string]any{"user": "alice", "p": point{X: 4, Y: -4, Name: "north"}, "list": []string{"a", "b"}, "n": 7}
	deadline, got := mustDecode(t, codec{"user"}, []byte(row))
	if !deadline.Equal(testDeadline) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %#v, want %v, %#v", deadline, got, testDeadline, want)
	}
	if !Same([]byte(row), mustEncode(t, codec{"user"}, testDeadline, want)) {
		t.Error("encoded again it is another session")
	}
}

func TestDecodeGobCodecAgreesWithSCS(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"nil": nil, "empty": {}, "plain": sixKeys(),
		"through gob": {"list": []string{"a"}, "cart": &cart{Items: map[string]int{"a": 1}}, "any": holder{Any: point{X: 1}}, "id": hexID{1}, "fragile": fragile{'x'}},
	} {
		for _, at := range []time.Time{testDeadline, {}, testDeadline.In(time.FixedZone("", -7200))} {
			row, err := scs.GobCodec{}.Encode(at, values)
			if err != nil {
				t.Fatal(err)
			}
			wantDeadline, want, err := scs.GobCodec{}.Decode(row)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = map[string]any{} // can be written to
			}
			deadline, got, err := DecodeGobCodec(row)
			if err != nil || !reflect.DeepEqual(deadline, wantDeadline) || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, %#v, %v, want %v, %#v", name, deadline, got, err, wantDeadline, want)
			}
			for cut := range row {
				if deadline, got, err := DecodeGobCodec(row[:cut]); err == nil || got != nil || !deadline.IsZero() {
					t.Fatalf("%s, cut to %d bytes: got %v, %v, %v", name, cut, deadline, got, err)
				}
			}
		}
	}
	row, err := scs.GobCodec{}.Encode(testDeadline, map[string]any{"fragile": fragile{'!'}})
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := DecodeGobCodec(row); err == nil || got != nil {
		t.Errorf("where a type panics: got %v, %v, want an error", got, err)
	}
}

// telltale is an app's type whose decoder says what it could not read.
type telltale struct{ text string }

func (v telltale) GobEncode() ([]byte, error) { return []byte(v.text), nil }

func (*telltale) GobDecode(b []byte) error { return fmt.Errorf("cannot read %q", b) }

// Of each byte, every other value. Not parallel: for an error about a type, gob reads its table
// of types without its lock, and other tests make new ones.
func TestDecodeGobCodecsErrorsQuoteNothing(t *testing.T) {
	gob.Register(telltale{})
	encode := func(values map[string]any) []byte {
		row, err := scs.GobCodec{}.Encode(testDeadline, values)
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	rows := [][]byte{encode(map[string]any{"of the app's": telltale{"hush-hush"}})}
	whole := encode(map[string]any{"pin": "hush-hush", "n": 1})
	for i := range whole {
		for b := range 256 {
			row := bytes.Clone(whole)
			row[i] = byte(b)
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		if _, _, err := DecodeGobCodec(row); err != nil && strings.Contains(err.Error(), "hush") {
			t.Fatal(err)
		}
	}
}
