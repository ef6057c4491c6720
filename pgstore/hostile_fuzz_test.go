package pgstore

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

// What a client or a proxy puts there can be stored, or counts as unknown.
func FuzzClient(f *testing.F) {
	for addr, agent := range map[string]string{
		"192.0.2.1:1": "curl/8.5.0", "[::ffff:192.0.2.1%eth0]:1": "\x00\xff", "[fe80::1%25eth0]:80": strings.Repeat("é", 400),
		"%": strings.Repeat("\xf0\x9f\x92", 300), "1.2.3.4%eth0": "", "[::]": "\ufffd", "10.0.0.1, 192.0.2.1": "a\nb",
	} {
		f.Add(addr, agent)
	}
	f.Fuzz(func(t *testing.T, addr, agent string) {
		s := &Store{cfg: Config{ClientIP: remoteIP}}
		c := s.clientOf(t.Context(), &tracked{http: &http.Request{RemoteAddr: addr, Header: http.Header{"User-Agent": {agent}}}})
		if !utf8.ValidString(c.UserAgent) || strings.Contains(c.UserAgent, "\x00") || len(c.UserAgent) > maxUserAgentBytes {
			t.Errorf("user agent %q", c.UserAgent)
		}
		if !c.IP.IsValid() {
			return
		}
		if back, err := netip.ParseAddr(c.IP.String()); err != nil || back != c.IP || c.IP.Zone() != "" || c.IP.Is4In6() {
			t.Errorf("address %v", c.IP)
		}
	})
}

// A text names a session by its id, by a token, or as a stand-in of All; never by two.
func FuzzID(f *testing.F) {
	id, _, _ := idOf("token")
	for _, text := range []string{"token", id.String(), strings.ToUpper(id.String()), standInFor(id, 1), standInFor(id, 1) + "1", standInPrefix, "{" + id.String() + "}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		of, version, standIn := idOf(text)
		if standIn != strings.HasPrefix(text, standInPrefix) && standIn || standIn && version < 1 || !standIn && version != 0 {
			t.Errorf("%q: %v, %d, %t", text, of, version, standIn)
		}
		if parsed, ok := parseID(text); ok && (parsed.String() != text || standIn || of == parsed) {
			t.Errorf("%q is an id, and its own token or a stand-in", text)
		}
		if back, ok := parseID(IDOf(text)); !ok || back != of {
			t.Errorf("IDOf(%q) = %s", text, IDOf(text))
		}
	})
}
