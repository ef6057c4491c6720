package pgstore_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/scspg/scspg/internal/pgtest"
	"github.com/scspg/scspg/pgstore"
)

var ourProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.0.2.7/32")}

func clientIP(p pgstore.Proxies, peer string, lines ...string) netip.Addr {
	name := p.Header
	if name == "" {
		name = "X-Forwarded-For"
	}
	r := &http.Request{RemoteAddr: peer, Header: http.Header{}}
	for _, line := range lines {
		r.Header.Add(name, line)
	}
	return p.ClientIP(r)
}

func TestTrustedProxiesReadsFromTheRightPastTrustedHops(t *testing.T) {
	t.Parallel()
	const proxy = "10.0.0.1:1234"
	for _, tt := range []struct {
		what, peer, want string
		lines            []string
	}{
		{"no header", proxy, "10.0.0.1", nil},
		{"an empty header", proxy, "10.0.0.1", []string{""}},
		{"one hop", proxy, "203.0.113.9", []string{"203.0.113.9"}},
		{"a client's own header", proxy, "203.0.113.9", []string{"6.6.6.6, 203.0.113.9"}},
		{"a client who claims to be a proxy", proxy, "203.0.113.9", []string{"6.6.6.6, 10.9.9.9, 203.0.113.9"}},
		{"two hops", proxy, "203.0.113.9", []string{"6.6.6.6, 203.0.113.9, 10.0.0.2"}},
		{"hops of three kinds", "[fd00::1]:80", "203.0.113.9", []string{"6.6.6.6,203.0.113.9,192.0.2.7,10.0.0.2"}},
		{"a neighbour of a proxy", proxy, "192.0.2.8", []string{"203.0.113.9, 192.0.2.8"}},
		{"a client in the proxies' own network", proxy, "10.1.1.1", []string{"10.1.1.1, 10.0.0.2"}},

		{"a peer that is nobody's proxy", "203.0.113.9:99", "203.0.113.9", []string{"6.6.6.6"}},
		{"a peer that says it is itself", "203.0.113.9:99", "203.0.113.9", []string{"10.0.0.1"}},
		{"a peer without a port", "10.0.0.1", "203.0.113.9", []string{"203.0.113.9"}},
		{"an IPv4-mapped peer", "[::ffff:10.0.0.1]:80", "203.0.113.9", []string{"203.0.113.9"}},
		{"a peer with a zone", "[fd00::1%eth0]:80", "203.0.113.9", []string{"203.0.113.9"}},
		{"a Unix socket", "@", "invalid IP", []string{"203.0.113.9"}},

		{"several lines", proxy, "203.0.113.9", []string{"6.6.6.6", "203.0.113.9", "10.0.0.2, 10.0.0.3"}},
		{"several lines, the last one garbage", proxy, "10.0.0.1", []string{"203.0.113.9", "x"}},
		{"several lines, the last one empty", proxy, "10.0.0.1", []string{"203.0.113.9", ""}},
		{"several lines, a client's empty one first", proxy, "203.0.113.9", []string{"", "203.0.113.9"}},

		{"blanks and tabs", proxy, "203.0.113.9", []string{"6.6.6.6 ,\t 203.0.113.9 \t,10.0.0.2\t"}},
		{"a port", proxy, "203.0.113.9", []string{"203.0.113.9:4711"}},
		{"a hop's port", proxy, "203.0.113.9", []string{"203.0.113.9:4711, 10.0.0.2:80"}},
		{"IPv6", proxy, "2001:db8::9", []string{"2001:db8::9, fd00::2"}},
		{"IPv6 in brackets", proxy, "2001:db8::9", []string{"[2001:db8::9], [fd00::2]"}},
		{"IPv6 with ports", proxy, "2001:db8::9", []string{"[2001:db8::9]:4711, [fd00::2]:80"}},
		{"IPv6 with zones", proxy, "fe80::9", []string{"fe80::9%eth0, [fd00::2%1]:80"}},
		{"IPv4-mapped", proxy, "203.0.113.9", []string{"::ffff:203.0.113.9, ::ffff:10.0.0.2"}},
		{"IPv4-mapped in brackets", proxy, "203.0.113.9", []string{"[::ffff:203.0.113.9]:80"}},

		// Who has said so is the last one that we know to be right.
		{"unknown", proxy, "10.0.0.1", []string{"203.0.113.9, unknown"}},
		{"unknown to the second hop", proxy, "10.0.0.2", []string{"203.0.113.9, unknown, 10.0.0.2"}},
		{"hidden", proxy, "10.0.0.2", []string{"203.0.113.9, _hidden, 10.0.0.2"}},
		// A hop that does not know its client may have appended nothing. RFC 9110, section
		// 5.6.1, would have it skipped: then 6.6.6.6, which the client has sent, were believed.
		{"an empty element", proxy, "10.0.0.2", []string{"6.6.6.6, , 10.0.0.2"}},
		{"an empty element at the end", proxy, "10.0.0.1", []string{"203.0.113.9,"}},
		{"an empty element of the client's", proxy, "203.0.113.9", []string{"6.6.6.6,,, 203.0.113.9"}},
		{"only commas", proxy, "10.0.0.1", []string{",,,"}},
		{"a name", proxy, "10.0.0.1", []string{"203.0.113.9, client.example"}},
		{"a quoted address", proxy, "10.0.0.1", []string{`"203.0.113.9"`}},
		{"a network", proxy, "10.0.0.1", []string{"203.0.113.9/32"}},
		{"an octet too large", proxy, "10.0.0.1", []string{"203.0.113.256"}},
		{"leading zeros, octal to some", proxy, "10.0.0.1", []string{"0313.0.113.9"}},
		{"a short form", proxy, "10.0.0.1", []string{"203.9"}},
		{"a number", proxy, "10.0.0.1", []string{"3405803785"}},
		{"open brackets", proxy, "10.0.0.1", []string{"[2001:db8::9"}},
		{"closed brackets", proxy, "10.0.0.1", []string{"2001:db8::9]"}},
		{"empty brackets", proxy, "10.0.0.1", []string{"[]:80"}},
		{"garbage after the brackets", proxy, "10.0.0.1", []string{"[2001:db8::9]80"}},
		{"two brackets", proxy, "10.0.0.1", []string{"[[2001:db8::9]]"}},
		{"a port alone", proxy, "10.0.0.1", []string{":80"}},
		{"another separator", proxy, "10.0.0.1", []string{"6.6.6.6; 203.0.113.9"}},
		{"a NUL", proxy, "10.0.0.1", []string{"203.0.113.9\x00"}},
		{"a line break", proxy, "10.0.0.1", []string{"203.0.113.9\n"}},
		{"a blank that is none", proxy, "10.0.0.1", []string{"203.0.113.9\u00a0"}},
		{"very many hops", proxy, "203.0.113.9", []string{"203.0.113.9" + strings.Repeat(", 10.0.0.2", 10_000)}},
	} {
		p := pgstore.Proxies{Trusted: ourProxies}
		if got := clientIP(p, tt.peer, tt.lines...); got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.what, got, tt.want)
		}
		// A header with one address is a list of one.
		p.Header = "x-real-ip"
		if got := clientIP(p, tt.peer, tt.lines...); got.String() != tt.want {
			t.Errorf("%s, in x-real-ip: %v, want %s", tt.what, got, tt.want)
		}
	}
}

