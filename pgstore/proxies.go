package pgstore

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// TrustedProxies returns a function for Config.ClientIP that reads X-Forwarded-For, as proxies
// with addresses in these prefixes extend it. It is short for [Proxies].
func TrustedProxies(prefixes ...netip.Prefix) func(*http.Request) netip.Addr {
	return Proxies{Trusted: slices.Clone(prefixes)}.ClientIP
}

// Proxies are the proxies in front of the app, and how they say who their client is. The zero
// value trusts nobody. It is safe for concurrent use.
type Proxies struct {
	// Trusted are the addresses of the proxies. IPv4-mapped addresses of clients and proxies
	// count as IPv4, so a prefix of mapped ones matches nothing.
	Trusted []netip.Prefix

	// Header is the header that each of them sets or extends: X-Forwarded-For, Forwarded
	// (RFC 7239), or one with a single address, such as X-Real-IP or CF-Connecting-IP. Every
	// proxy must overwrite or extend it, as clients can send it, too. Default (""):
	// X-Forwarded-For.
	Header string
}

// ClientIP is a function for Config.ClientIP. It begins at the other end of the connection. As
// long as that is a trusted proxy, it goes on to whom that one has named: from the right, as
// each appends its own client, and several lines of a header are one list (RFC 9110, section
// 5.3). The first address that is not a proxy's is the client's; if all are, it is the leftmost.
//
// What is not an address ends the walk: an empty element, "unknown", "_hidden", damage. The
// result is then the proxy that said so, as whatever is further to the left may be the client's
// invention. So it is never an address that only the client has named. Ports and zones are
// ignored. If RemoteAddr is not an address, as behind a Unix socket, it is the zero Addr.
func (p Proxies) ClientIP(r *http.Request) netip.Addr {
	name := p.Header
	if name == "" {
		name = "X-Forwarded-For"
	}
	addr := remoteIP(r).Unmap().WithZone("")
	list := strings.Join(r.Header.Values(name), ",")
	for more := list != ""; more && p.trusts(addr); {
		element := list
		if i := strings.LastIndexByte(list, ','); i >= 0 {
			list, element = list[:i], list[i+1:]
		} else {
			more = false
		}
		if strings.EqualFold(name, "Forwarded") {
			element = forwardedFor(element)
		}
		next := nodeIP(strings.Trim(element, " \t"))
		if !next.IsValid() {
			break
		}
		addr = next
	}
	return addr
}

func (p Proxies) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// forwardedFor returns the value of an element's for parameter (RFC 7239, section 4), "" if it
// has none or is malformed. It was cut out at its commas without regard to quotes: read from
// the right, nothing that a client has sent can change where a proxy's own element begins. What
// was cut within quotes is malformed.
func forwardedFor(element string) (node string) {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		isFor := strings.EqualFold(name, "for")
		if !ok || strings.ContainsAny(value, `"\`) || isFor && node != "" {
			return ""
		}
		if isFor {
			node = value
		}
	}
	return node
}

// nodeIP returns the address in "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]" or
// "[2001:db8::1]:80", whatever the port is: RFC 7239 allows names.
func nodeIP(node string) netip.Addr {
	host := node
	if rest, ok := strings.CutPrefix(node, "["); ok {
		var after string
		if host, after, ok = strings.Cut(rest, "]"); !ok || after != "" && after[0] != ':' {
			return netip.Addr{}
		}
	} else if strings.Count(node, ":") == 1 {
		host, _, _ = strings.Cut(node, ":")
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}
