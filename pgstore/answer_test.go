package pgstore

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// oldOnly withholds cookies with the value "old".
type oldOnly struct{}

func (oldOnly) withhold(_, value string) bool { return value == "old" }

// wire is a server's writer that can do everything, and records what has gone out.
type wire struct {
	http.ResponseWriter
	codes    []int
	cookies  [][]string // the Set-Cookie lines with each code
	readFrom io.Reader
	flushed  int
	hijacked bool
}

func newWire() *wire { return &wire{ResponseWriter: httptest.NewRecorder()} }

func (w *wire) WriteHeader(code int) {
	w.codes = append(w.codes, code)
	w.cookies = append(w.cookies, slices.Clone(w.Header()["Set-Cookie"]))
}

func (w *wire) final() bool { return len(w.codes) > 0 && w.codes[len(w.codes)-1] >= 200 }

func (w *wire) Write(b []byte) (int, error) {
	if !w.final() {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *wire) ReadFrom(src io.Reader) (int64, error) {
	w.readFrom = src
	return io.Copy(struct{ io.Writer }{w}, src)
}

func (w *wire) Flush() {
	if !w.final() {
		w.WriteHeader(http.StatusOK)
	}
	w.flushed++
}

func (w *wire) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	return nil, nil, nil
}

func TestAnswerFiltersEachTimeHeadersGoOut(t *testing.T) {
	t.Parallel()
	const malformed = "no pair; old"
	lines := []string{"a=1;path=/ ;  HttpOnly", "session=old; Path=/", malformed, `b="old"`, "c=2", "session=new"}
	want := []string{lines[0], malformed, "c=2", "session=new"}
	for name, send := range map[string]func(*answer){
		"WriteHeader": func(a *answer) { a.WriteHeader(http.StatusNotModified) },
		"Early Hints": func(a *answer) { a.WriteHeader(http.StatusEarlyHints) },
		"Write":       func(a *answer) { _, _ = a.Write(nil) },
		"ReadFrom":    func(a *answer) { _, _ = a.ReadFrom(strings.NewReader("x")) },
		"Flush":       func(a *answer) { a.Flush() },
		"FlushError":  func(a *answer) { _ = a.FlushError() },
		"the controller's Flush": func(a *answer) {
			_ = http.NewResponseController(struct{ *answer }{a}).Flush()
		},
		"nothing": func(a *answer) {
			a.filter()
			a.ResponseWriter.WriteHeader(http.StatusOK)
		},
	} {
		w := newWire()
		a := &answer{ResponseWriter: w, cookies: oldOnly{}}
		a.Header()["Set-Cookie"] = slices.Clone(lines)
		send(a)
		if len(w.cookies) != 1 || !slices.Equal(w.cookies[0], want) {
			t.Errorf("%s: %q went out, want %q", name, w.cookies, want)
		}
	}
}

func TestAnswerRemovesTheHeaderWithItsLastLine(t *testing.T) {
	t.Parallel()
	w := newWire()
	a := &answer{ResponseWriter: w, cookies: oldOnly{}}
	a.Header().Set("Set-Cookie", "session=old")
	a.WriteHeader(http.StatusOK)
	if _, ok := a.Header()["Set-Cookie"]; ok {
		t.Error("an empty header is left")
	}
}

// What was withheld once stays so, and what came since is judged.
func TestAnswerFiltersAgainAfterAnInformationalOne(t *testing.T) {
	t.Parallel()
	w := newWire()
	a := &answer{ResponseWriter: w, cookies: oldOnly{}}
	a.Header().Add("Set-Cookie", "session=old")
	a.Header().Add("Set-Cookie", "a=1")
	a.WriteHeader(http.StatusEarlyHints)
	a.Header().Add("Set-Cookie", "session=old")
	a.Header().Add("Set-Cookie", "session=new")
	a.WriteHeader(http.StatusOK)
	if !slices.Equal(w.codes, []int{103, 200}) || !slices.Equal(w.cookies[0], []string{"a=1"}) || !slices.Equal(w.cookies[1], []string{"a=1", "session=new"}) {
		t.Errorf("%v %q", w.codes, w.cookies)
	}
}

