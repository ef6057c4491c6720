package pgstore

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
)

type (
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
)

func init() {
	for _, v := range []any{point{}, &tree{}, holder{}, shapes{}, []point{}, map[int]string{}} {
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

func plainGob(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(&v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func plainUngob(b []byte) (v any, ok bool) {
	defer func() {
		if recover() != nil {
			v, ok = nil, false
		}
	}()
	err := gob.NewDecoder(bytes.NewReader(b)).Decode(&v)
	return v, err == nil && v != nil
}

func streamOf(t testing.TB, v any) []byte {
	t.Helper()
	b, err := appendValue(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	f := fields{rest: append([]byte{1, 'k'}, b...), left: 1}
	if !f.next() || f.tag != tagGob {
		t.Fatalf("%T: no gob stream: %v", v, f.err)
	}
	return f.payload
}

// Each stream can be read alone, by any decoder, and what any encoder wrote can be read,
// however many came before.
func TestGobStreamsStandAlone(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 10 {
				for _, v := range gobValues(worker*10 + n) {
					ours := streamOf(t, v)
					if got, ok := plainUngob(ours); !ok || !reflect.DeepEqual(got, v) {
						t.Errorf("%T, read by gob: %#v, %t", v, got, ok)
					}
					for _, stream := range [][]byte{ours, plainGob(t, v)} {
						if got, ok := decodeGob(stream); !ok || !reflect.DeepEqual(got, v) {
							t.Errorf("%T: %#v, %t", v, got, ok)
						}
					}
				}
			}
		})
	}
	wg.Wait()
}

// A value that cannot be encoded, or decoded, does not spoil the next one.
func TestGobErrorsDoNotLinger(t *testing.T) {
	t.Parallel()
	good := streamOf(t, point{X: 1})
	for range 3 {
		if _, err := appendValue(nil, &tree{Left: nil, Value: point{}}); err != nil {
			t.Fatal(err)
		}
		if _, err := appendValue(nil, []*point{nil}); err == nil {
			t.Error("a nil in a slice was encoded")
		}
		for cut := range good {
			if v, ok := decodeGob(good[:cut]); ok {
				t.Errorf("cut to %d bytes: %v", cut, v)
			}
		}
		if v, ok := decodeGob(good); !ok || v.(point).X != 1 {
			t.Errorf("%v, %t", v, ok)
		}
	}
}

// FuzzGob: no stream makes decodeGob panic, and it agrees with gob.
func FuzzGob(f *testing.F) {
	for _, v := range gobValues(1) {
		f.Add(plainGob(f, v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, ok := plainUngob(b)
		for range 2 {
			got, also := decodeGob(b)
			if ok != also || fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
				t.Fatalf("%T %t, a new decoder %T %t", got, also, want, ok)
			}
			if ok && !reflect.DeepEqual(got, want) && reflect.DeepEqual(want, want) && !bytes.Contains(fmt.Append(nil, want), []byte("NaN")) {
				t.Fatalf("%#v, a new decoder %#v", got, want)
			}
		}
	})
}
