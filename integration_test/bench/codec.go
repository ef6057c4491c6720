package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/fxamacker/cbor/v2"

	"github.com/scspg/scspg/pgstore"
)

type profile struct {
	Name, Email string
	Roles       []string
	Joined      time.Time
	Logins      int
}

func init() { gob.Register(profile{}) }

// envelope is what the JSON and CBOR codecs write. They do not keep Go types: a
// number comes back as another one, a struct as a map.
type envelope struct {
	Deadline time.Time
	Values   map[string]any
}

type jsonCodec struct{}

func (jsonCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(envelope{deadline, values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var e envelope
	err := json.Unmarshal(b, &e)
	return e.Deadline, e.Values, err
}

type cborCodec struct{}

func (cborCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return cbor.Marshal(envelope{deadline, values})
}

func (cborCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var e envelope
	err := cbor.Unmarshal(b, &e)
	return e.Deadline, e.Values, err
}

func (b *bench) shapes() []struct {
	name   string
	values map[string]any
} {
	three := map[string]any{userKey: "7b1f0c3e-8a51-4d0b-9b0a-2f3d5c6e7f80", "csrf": strings.Repeat("t", 43), "__rememberMe": true}
	twelve := b.session(0)
	maps.Copy(twelve, map[string]any{
		"profile": profile{Name: "Alice", Email: "alice@example.org", Roles: []string{"admin", "editor"}, Joined: time.Unix(1e9, 0).UTC(), Logins: 99},
		"flash":   "Saved.", "org": int64(123456), "score": 0.75, "nonce": []byte("0123456789abcdef"), "locale": "en-GB",
	})
	large := make(map[string]any)
	for i := range 200 {
		large[fmt.Sprintf("key%03d", i)] = strings.Repeat("x", 1024)
	}
	return []struct {
		name   string
		values map[string]any
	}{{"3 keys", three}, {"6 keys", b.session(0)}, {"12 keys, one a struct", twelve}, {"200 keys of 1 KB", large}}
}

// codec compares the codecs in turn. gob is the reference.
func (b *bench) codec(context.Context) error {
	codecs := []struct {
		name  string
		codec scs.Codec
	}{{"gob (scs)", scs.GobCodec{}}, {"**scspg**", pgstore.Codec{UserKey: userKey}}, {"JSON", jsonCodec{}}, {"CBOR", cborCodec{}}}
	fmt.Print("\n### Codecs\n\n| session | codec | encode | × gob | allocs | decode | × gob | allocs | bytes |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, shape := range b.shapes() {
		encode, decode := make([][]float64, len(codecs)), make([][]float64, len(codecs))
		allocs := make([][2]float64, len(codecs))
		data := make([][]byte, len(codecs))
		for range b.rounds {
			for i, c := range codecs {
				var err error
				if data[i], err = c.codec.Encode(time.Unix(2e9, 0).UTC(), shape.values); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				enc := b.perOp(func() error { _, err := c.codec.Encode(time.Unix(2e9, 0).UTC(), shape.values); return err })
				dec := b.perOp(func() error { _, _, err := c.codec.Decode(data[i]); return err })
				encode[i], decode[i] = append(encode[i], enc), append(decode[i], dec)
				allocs[i] = [2]float64{
					testing.AllocsPerRun(100, func() { _, _ = c.codec.Encode(time.Unix(2e9, 0).UTC(), shape.values) }),
					testing.AllocsPerRun(100, func() { _, _, _ = c.codec.Decode(data[i]) }),
				}
			}
		}
		for i, c := range codecs {
			fmt.Printf("| %s | %s | %s | %s | %.0f | %s | %s | %.0f | %d |\n", shape.name, c.name,
				nanoseconds(middle(encode[i])), speedup(encode[0], encode[i]), allocs[i][0],
				nanoseconds(middle(decode[i])), speedup(decode[0], decode[i]), allocs[i][1], len(data[i]))
		}
	}
	return nil
}

// perOp is the time of one call in nanoseconds, over a tenth of a turn.
func (b *bench) perOp(f func() error) float64 {
	const batch = 16
	n := 0
	start := time.Now()
	for time.Since(start) < b.turn/10 {
		for range batch {
			if err := f(); err != nil {
				panic(err) // it has just worked
			}
		}
		n += batch
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

// speedup is the ratio of the medians, with the spread of the rounds.
func speedup(reference, times []float64) string {
	ratios := make([]float64, len(times))
	for i := range times {
		ratios[i] = reference[i] / times[i]
	}
	return spread(ratios)
}

func nanoseconds(ns float64) string { return short(time.Duration(ns) * time.Nanosecond) }
