package frame

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

// The seeds hold no map that went through gob: encoding/gob sizes a map by the count
// in its stream, so a fuzzer that finds the place tests only the machine's memory.
func fuzzSeeds(f *testing.F) [][]byte {
	c := codec{"user"}
	values := sixKeys()
	values["point"] = point{X: 1, Name: "north"}
	values["float32"], values["uint8"], values["pause"], values["list"] = float32(1), uint8(2), time.Second, []string{"a"}
	values["prices"] = &prices{One: math.NaN(), List: []float64{math.NaN()}}
	return [][]byte{
		mustEncode(f, c, testDeadline, nil),
		mustEncode(f, codec{}, testDeadline, map[string]any{"csrf": "token"}),
		mustEncode(f, c, testDeadline, sixKeys()),
		mustEncode(f, c, testDeadline, values),
		mustEncode(f, c, testDeadline, map[string]any{"user": hexID{1}, "\xff": nil}),
		frameOf("alice", 1, field{key: []byte("user"), tag: 255, payload: []byte("later")}),
		frameOf("", 1, field{key: []byte("at"), tag: tagTime, payload: bytes.Repeat([]byte{1}, 15)}),
	}
}

// What Check accepts decodes, what it refuses does not, and a session that was decoded,
// rows of scs.GobCodec included, can be encoded again and is then stable.
func FuzzDecode(f *testing.F) {
	for _, b := range fuzzSeeds(f) {
		f.Add(b)
	}
	row, err := scs.GobCodec{}.Encode(testDeadline, sixKeys())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row)
	f.Add([]byte(`{"json":true}`))
	f.Add([]byte{0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := codec{"user"}
		in := bytes.Clone(b)
		deadline, values, err := c.Decode(b)
		if !bytes.Equal(in, b) {
			t.Fatal("Decode wrote to its input")
		}
		if (values == nil) != (err != nil) {
			t.Fatalf("got %v, %v, want an error or a session that can be used", values, err)
		}
		if broken := Check(b); Is(b) && (broken == nil) != (err == nil) {
			t.Fatalf("Check: %v, Decode: %v", broken, err)
		}
		if err != nil {
			return
		}
		user, keyed, ok := User(b)
		if at, framed := Deadline(b); ok != Is(b) || framed != ok || ok && !at.Equal(deadline) || !keyed && user != "" {
			t.Fatalf("got %q, %t, %t, %v, %t for a sound session", user, keyed, ok, at, framed)
		}
		if o, ok := values["user"].(Opaque); ok && o.User != user {
			t.Fatalf("an opaque user id stands for %q, want %q", o.User, user)
		}

		again := mustEncode(t, codec{}, deadline, values)
		deadline2, values2 := mustDecode(t, codec{}, again)
		if len(values) != len(values2) || !deadline.Equal(deadline2) {
			t.Fatalf("got %v, %v, want %v, %v", deadline2, values2, deadline, values)
		}
		if third := mustEncode(t, codec{}, deadline2, values2); !Same(again, third) {
			t.Fatalf("a session changes as it is decoded and encoded:\n%x\n%x", again, third)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("key", "text", []byte("bytes"), int64(-1), 1.5, true, int64(1), int64(2), int16(60))
	f.Add("", "", []byte{}, int64(0), 0.0, false, int64(-62135596800), int64(0), int16(-1))
	f.Add("\xff", "\x00", []byte{0}, int64(1)<<62, -1e300, true, int64(1)<<40, int64(999999999), int16(-1439))
	f.Fuzz(func(t *testing.T, key, s string, by []byte, i int64, x float64, yes bool, sec, nsec int64, minutes int16) {
		// Years 1 to 9999, and offsets of less than a day.
		at := time.Unix(sec%(1<<37), nsec%1e9).UTC()
		if minutes %= 1440; minutes != 0 && minutes != -1 {
			at = at.In(time.FixedZone("", int(minutes)*60))
		}
		values := map[string]any{
			key + "string": s, key + "bytes": append([]byte{}, by...), key + "bool": yes, key + "float64": x, key + "float32": float32(x),
			key + "int": int(i), key + "int8": int8(i), key + "int16": int16(i), key + "int32": int32(i), key + "int64": i,
			key + "uint": uint(i), key + "uint8": uint8(i), key + "uint16": uint16(i), key + "uint32": uint32(i), key + "uint64": uint64(i),
			key + "time": at, key + "duration": time.Duration(i), key + "nil": nil, key + "list": []string{s, key}, key: i,
		}
		c := codec{key}
		b := mustEncode(t, c, at, values)
		deadline, got := mustDecode(t, c, b)
		if !deadline.Equal(at) {
			t.Fatalf("deadline: got %v, want %v", deadline, at)
		}
		if again := mustEncode(t, c, deadline, got); !Same(b, again) {
			t.Fatalf("re-encoded as %x, was %x", again, b)
		}
		back, ok := got[key+"time"].(time.Time)
		_, offset := back.Zone()
		if _, want := at.Zone(); !ok || !back.Equal(at) || offset != want {
			t.Fatalf("time: got %v, want %v", got[key+"time"], at)
		}
		delete(values, key+"time") // DeepEqual compares the zones' names
		delete(got, key+"time")
		if !reflect.DeepEqual(got, values) && !math.IsNaN(x) {
			t.Fatalf("got %#v, want %#v", got, values)
		}
	})
}

// Merging never panics, makes a sound frame of sound frames, and is the identity where
// only one side has changed.
func FuzzMerge(f *testing.F) {
	seeds := fuzzSeeds(f)
	for i := range seeds {
		f.Add(seeds[i], seeds[(i+1)%len(seeds)], seeds[(i+2)%len(seeds)])
		f.Add(seeds[i], seeds[i], seeds[(i+1)%len(seeds)])
	}
	f.Fuzz(func(t *testing.T, loaded, mine, current []byte) {
		merged, ok := Merge(loaded, mine, current)
		sound := Check(loaded) == nil && Check(mine) == nil && Check(current) == nil
		if ok != sound {
			t.Fatalf("merged: %t, all three sound: %t", ok, sound)
		}
		Same(loaded, mine)
		if !ok {
			return
		}
		if err := Check(merged); err != nil {
			t.Fatal(err)
		}
		user, keyed, _ := User(merged)
		if wantUser, wantKeyed, _ := User(mine); user != wantUser || keyed != wantKeyed {
			t.Fatalf("the user is %q, %t, want that of mine: %q, %t", user, keyed, wantUser, wantKeyed)
		}
		if onlyMine, ok := Merge(loaded, mine, loaded); !ok || !Same(onlyMine, mine) {
			t.Fatalf("only mine has changed: got %x, want %x", onlyMine, mine)
		}
		if again, ok := Merge(merged, merged, merged); !ok || !bytes.Equal(again, merged) {
			t.Fatalf("nothing has changed: got %x, want %x", again, merged)
		}
	})
}
