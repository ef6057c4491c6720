package frame

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

func TestSame(t *testing.T) {
	t.Parallel()
	c := codec{"user"}
	encode := func(c scs.Codec, deadline time.Time, values map[string]any) []byte {
		t.Helper()
		b, err := c.Encode(deadline, values)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	values := map[string]any{"user": "alice", "n": 1}
	with := func(key string, v any) map[string]any { return map[string]any{"user": "alice", "n": 1, key: v} }
	base := encode(c, testDeadline, values)
	for _, test := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"itself", base, bytes.Clone(base), true},
		{"nothing", nil, []byte{}, true},
		{"encoded again", base, encode(c, testDeadline.In(time.FixedZone("", 60)), with("n", 1)), true},
		{"deadline, seconds", base, encode(c, testDeadline.Add(time.Second), values), false},
		{"deadline, a nanosecond", base, encode(c, testDeadline.Add(1), values), false},
		{"another user", base, encode(c, testDeadline, with("user", "bob")), false},
		{"made with another UserKey", base, encode(codec{"n"}, testDeadline, values), false},
		{"another value", base, encode(c, testDeadline, with("n", 2)), false},
		{"another type", base, encode(c, testDeadline, with("n", int64(1))), false},
		{"another key", base, encode(c, testDeadline, map[string]any{"user": "alice", "m": 1}), false},
		{"one key more", base, encode(c, testDeadline, with("zebra", 1)), false},
		{"a nil more", base, encode(c, testDeadline, with("zebra", nil)), false},
		{"frame and gob", base, encode(scs.GobCodec{}, testDeadline, values), false},
		{"frame and nothing", base, nil, false},
		{"gob, other values", encode(scs.GobCodec{}, testDeadline, values), encode(scs.GobCodec{}, testDeadline, with("n", 2)), false},
		{"gob, other deadline", encode(scs.GobCodec{}, testDeadline, values), encode(scs.GobCodec{}, testDeadline.Add(1), values), false},
		{"neither", []byte("foo"), []byte("bar"), false},
		{"neither, the same", []byte("foo"), []byte("foo"), true},
	} {
		if got := Same(test.a, test.b); got != test.want {
			t.Errorf("%s: got %t", test.name, got)
		}
		if got := Same(test.b, test.a); got != test.want {
			t.Errorf("%s, swapped: got %t", test.name, got)
		}
	}
}

// Data that does not say whose it is, of a process without the UserKey, leaves that as it is.
// The other way round, it is said for the first time.
func TestSameOfDataMadeWithoutAUserKey(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{nil, {"user": "alice", "n": 1}} {
		keyed, err := codec{"user"}.Encode(testDeadline, values)
		unkeyed, err2 := codec{}.Encode(testDeadline, values)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if !Same(keyed, unkeyed) || Same(unkeyed, keyed) {
			t.Errorf("%v: %t, the other way round %t", values, Same(keyed, unkeyed), Same(unkeyed, keyed))
		}
	}
}

// otherBytes encodes until gob has written the map in another order.
func otherBytes(t *testing.T, c scs.Codec, values map[string]any, than []byte) []byte {
	t.Helper()
	for range 1000 {
		b, err := c.Encode(testDeadline, values)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, than) {
			return b
		}
	}
	t.Fatal("gob has become deterministic")
	return nil
}

func fruit() map[string]any {
	items := make(map[string]int)
	for i := range 20 {
		items[fmt.Sprint("fruit", i)] = i
	}
	return map[string]any{"cart": &cart{Items: items}, "n": 1}
}

func TestSameWhereGobIsNotDeterministic(t *testing.T) {
	t.Parallel()
	for _, c := range []scs.Codec{codec{}, scs.GobCodec{}} {
		a, err := c.Encode(testDeadline, fruit())
		if err != nil {
			t.Fatal(err)
		}
		if !Same(a, otherBytes(t, c, fruit(), a)) {
			t.Errorf("%T: an unchanged struct with a map looks changed", c)
		}
		changed := fruit()
		changed["cart"].(*cart).Items["fruit7"]++
		if b := otherBytes(t, c, changed, a); Same(a, b) {
			t.Errorf("%T: a changed map looks unchanged", c)
		}
	}
}

