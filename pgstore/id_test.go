package pgstore

import (
	"strings"
	"testing"
)

func TestIDOf(t *testing.T) {
	// printf %s token | sha256sum
	if got, want := IDOf("token"), "3c469e9d-6c58-75d3-7a43-f353d4f88e61"; got != want {
		t.Errorf("IDOf = %s, want %s", got, want)
	}
	long := strings.Repeat("\xff", 8192)
	if IDOf(long) == IDOf(long[1:]) {
		t.Error("two long tokens share an id")
	}
}

func TestStandInNamesSessionAndVersion(t *testing.T) {
	id, _, isStandIn := idOf("token")
	if isStandIn {
		t.Error("a token was taken for a stand-in")
	}
	back, version, isStandIn := idOf(standInFor(id, 7))
	if !isStandIn || back != id || version != 7 {
		t.Errorf("the stand-in of %v, 7 names %v, %d", id, back, version)
	}
	for _, bad := range []string{"nonsense", id.String(), id.String() + ":", id.String() + ":0", id.String() + ":-1", id.String() + ":x"} {
		if _, _, isStandIn := idOf(standInPrefix + bad); isStandIn {
			t.Errorf("a malformed stand-in was accepted: %q", bad)
		}
	}
}

func TestParseID(t *testing.T) {
	for text, want := range map[string]bool{
		"3c469e9d-6c58-75d3-7a43-f353d4f88e61": true,
		"3C469E9D-6C58-75D3-7A43-F353D4F88E61": false,
		"3c469e9d6c5875d37a43f353d4f88e61":     false,
		"":                                     false,
		"'; DROP TABLE scs_sessions; --":       false,
	} {
		if _, ok := parseID(text); ok != want {
			t.Errorf("parseID(%q) = %t, want %t", text, ok, want)
		}
	}
}

func BenchmarkIDOf(b *testing.B) {
	token := strings.Repeat("x", 43)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = idOf(token)
	}
}
