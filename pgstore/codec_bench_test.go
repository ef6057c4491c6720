package pgstore

import (
	"encoding/gob"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
)

type profile struct {
	Name, Email string
	Roles       []string
	Joined      time.Time
	Logins      int
}

func init() {
	gob.Register(profile{})
	gob.Register(time.Time{}) // for GobCodec, to which a time is a type like any other
}

func threeKeys() map[string]any {
	return map[string]any{"user": "7b1f0c3e-8a51-4d0b-9b0a-2f3d5c6e7f80", "csrf": strings.Repeat("t", 43), "__rememberMe": true}
}

func sixKeys() map[string]any {
	values := threeKeys()
	values["visits"] = 17
	values["seen"] = time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	values["theme"] = "dark"
	return values
}

func twelveKeys() map[string]any {
	values := sixKeys()
	values["profile"] = profile{Name: "Alice", Email: "alice@example.org", Roles: []string{"admin", "editor"}, Joined: testDeadline, Logins: 99}
	values["flash"] = "Saved."
	values["org"] = int64(123456)
	values["score"] = 0.75
	values["nonce"] = []byte("0123456789abcdef")
	values["locale"] = "en-GB"
	return values
}

func twoHundredKeys() map[string]any {
	values := map[string]any{"user": "alice"}
	for i := range 199 {
		values[fmt.Sprintf("key%03d", i)] = strings.Repeat("x", 1024)
	}
	return values
}

func BenchmarkCodec(b *testing.B) {
	shapes := []struct {
		name   string
		values map[string]any
	}{
		{"3keys", threeKeys()},
		{"6keys", sixKeys()},
		{"12keys+struct", twelveKeys()},
		{"200keys×1KB", twoHundredKeys()},
	}
	codecs := []struct {
		name  string
		codec scs.Codec
	}{
		{"frame", Codec{UserKey: "user"}},
		{"gob", scs.GobCodec{}},
	}
	for _, shape := range shapes {
		for _, c := range codecs {
			data, err := c.codec.Encode(testDeadline, shape.values)
			if err != nil {
				b.Fatal(err)
			}
			b.Run("encode/"+shape.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.codec.Encode(testDeadline, shape.values); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(data)), "bytes")
			})
			b.Run("decode/"+shape.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := c.codec.Decode(data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