// Each is compared with an encoding of itself that has other bytes, as gob writes maps in
// no particular order.
func TestSameWhereFloatsAreNaN(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	order := make(map[int]int)
	for i := range 20 {
		order[i] = i
	}
	with := func(change func(*prices)) any {
		p := &prices{One: 1, Few: [2]float32{1, 2}, List: []float64{1, 2}, ByName: map[string]float64{"a": 1, "b": 2}, Order: order, at: testDeadline}
		change(p)
		return p
	}
	for name, test := range map[string]struct {
		v     func() any
		other any // as v, but changed
	}{
		"a field":   {func() any { return with(func(p *prices) { p.One = nan }) }, with(func(p *prices) { p.One = 0 })},
		"an array":  {func() any { return with(func(p *prices) { p.Few[1] = float32(nan) }) }, with(func(p *prices) { p.Few[1] = 3 })},
		"a slice":   {func() any { return with(func(p *prices) { p.List[0] = nan }) }, with(func(p *prices) { p.List[0], p.List[1] = nan, 3 })},
		"a shorter": {func() any { return with(func(p *prices) { p.List[0] = nan }) }, with(func(p *prices) { p.List = []float64{nan} })},
		"a map":     {func() any { return with(func(p *prices) { p.ByName["a"] = nan }) }, with(func(p *prices) { p.ByName["b"] = nan })},
		"a key":     {func() any { return with(func(p *prices) { p.ByName["a"] = nan }) }, with(func(p *prices) { p.ByName = map[string]float64{"a": nan, "c": 2} })},
		"a smaller": {func() any { return with(func(p *prices) { p.ByName["a"] = nan }) }, with(func(p *prices) { p.ByName = map[string]float64{"a": nan} })},
		"a pointer": {func() any { return with(func(p *prices) { p.Next = &prices{One: nan} }) }, with(func(p *prices) { p.Next = &prices{One: 2} })},
		"a nil":     {func() any { return with(func(p *prices) { p.Next = &prices{One: nan} }) }, with(func(p *prices) {})},
		"beside an any": {func() any { return with(func(p *prices) { p.One, p.Any = nan, int32(1) }) },
			with(func(p *prices) { p.One, p.Any = nan, int64(1) })},
		"beside a map that is nil": {func() any { return with(func(p *prices) { p.One, p.ByName = nan, nil }) },
			with(func(p *prices) { p.One, p.ByName = nan, map[string]float64{} })},
		"beside a time": {func() any {
			return with(func(p *prices) { p.One, p.Any = nan, testDeadline.In(time.FixedZone("", 3600)) })
		},
			with(func(p *prices) { p.One, p.Any = nan, testDeadline.Add(1) })},
		"beside bytes": {func() any { return with(func(p *prices) { p.One, p.Any = nan, []byte("a") }) },
			with(func(p *prices) { p.One, p.Any = nan, []byte("b") })},
		"beside what decodes itself": {func() any { return with(func(p *prices) { p.One, p.Clock.Reads = nan, 1 }) },
			with(func(p *prices) { p.One, p.Clock.Reads = nan, 2 })},
		"in a map of anything": {func() any { return map[string]any{"x": nan, "n": 1, "p": with(func(p *prices) { p.Any = []any{nan} })} },
			map[string]any{"x": nan, "n": 1, "p": with(func(p *prices) { p.Any = []any{nan, nil} })}},
	} {
		for _, c := range []scs.Codec{codec{}, scs.GobCodec{}} {
			a, err := c.Encode(testDeadline, map[string]any{"v": test.v()})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !Same(a, otherBytes(t, c, map[string]any{"v": test.v()}, a)) {
				t.Errorf("%s, %T: an unchanged value looks changed", name, c)
			}
			if b := otherBytes(t, c, map[string]any{"v": test.other}, a); Same(a, b) || Same(b, a) {
				t.Errorf("%s, %T: a changed value looks unchanged", name, c)
			}
		}
	}
}

// Where an app's type cannot be compared, Same neither panics nor runs in circles.
func TestSameGoesByBytesWhereValuesCannotBeCompared(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{
		"a func in what decodes itself": &prices{Clock: clock{Reads: '!'}, Order: map[int]int{1: 1, 2: 2, 3: 3, 4: 4}},
		"a NaN for a key":               map[float64]int{math.NaN(): 1, 1: 1, 2: 2, 3: 3, 4: 4},
	} {
		a := mustEncode(t, codec{}, testDeadline, map[string]any{"v": v})
		if !Same(a, bytes.Clone(a)) || Same(a, otherBytes(t, codec{}, map[string]any{"v": v}, a)) {
			t.Errorf("%s: only the same bytes are the same", name)
		}
	}
}

