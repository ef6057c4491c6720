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

func TestStandIn(t *testing.T) {
	id, isStandIn := idOf("token")
	if isStandIn {
		t.Error("a token was taken for a stand-in")
	}
	back, isStandIn := idOf(standInFor(id))
	if !isStandIn || back != id {
		t.Errorf("the stand-in of %v names %v", id, back)
	}
	if _, isStandIn := idOf(standInPrefix + "nonsense"); isStandIn {
		t.Error("a malformed stand-in was accepted")
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
		_, _ = idOf(token)
	}
}
