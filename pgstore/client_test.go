package pgstore

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "curl/8.5.0", "curl/8.5.0"},
		{"empty", "", ""},
		{"latin-1", "Caf\xe9/1.0", "Caf\uFFFD/1.0"},
		{"NUL", "a\x00b", "ab"},
		{"512 bytes", strings.Repeat("x", 512), strings.Repeat("x", 512)},
		{"513 bytes", strings.Repeat("x", 513), strings.Repeat("x", 512)},
		{"cut inside a rune", strings.Repeat("x", 511) + "é", strings.Repeat("x", 511)},
	} {
		got := cleanText(tt.in, 512)
		if got != tt.want || !utf8.ValidString(got) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRemoteIP(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:1234":               "192.0.2.1",
		"[2001:db8::1]:1":              "2001:db8::1",
		"[::ffff:192.0.2.1]:99":        "::ffff:192.0.2.1", // unmapped where it is stored
		"192.0.2.1":                    "192.0.2.1",
		"2001:db8::1":                  "2001:db8::1",
		"[2001:db8::1]":                "2001:db8::1",
		"::ffff:192.0.2.1":             "::ffff:192.0.2.1",
		"fe80::1%eth0":                 "fe80::1%eth0", // its zone goes where it is stored
		"example.com":                  "invalid IP",
		"@":                            "invalid IP",
		"":                             "invalid IP",
		"192.0.2.1 (no port, no addr)": "invalid IP",
	} {
		if got := remoteIP(&http.Request{RemoteAddr: addr}); got.String() != want {
			t.Errorf("RemoteAddr %q: %v, want %v", addr, got, want)
		}
	}
}