// A map with a NaN that mine only read must not undo what current did to it.
func TestMergeTakesNaNForUnchanged(t *testing.T) {
	t.Parallel()
	values := map[string]any{"rates": map[string]float64{"a": math.NaN(), "b": 1, "c": 2, "d": 3}}
	loaded := mustEncode(t, codec{}, testDeadline, values)
	mine := otherBytes(t, codec{}, values, loaded)
	current := mustEncode(t, codec{}, testDeadline, map[string]any{"rates": map[string]float64{"a": 5}})
	if merged, ok := Merge(loaded, mine, current); !ok || !bytes.Equal(merged, current) {
		t.Errorf("got %x, %t, want %x", merged, ok, current)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	c := codec{"user"}
	type m = map[string]any
	for _, test := range []struct {
		name                        string
		loaded, mine, current, want m
	}{
		{"nothing changed", m{"a": 1}, m{"a": 1}, m{"a": 1}, m{"a": 1}},
		{"both add", m{}, m{"a": 1}, m{"b": 2}, m{"a": 1, "b": 2}},
		{"both add the same key", m{}, m{"a": 1}, m{"a": 2}, m{"a": 1}},
		{"mine changes", m{"a": 1, "b": 1}, m{"a": 2, "b": 1}, m{"a": 1, "b": 2}, m{"a": 2, "b": 2}},
		{"both change", m{"a": 1}, m{"a": 2}, m{"a": 3}, m{"a": 2}},
		{"mine removes", m{"a": 1, "b": 1}, m{"b": 1}, m{"a": 1, "b": 1}, m{"b": 1}},
		{"mine removes what current changed", m{"a": 1}, m{}, m{"a": 2}, m{}},
		{"current removes", m{"a": 1, "b": 1}, m{"a": 1, "b": 1}, m{"b": 1}, m{"b": 1}},
		{"current removes what mine changed", m{"a": 1}, m{"a": 2}, m{}, m{"a": 2}},
		{"both remove", m{"a": 1, "b": 1, "c": 1}, m{"b": 1}, m{"c": 1}, m{}},
		{"mine clears what it loaded", m{"a": 1, "b": 1}, m{}, m{"a": 1, "b": 1, "c": 1}, m{"c": 1}},
		{"a type changes", m{"a": 1}, m{"a": int64(1)}, m{"a": 1}, m{"a": int64(1)}},
		{"nil is a value", m{"a": nil}, m{}, m{"a": nil, "b": nil}, m{"b": nil}},
		{"mine signs in", m{}, m{"user": "alice"}, m{"a": 1}, m{"user": "alice", "a": 1}},
	} {
		merged, ok := Merge(mustEncode(t, c, testDeadline, test.loaded), mustEncode(t, c, testDeadline, test.mine), mustEncode(t, c, testDeadline, test.current))
		if want := mustEncode(t, c, testDeadline, test.want); !ok || !bytes.Equal(merged, want) {
			t.Errorf("%s: got %x, %t, want %x", test.name, merged, ok, want)
		}
	}
}

func TestMergeDeadline(t *testing.T) {
	t.Parallel()
	early, late := testDeadline.Add(-1), testDeadline.Add(time.Hour)
	for _, test := range []struct{ mine, current, want time.Time }{
		{testDeadline, testDeadline, testDeadline},
		{late, testDeadline, late},
		{early, testDeadline, early},
		{testDeadline, late, late},
		{testDeadline, early, early},
		{early, late, early},
		{late, early, early},
	} {
		merged, ok := Merge(mustEncode(t, codec{}, testDeadline, nil), mustEncode(t, codec{}, test.mine, nil), mustEncode(t, codec{}, test.current, nil))
		if got, framed := Deadline(merged); !ok || !framed || !got.Equal(test.want) {
			t.Errorf("mine %v, current %v: got %v, want %v", test.mine, test.current, got, test.want)
		}
	}
}

func TestMergeKeepsTheUserOfMine(t *testing.T) {
	t.Parallel()
	anonymous := mustEncode(t, codec{"user"}, testDeadline, nil)
	alice := mustEncode(t, codec{"user"}, testDeadline, map[string]any{"user": "alice"})
	unkeyed := mustEncode(t, codec{}, testDeadline, nil)
	for _, test := range []struct {
		loaded, mine, current []byte
		user                  string
		keyed                 bool
	}{
		{anonymous, alice, anonymous, "alice", true},
		{alice, anonymous, alice, "", true},
		{alice, unkeyed, alice, "", false},
	} {
		merged, _ := Merge(test.loaded, test.mine, test.current)
		if user, keyed, ok := User(merged); user != test.user || keyed != test.keyed || !ok {
			t.Errorf("got %q, %t, %t, want %q, %t", user, keyed, ok, test.user, test.keyed)
		}
	}
}

// A struct that mine only read must not undo what current did to it.
func TestMergeWhereGobIsNotDeterministic(t *testing.T) {
	t.Parallel()
	loaded := mustEncode(t, codec{}, testDeadline, fruit())
	mine := otherBytes(t, codec{}, fruit(), loaded)
	want := fruit()
	want["cart"].(*cart).Items["fruit7"] = 100
	merged, ok := Merge(loaded, mine, mustEncode(t, codec{}, testDeadline, want))
	if !ok {
		t.Fatal("not merged")
	}
	if _, got := mustDecode(t, codec{}, merged); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMergeNeedsFrames(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, codec{}, testDeadline, map[string]any{"a": 1})
	row, err := scs.GobCodec{}.Encode(testDeadline, map[string]any{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range [][]byte{nil, row, {0, 2, 0, 0, 0, 0}} {
		for i, three := range [][3][]byte{{other, b, b}, {b, other, b}, {b, b, other}} {
			if merged, ok := Merge(three[0], three[1], three[2]); ok || merged != nil {
				t.Errorf("%x was merged, as argument %d", other, i)
			}
		}
	}
}

// modelSession is what a frame stands for, and modelMerge the rule in its plainest form.
type modelSession struct {
	deadline time.Time
	values   map[string]any
}

func modelMerge(loaded, mine, current modelSession) modelSession {
	merged := modelSession{deadline: current.deadline, values: make(map[string]any)}
	if !mine.deadline.Equal(loaded.deadline) {
		merged.deadline = mine.deadline
		if !current.deadline.Equal(loaded.deadline) && current.deadline.Before(mine.deadline) {
			merged.deadline = current.deadline
		}
	}
	for _, key := range modelKeys {
		was, wasThere := loaded.values[key]
		v, there := mine.values[key]
		if there == wasThere && reflect.DeepEqual(v, was) {
			v, there = current.values[key]
		}
		if there {
			merged.values[key] = v
		}
	}
	return merged
}

var modelKeys = []string{"", "\x00", "a", "aa", "ab", "b", "user", "\xff"}

func modelValue(r *rand.Rand) any {
	switch r.IntN(6) {
	case 0:
		return nil
	case 1:
		return r.IntN(3)
	case 2:
		return int64(r.IntN(3))
	case 3:
		return []string{"x", "y"}[:1+r.IntN(2)] // gob makes nil of an empty slice
	case 4:
		return fmt.Sprint(r.IntN(3))
	default:
		return &cart{Items: map[string]int{"apple": r.IntN(2), "pear": 1, "plum": r.IntN(2)}}
	}
}

// request runs a few random operations on a copy of s, as a request would.
func (s modelSession) request(r *rand.Rand) modelSession {
	after := modelSession{deadline: s.deadline, values: maps.Clone(s.values)}
	if after.values == nil {
		after.values = make(map[string]any)
	}
	for range r.IntN(5) {
		key := modelKeys[r.IntN(len(modelKeys))]
		switch r.IntN(8) {
		case 0:
			clear(after.values)
		case 1, 2:
			delete(after.values, key)
		case 3:
			after.deadline = testDeadline.Add(time.Duration(r.IntN(5) - 2))
		default:
			after.values[key] = modelValue(r)
		}
	}
	return after
}

func TestMergeAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	const seed = 1
	c := codec{}
	for n := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, n))
		loaded := modelSession{deadline: testDeadline}.request(r).request(r)
		mine, current := loaded.request(r), loaded.request(r)
		if r.IntN(2) == 0 {
			current = current.request(r)
		}
		want := modelMerge(loaded, mine, current)

		l := mustEncode(t, c, loaded.deadline, loaded.values)
		m := mustEncode(t, c, mine.deadline, mine.values)
		now := mustEncode(t, c, current.deadline, current.values)
		merged, ok := Merge(l, m, now)
		if !ok {
			t.Fatalf("case %d of seed %d: not merged", n, seed)
		}
		if err := Check(merged); err != nil {
			t.Fatalf("case %d of seed %d: %v", n, seed, err)
		}
		deadline, values := mustDecode(t, c, merged)
		if !deadline.Equal(want.deadline) || !reflect.DeepEqual(values, want.values) {
			t.Fatalf("case %d of seed %d\nloaded  %v\nmine    %v\ncurrent %v\ngot     %v %v\nwant    %v", n, seed, loaded, mine, current, deadline, values, want)
		}
		if !Same(merged, mustEncode(t, c, want.deadline, want.values)) {
			t.Fatalf("case %d of seed %d: the merged frame is not the same session as its own encoding", n, seed)
		}
		same := loaded.deadline.Equal(mine.deadline) && reflect.DeepEqual(loaded.values, mine.values)
		if Same(l, m) != same {
			t.Fatalf("case %d of seed %d: Same is %t\nloaded %v\nmine   %v", n, seed, !same, loaded, mine)
		}
	}
}