func TestProxiesReadsForwarded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ what, line, want string }{
		{"one hop", `for=203.0.113.9`, "203.0.113.9"},
		{"the names of RFC 7239", `For="[2001:db8::9]:4711"`, "2001:db8::9"},
		{"other parameters", `for=203.0.113.9;proto=https;by=10.0.0.1;host="example.com:80"`, "203.0.113.9"},
		{"the other way round", `proto=https; FOR="203.0.113.9:4711" ;by=10.0.0.1`, "203.0.113.9"},
		{"a named port", `for="203.0.113.9:_port"`, "203.0.113.9"},
		{"two hops", `for=6.6.6.6, for=203.0.113.9, for=10.0.0.2;by=10.0.0.1`, "203.0.113.9"},
		{"unknown", `for=203.0.113.9, for=unknown`, "10.0.0.1"},
		{"hidden", `for=203.0.113.9, for="_gazonk", for=10.0.0.2`, "10.0.0.2"},
		{"nothing of the client", `for=203.0.113.9, proto=https`, "10.0.0.1"},
		{"empty", ``, "10.0.0.1"},
		{"an empty element", `for=203.0.113.9,`, "10.0.0.1"},
		{"an empty parameter", `for=203.0.113.9;`, "10.0.0.1"},
		{"two of them", `for=6.6.6.6;for=203.0.113.9`, "10.0.0.1"},
		{"no parameter", `203.0.113.9`, "10.0.0.1"},
		{"an open quote", `for="203.0.113.9`, "10.0.0.1"},
		{"escapes", `for="203.0.113\.9"`, "10.0.0.1"},
		// Quotes that a client opens swallow nothing of what a proxy appends.
		{"a client's open quote", `for="6.6.6.6, for=203.0.113.9`, "203.0.113.9"},
		{"a client's open quote, closed by the proxy's", `for=6.6.6.6;x=", for="[2001:db8::9]"`, "2001:db8::9"},
		// Nor does what a proxy has copied into quotes from the client's request.
		{"a client's host", `for=203.0.113.9;host="a,for=6.6.6.6"`, "10.0.0.1"},
		{"a client's host, with escaped quotes", `for=203.0.113.9;host="a,for=6.6.6.6;x=\"b"`, "10.0.0.1"},
		{"a client's host, and more after it", `for=203.0.113.9;host="a,for=6.6.6.6;x=\"\"";proto=https`, "10.0.0.1"},
	} {
		p := pgstore.Proxies{Trusted: ourProxies, Header: "forwarded"}
		if got := clientIP(p, "10.0.0.1:1234", tt.line); got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.what, got, tt.want)
		}
	}
}

