package pgstore

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// maxUserAgentBytes is where a user agent is cut.
const maxUserAgentBytes = 512

// Client is who a session is signed in from, as the user's session list shows it.
type Client struct {
	// IP is stored without its zone, an IPv4-mapped IPv6 address as IPv4. The zero
	// value is stored as unknown.
	IP netip.Addr
	// UserAgent is cut to 512 bytes and made valid UTF-8 without NULs.
	UserAgent string
}

type clientKey struct{}

// WithClient returns a context whose sign-ins are recorded as coming from c. It is
// meant for use outside HTTP; inside Track it takes precedence over what Track saw.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// clientOf returns who signs in under ctx.
func (s *Store) clientOf(ctx context.Context, req *tracked) Client {
	c, ok := ctx.Value(clientKey{}).(Client)
	if !ok && req != nil {
		c = Client{IP: s.cfg.ClientIP(req.http), UserAgent: req.http.UserAgent()}
	}
	c.IP = c.IP.Unmap().WithZone("")
	c.UserAgent = cleanUserAgent(c.UserAgent)
	return c
}

func cleanUserAgent(ua string) string {
	ua = strings.ToValidUTF8(strings.ReplaceAll(ua, "\x00", ""), "\uFFFD")
	if len(ua) <= maxUserAgentBytes {
		return ua
	}
	cut := maxUserAgentBytes
	for !utf8.RuneStart(ua[cut]) {
		cut--
	}
	return ua[:cut]
}

// remoteIP is the address of the connection's other end, if it has one. Middleware that
// puts the client's there, such as chi's RealIP, leaves no port.
func remoteIP(r *http.Request) netip.Addr {
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return addr.Addr()
	}
	addr, _ := netip.ParseAddr(strings.Trim(r.RemoteAddr, "[]"))
	return addr
}