// A middleware that buffers may take a Flush, and send headers only later.
func TestAnswerFiltersAgainAfterAFlushThatSentNothing(t *testing.T) {
	t.Parallel()
	buffers := &wire{ResponseWriter: httptest.NewRecorder(), codes: []int{http.StatusOK}} // Flush adds no other
	a := &answer{ResponseWriter: buffers, cookies: oldOnly{}}
	a.Flush()
	a.Header().Set("Set-Cookie", "session=old")
	a.WriteHeader(http.StatusOK)
	if got := buffers.cookies[0]; len(got) != 0 {
		t.Errorf("%q went out", got)
	}
}

// Headers that have gone out are left as they went: a logger may read them.
func TestAnswerLeavesHeadersAloneOnceTheyAreOut(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*answer){
		"WriteHeader": func(a *answer) { a.WriteHeader(http.StatusOK) },
		"upgraded":    func(a *answer) { a.WriteHeader(http.StatusSwitchingProtocols) },
		"Write":       func(a *answer) { _, _ = a.Write(nil) },
		"ReadFrom":    func(a *answer) { _, _ = a.ReadFrom(strings.NewReader("x")) },
		"Hijack":      func(a *answer) { _, _, _ = a.Hijack() },
	} {
		a := &answer{ResponseWriter: newWire(), cookies: oldOnly{}}
		send(a)
		a.Header().Set("Set-Cookie", "session=old")
		a.WriteHeader(http.StatusEarlyHints)
		_, _ = a.Write(nil)
		a.filter()
		if got := a.Header().Values("Set-Cookie"); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAnswerPassesOnWhatTheServerCanDo(t *testing.T) {
	t.Parallel()
	w := newWire()
	var h http.ResponseWriter = &answer{ResponseWriter: w, cookies: oldOnly{}}
	src := struct{ io.Reader }{strings.NewReader("body")}
	if n, err := io.Copy(h, src); n != 4 || err != nil || w.readFrom != io.Reader(src) {
		t.Errorf("ReadFrom: %d, %v, of %v", n, err, w.readFrom)
	}
	h.(http.Flusher).Flush()
	if w.flushed != 1 {
		t.Errorf("flushed %d times", w.flushed)
	}
	if _, _, err := h.(http.Hijacker).Hijack(); err != nil || !w.hijacked {
		t.Errorf("Hijack: %v", err)
	}
}

// plainWriter can do nothing but write.
type plainWriter struct{ http.ResponseWriter }

func TestAnswerSaysWhatTheServerCannotDo(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	a := &answer{ResponseWriter: plainWriter{rec}, cookies: oldOnly{}}
	a.Flush() // has no way to say so
	_, _, hijack := a.Hijack()
	for name, err := range map[string]error{"Hijack": hijack, "FlushError": a.FlushError()} {
		if !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.Header().Set("Set-Cookie", "session=old") // and filters on, since nothing was hijacked
	if n, err := a.ReadFrom(strings.NewReader("body")); n != 4 || err != nil || rec.Body.String() != "body" || rec.Header().Get("Set-Cookie") != "" {
		t.Errorf("%d, %v: %q %v", n, err, rec.Body, rec.Header())
	}
}

// discard is a writer that allocates nothing.
type discard http.Header

func (d discard) Header() http.Header         { return http.Header(d) }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

func TestAnswerWithoutCookiesAllocatesNothing(t *testing.T) {
	a := &answer{ResponseWriter: discard{"Vary": {"Cookie"}}, cookies: oldOnly{}}
	if n := testing.AllocsPerRun(100, func() {
		a.sent = false
		a.WriteHeader(http.StatusEarlyHints)
		_, _ = a.Write(nil)
		a.filter()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAnswerWithoutCookies(b *testing.B) {
	a := &answer{ResponseWriter: discard{"Vary": {"Cookie"}}, cookies: oldOnly{}}
	b.ReportAllocs()
	for b.Loop() {
		a.sent = false
		a.filter()
	}
}
