package main

import (
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"strings"
)

// The codes of the JSON errors, for programs; the texts beside them are for people.
const (
	codeBadCredentials   = "BAD_CREDENTIALS"
	codeBadRequest       = "BAD_REQUEST"
	codeCrossOrigin      = "CROSS_ORIGIN"
	codeInternal         = "INTERNAL"
	codeMethodNotAllowed = "METHOD_NOT_ALLOWED"
	codeNotFound         = "NOT_FOUND"
	codeNotSignedIn      = "NOT_SIGNED_IN"
	codeNotSupported     = "NOT_SUPPORTED"
	codeSessionEvicted   = "SESSION_EVICTED"
	codeSessionLimit     = "SESSION_LIMIT"
	codeSessionRevoked   = "SESSION_REVOKED"
	codeSessionSignedOut = "SESSION_SIGNED_OUT"
	codeSessionTimeout   = "SESSION_TIMEOUT"
	codeTooLarge         = "TOO_LARGE"
	codeUnhealthy        = "UNHEALTHY"
	codeUnsupportedMedia = "UNSUPPORTED_MEDIA_TYPE"
)

// errorJSON is the answer to a request that failed.
type errorJSON struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

func (s *server) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.internalError(w, r, "encoding the answer", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck // The client is gone: nobody to tell.
}

// writeError answers with text and code. A form on the page gets the page back
// instead, which then shows what the code stands for.
func (s *server) writeError(w http.ResponseWriter, r *http.Request, status int, code, text string) {
	if fromPage(r) {
		redirectToPage(w, r, code)
		return
	}
	s.writeJSON(w, r, status, errorJSON{text, code})
}

// internalError logs err, which is not the client's to see.
func (s *server) internalError(w http.ResponseWriter, r *http.Request, doing string, err error) {
	s.log.ErrorContext(r.Context(), "request failed",
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("doing", doing), slog.Any("error", err))
	const text = "Something went wrong on the server; its log says what"
	if acceptsHTML(r) {
		// A redirect could fail the same way, and again.
		http.Error(w, text+".", http.StatusInternalServerError)
		return
	}
	s.writeJSON(w, r, http.StatusInternalServerError, errorJSON{text, codeInternal})
}

// firstAnswer lets an error of LoadAndSave be the whole answer. scs calls its
// ErrorFunc from within the handler's first write, and then lets the handler write
// on: without this, its body would follow that of the error.
func firstAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&closableWriter{ResponseWriter: w}, r)
	})
}

// closableWriter drops what is written once it is closed.
type closableWriter struct {
	http.ResponseWriter
	closed bool
}

func (w *closableWriter) WriteHeader(status int) {
	if !w.closed {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *closableWriter) Write(b []byte) (int, error) {
	if w.closed {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *closableWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// sessionError is the ErrorFunc of the session manager.
func (s *server) sessionError(w http.ResponseWriter, r *http.Request, err error) {
	s.internalError(w, r, "loading or saving the session", err)
	if cw, ok := w.(*closableWriter); ok {
		cw.closed = true
	}
}

func (s *server) crossOrigin(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, http.StatusForbidden, errorJSON{"Requests from other sites are refused", codeCrossOrigin})
}

// redirectToPage sends a browser back to the page, which shows the notice of this
// name, if it has one.
func redirectToPage(w http.ResponseWriter, r *http.Request, notice string) {
	target := "/"
	if _, ok := notices[notice]; ok {
		target = "/?notice=" + notice
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}

// fromPage reports whether r is a form sent by a browser, which wants a page next,
// and not an answer in JSON.
func fromPage(r *http.Request) bool {
	return r.Method == http.MethodPost && mediaType(r) == typeForm && acceptsHTML(r)
}

const (
	typeForm = "application/x-www-form-urlencoded"
	typeJSON = "application/json"
)

// mediaType is what the body of r is said to be, without parameters; "" if unknown.
func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

func acceptsHTML(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Accept")), "text/html")
}
