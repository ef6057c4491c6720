package main

import (
	"embed"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/scspg/scspg/pgstore"
)

//go:embed static
var staticFS embed.FS

// maxBodyBytes is far more than a username and a password need.
const maxBodyBytes = 16 << 10

// server answers the demo's requests.
type server struct {
	cfg   config
	sm    *scs.SessionManager
	store *pgstore.Store // nil where sessions live elsewhere
	log   *slog.Logger
}

// newServer sets up the sessions on sessionStore. Everything beyond signing in and
// out needs it to be a *pgstore.Store.
func newServer(cfg config, sessionStore scs.Store, log *slog.Logger) *server {
	s := &server{cfg: cfg, sm: scs.New(), log: log}
	s.sm.Store = sessionStore
	s.sm.IdleTimeout = cfg.idleTimeout
	s.sm.Lifetime = cfg.lifetime
	s.sm.Cookie.Name = "scspg_demo"
	s.sm.Cookie.HttpOnly = true
	s.sm.Cookie.Path = "/"
	s.sm.Cookie.SameSite = http.SameSiteStrictMode
	// A cookie with a deadline would be gone when the session times out, and nobody
	// could be told why.
	s.sm.Cookie.Persist = false
	if cfg.secure {
		// Browsers take this prefix from the host itself over HTTPS only, so no
		// neighbouring subdomain can plant a cookie.
		s.sm.Cookie.Name = "__Host-" + s.sm.Cookie.Name
		s.sm.Cookie.Secure = true
	}
	s.sm.ErrorFunc = s.sessionError
	if store, ok := sessionStore.(*pgstore.Store); ok {
		s.store = store
		s.sm.Codec = pgstore.Codec{UserKey: userKey}
	}
	return s
}

// handler returns everything the demo serves.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /api/me", s.requireUser(s.me))
	mux.HandleFunc("GET /api/session", s.requireStore(s.session))
	mux.HandleFunc("GET /api/sessions", s.requireStore(s.requireUser(s.sessions)))
	mux.HandleFunc("DELETE /api/sessions/{id}", s.requireStore(s.requireUser(s.revoke)))
	mux.HandleFunc("PATCH /api/sessions/{id}", s.requireStore(s.requireUser(s.rename)))
	mux.HandleFunc("POST /api/sessions/revoke-others", s.requireStore(s.requireUser(s.revokeOthers)))
	mux.HandleFunc("POST /sessions/{id}/revoke", s.requireStore(s.requireUser(s.revoke)))

	sessions := firstAnswer(s.sm.LoadAndSave(mux))
	if s.store != nil {
		sessions = s.store.Track(sessions)
	}

	root := http.NewServeMux()
	// Outside of the sessions: a stylesheet must not read one, nor keep it alive.
	root.HandleFunc("GET /static/{file}", static)
	root.Handle("GET /healthz", noStore(http.HandlerFunc(s.health)))
	root.Handle("/", noStore(s.known(mux, sessions)))

	var crossOrigin http.CrossOriginProtection
	crossOrigin.SetDenyHandler(http.HandlerFunc(s.crossOrigin))
	return secureHeaders(crossOrigin.Handler(http.MaxBytesHandler(root, maxBodyBytes)))
}

// known runs next for requests that mux has a route for. The others must not read a
// session either; under /api/ they are answered in JSON.
func (s *server) known(mux *http.ServeMux, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse, route := mux.Handler(r)
		switch {
		case route != "":
			next.ServeHTTP(w, r)
		case !strings.HasPrefix(r.URL.Path, "/api/"):
			refuse.ServeHTTP(w, r)
		default:
			answer := statusOnly{ResponseWriter: w}
			refuse.ServeHTTP(&answer, r) // which sets Allow, too
			if answer.status == http.StatusMethodNotAllowed {
				s.writeError(w, r, answer.status, codeMethodNotAllowed, "This address does not take "+r.Method)
				return
			}
			s.writeError(w, r, http.StatusNotFound, codeNotFound, "There is nothing at this address")
		}
	})
}

// statusOnly keeps the status of an answer, and its headers, and drops the rest.
type statusOnly struct {
	http.ResponseWriter
	status int
}

func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// health says whether the demo can serve requests, for whatever restarts or routes around it.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	if s.store != nil {
		if err := s.store.Check(r.Context()); err != nil {
			// It names hosts, roles and schemas, which are for the log alone.
			s.log.ErrorContext(r.Context(), "not healthy", slog.Any("error", err))
			s.writeJSON(w, r, http.StatusServiceUnavailable, errorJSON{"The session store cannot work; the server's log says why", codeUnhealthy})
			return
		}
	}
	s.writeJSON(w, r, http.StatusOK, map[string]bool{"ok": true})
}

func static(w http.ResponseWriter, r *http.Request) {
	// Embedded files have no modification time to validate a cached copy by.
	w.Header().Set("Cache-Control", "max-age=60")
	http.ServeFileFS(w, r, staticFS, "static/"+r.PathValue("file"))
}

// contentPolicy allows this host's own files, and forms to this host, and no
// script or style within the page.
var contentPolicy = strings.Join([]string{
	"default-src 'self'", "base-uri 'none'", "form-action 'self'",
	"frame-ancestors 'none'", "object-src 'none'",
}, "; ")

func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// noStore keeps what one user was told out of every cache, also that of the back
// button after signing out.
func noStore(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// newHTTPServer wraps handler in a server that no slow or silent client can tie up.
func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		// More than a few store operations at their own timeout of 5 s.
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
