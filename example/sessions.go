package main

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/scspg/scspg/pgstore"
)

// requireStore returns next if sessions live in PostgreSQL, and otherwise a handler that
// answers 501: the other stores cannot do what is asked.
func (s *server) requireStore(next http.HandlerFunc) http.HandlerFunc {
	if s.store != nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		s.writeError(w, r, http.StatusNotImplemented, codeNotSupported,
			"The "+s.cfg.store+" store cannot do this: start the demo with -store "+storePostgres)
	}
}

func (s *server) me(w http.ResponseWriter, r *http.Request, u user) {
	s.writeJSON(w, r, http.StatusOK, u)
}

// session tells how long the session has left. It does not extend it, so that a
// page may ask again and again and still let an idle user be signed out.
func (s *server) session(w http.ResponseWriter, r *http.Request) {
	pgstore.NoTouch(r.Context())
	status := s.store.StatusOf(r.Context())
	if _, ok := s.currentUser(r.Context()); !ok || status.State != pgstore.Active {
		s.notSignedIn(w, r)
		return
	}
	s.writeJSON(w, r, http.StatusOK, struct {
		ExpiresAt   time.Time `json:"expires_at"`
		SecondsLeft int64     `json:"seconds_left"`
	}{status.Expiry.UTC(), int64(status.Remaining.Seconds())})
}

// sessionJSON is one session in the answer of GET /api/sessions.
type sessionJSON struct {
	ID         string     `json:"id"`
	Current    bool       `json:"current"`
	CreatedAt  time.Time  `json:"created_at"`
	LastSeenAt time.Time  `json:"last_seen_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	IP         netip.Addr `json:"ip"`
	UserAgent  string     `json:"user_agent"`
	Label      string     `json:"label"` // the name that its user has given it, or ""
}

func (s *server) sessions(w http.ResponseWriter, r *http.Request, u user) {
	list, err := s.store.Sessions(r.Context(), u.Username)
	if err != nil {
		s.internalError(w, r, "listing sessions", err)
		return
	}
	answer := struct {
		Sessions []sessionJSON `json:"sessions"`
		Limit    int           `json:"limit"`
	}{make([]sessionJSON, 0, len(list)), s.cfg.limit}
	current := s.currentID(r)
	for _, session := range list {
		answer.Sessions = append(answer.Sessions, sessionJSON{
			ID:         session.ID,
			Current:    session.ID == current,
			CreatedAt:  session.CreatedAt.UTC(),
			LastSeenAt: session.LastSeenAt.UTC(),
			ExpiresAt:  session.Expiry.UTC(),
			IP:         session.IP,
			UserAgent:  session.UserAgent,
			Label:      session.Label,
		})
	}
	s.writeJSON(w, r, http.StatusOK, answer)
}

// currentID is the id of the session that r came with.
func (s *server) currentID(r *http.Request) string {
	return pgstore.IDOf(s.sm.Token(r.Context()))
}

// revoke ends one of the user's sessions. It serves DELETE for programs, and POST
// for the page, whose forms know no other method.
func (s *server) revoke(w http.ResponseWriter, r *http.Request, u user) {
	// Revoke looks among this user's sessions only: an id of somebody else's is
	// not found, like one that never was.
	ended, err := s.store.Revoke(r.Context(), u.Username, r.PathValue("id"))
	switch {
	case err != nil:
		s.internalError(w, r, "revoking a session", err)
	case !ended:
		s.writeError(w, r, http.StatusNotFound, codeNotFound, "You have no such session")
	case fromPage(r):
		redirectToPage(w, r, noticeRevoked)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// rename gives one of the user's sessions a name.
func (s *server) rename(w http.ResponseWriter, r *http.Request, u user) {
	var body struct {
		Label string `json:"label"`
	}
	if err := readJSON(r, &body); err != nil {
		s.badBody(w, r, err, "a label", typeJSON)
		return
	}
	switch renamed, err := s.store.Rename(r.Context(), u.Username, r.PathValue("id"), body.Label); {
	case err != nil:
		s.internalError(w, r, "renaming a session", err)
	case !renamed:
		s.writeError(w, r, http.StatusNotFound, codeNotFound, "You have no such session")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *server) revokeOthers(w http.ResponseWriter, r *http.Request, u user) {
	n, err := s.store.RevokeOthers(r.Context(), u.Username, s.sm.Token(r.Context()))
	switch {
	case errors.Is(err, pgstore.ErrNotLive):
		// Two devices signed out all others at once, and the other one was first.
		s.notSignedIn(w, r)
	case err != nil:
		s.internalError(w, r, "revoking the other sessions", err)
	default:
		s.done(w, r, noticeOthersRevoked, map[string]int{"revoked": n})
	}
}
