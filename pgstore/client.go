package pgstore

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Where the texts of a Client are cut.
const (
	maxUserAgentBytes = 512
	maxLabelBytes     = 255
)

// Client is who a session is signed in from, as the user's session list shows it.
type Client struct {
	// IP is stored without its zone, an IPv4-mapped IPv6 address as IPv4. The zero
	// value is stored as unknown.
	IP netip.Addr
	// UserAgent is cut to 512 bytes and made valid UTF-8 without NULs.
	UserAgent string
	// Label is a short text of the app's own, such as a name that the user has given to the
	// device, or how the user signed in. It is cut to 255 bytes and made valid UTF-8 without
	// NULs. "" keeps the label that the session has, if any; Rename removes it.
	Label string
}

type (
	clientKey struct{}
	labelKey  struct{}
)

// WithClient returns a context whose sign-ins are recorded as coming from c. It is
// meant for use outside HTTP; inside Track it takes precedence over what Track saw.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// WithLabel returns a context whose sign-ins have this Client.Label, and otherwise the client
// that Track or WithClient gives them.
func WithLabel(ctx context.Context, label string) context.Context {
	return context.WithValue(ctx, labelKey{}, label)
}

// clientOf returns who signs in under ctx.
func (s *Store) clientOf(ctx context.Context, req *tracked) Client {
	c, ok := ctx.Value(clientKey{}).(Client)
	if !ok && req != nil {
		c = Client{IP: s.cfg.ClientIP(req.http), UserAgent: req.http.UserAgent()}
	}
	if label, ok := ctx.Value(labelKey{}).(string); ok {
		c.Label = label
	}
	c.IP = c.IP.Unmap().WithZone("")
	c.UserAgent = cleanText(c.UserAgent, maxUserAgentBytes)
	c.Label = cleanText(c.Label, maxLabelBytes)
	return c
}

// cleanText makes a text one that a column takes, of at most so many bytes.
func cleanText(text string, most int) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
	if len(text) <= most {
		return text
	}
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
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
