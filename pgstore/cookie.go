package pgstore

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/scspg/scspg/pgstore/internal/request"
)

// withhold reports whether a Set-Cookie must not reach the client, which another request
// may have given a newer one meanwhile. It may if its token is new in this request, so
// that the client does not know it yet, or if its session has just been written, and so
// was not replaced. A deletion is about the session that the request came with.
func (r *tracked) withhold(name, value string) bool {
	if value == "" {
		sent, err := r.http.Cookie(name)
		return err == nil && r.named(sent.Value).ID.Valid && r.leftAlone()
	}
	known := r.named(value)
	if known.New && known.User == "" && r.leftAlone() {
		return true // what followed a late sign-out does not take the place of the sign-in
	}
	return known.ID.Valid && (known.Phase != request.Live || !known.New && !known.Written)
}

// leftAlone reports whether a sign-out of this request came too late: a sign-in had replaced
// the session, and was left alone.
func (r *tracked) leftAlone() bool {
	return slices.ContainsFunc(r.Left(), func(s request.Session) bool { return s.LeftAlone })
}

// named returns what the request knows of the session with this token, or the zero
// Session. Under HashTokenInStore, of which only scs knows, the store has met its hash.
func (r *tracked) named(token string) request.Session {
	id, _, _ := idOf(token)
	known, ok := r.Session(id)
	if !ok {
		sum := sha256.Sum256([]byte(token))
		id, _, _ = idOf(base64.RawURLEncoding.EncodeToString(sum[:]))
		known, _ = r.Session(id)
	}
	return known
}

// answer is the response of a request under Track. Each time headers go out, it first
// removes the Set-Cookie lines that withhold reports. It has the methods that middleware
// asserts; if the writer inside lacks one, that returns http.ErrNotSupported.
type answer struct {
	http.ResponseWriter
	cookies interface{ withhold(name, value string) bool }
	sent    bool // the final headers are out, or the connection is hijacked
}

// filter is also called when the handler has returned: if it wrote nothing, headers go out
// then.
func (a *answer) filter() {
	if a.sent {
		return
	}
	h := a.Header()
	kept := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		pair, _, _ := strings.Cut(line, ";") // http.ParseSetCookie does more, and allocates
		name, value, ok := strings.Cut(pair, "=")
		return ok && a.cookies.withhold(strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`))
	})
	if len(kept) > 0 {
		h["Set-Cookie"] = kept
	} else {
		delete(h, "Set-Cookie")
	}
}

func (a *answer) WriteHeader(code int) {
	a.filter()
	a.sent = a.sent || code >= 200 || code == http.StatusSwitchingProtocols
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	a.filter()
	a.sent = true
	return a.ResponseWriter.Write(b)
}

// ReadFrom lets io.Copy find the ReadFrom of the writer inside, which may use sendfile.
func (a *answer) ReadFrom(src io.Reader) (int64, error) {
	a.filter()
	a.sent = true
	return io.Copy(a.ResponseWriter, src)
}

// FlushError leaves sent alone: a writer inside that buffers may not send anything yet.
func (a *answer) FlushError() error {
	a.filter()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) Flush() { _ = a.FlushError() }

func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(a.ResponseWriter).Hijack()
	a.sent = a.sent || err == nil
	return conn, buf, err
}

// Unwrap is for http.ResponseController, which finds the rest.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