func TestProxiesTrustsNobodyByDefault(t *testing.T) {
	t.Parallel()
	for _, p := range []pgstore.Proxies{{}, {Trusted: []netip.Prefix{{}}}} {
		if got := clientIP(p, "10.0.0.1:1", "203.0.113.9"); got.String() != "10.0.0.1" {
			t.Error(got)
		}
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f := pgstore.TrustedProxies(prefixes...)
	prefixes[0] = netip.MustParsePrefix("203.0.113.0/24") // which it does not see
	r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {"6.6.6.6, 203.0.113.9"}}}
	if got := f(r); got.String() != "203.0.113.9" {
		t.Error(got)
	}
}

func TestTrustedProxiesTellsTheListWhereItsUserIs(t *testing.T) {
	t.Parallel()
	a := newApp(t, migrated(t), pgstore.Config{ClientIP: pgstore.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8"))})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL+"/login?user=alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "6.6.6.6, ::ffff:203.0.113.9")
	resp, err := a.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := pgtest.Query[string](t, a.pool, `SELECT host(ip) FROM scs_user_sessions`); got != "203.0.113.9" {
		t.Error(got)
	}
}

// The result is the other end of the connection, or an address that stands in the header to the
// right of all that only the client can have written.
func FuzzProxiesClientIP(f *testing.F) {
	f.Add("10.0.0.1:80", "X-Forwarded-For", "6.6.6.6, 203.0.113.9", "10.0.0.2, [fd00::1%x]:80")
	f.Add("[fd00::1]:80", "Forwarded", `for="[2001:db8::9]:_p";x="a,b"`, `for=10.0.0.2;by=unknown`)
	f.Add("@", "X-Real-IP", "", "::ffff:10.0.0.2]")
	f.Fuzz(func(t *testing.T, peer, name, first, second string) {
		p := pgstore.Proxies{Trusted: ourProxies, Header: name}
		direct := clientIP(pgstore.Proxies{Header: name}, peer)
		got := clientIP(p, peer, first, second)
		if got == direct {
			return
		}
		if got.Zone() != "" || got.Is4In6() {
			t.Errorf("%v is not as it is stored", got)
		}
		if !slices.ContainsFunc(ourProxies, func(prefix netip.Prefix) bool { return prefix.Contains(direct) }) {
			t.Fatalf("%v is believed, and says %v", direct, got)
		}
		named := strings.FieldsFunc(first+","+second, func(r rune) bool { return strings.ContainsRune(",;= \t\"[]%", r) })
		if !slices.ContainsFunc(named, func(s string) bool {
			host, _, _ := strings.Cut(s, ":")
			a, errA := netip.ParseAddr(s)
			b, errB := netip.ParseAddr(host)
			return errA == nil && a.Unmap() == got || errB == nil && b == got
		}) {
			t.Errorf("%v is not in %q, %q", got, first, second)
		}
		// What a proxy appends decides: nothing to the left of a client's address is read.
		appended := ", 203.0.113.9"
		if strings.EqualFold(name, "Forwarded") {
			appended = ", for=203.0.113.9"
		}
		if got := clientIP(p, peer, first, second+appended); got.String() != "203.0.113.9" {
			t.Errorf("with%s it is %v", appended, got)
		}
	})
}
