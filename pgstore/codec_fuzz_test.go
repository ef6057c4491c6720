package pgstore

import (
	"testing"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// Whatever a row holds, Decode gives a session that can be used, or refuses a frame that
// the store would have refused before.
func FuzzCodecDecode(f *testing.F) {
	f.Add([]byte(`{"json":true}`))
	for _, c := range []scs.Codec{Codec{}, Codec{UserKey: "user"}, scs.GobCodec{}} {
		b, err := c.Encode(testDeadline, sixKeys())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, values, err := Codec{UserKey: "user"}.Decode(b)
		if broken := frame.Is(b) && frame.Check(b) != nil; broken != (err != nil) || broken != (values == nil) {
			t.Fatalf("got %v, %v; broken: %t", values, err, broken)
		}
	})
}
