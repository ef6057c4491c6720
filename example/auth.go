package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/scspg/scspg/pgstore"
)

// userKey is the key of the session value that says who is signed in.
const userKey = "userID"

// currentUser returns who is signed in on this session, if anybody.
func (s *server) currentUser(ctx context.Context) (user, bool) {
	u, ok := users[s.sm.GetString(ctx, userKey)]
	return u, ok
}

// requireUser runs next for those who are signed in, and tells the others why
// they are not.
func (s *server) requireUser(next func(http.ResponseWriter, *http.Request, user)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u, ok := s.currentUser(r.Context())
		if !ok {
			s.notSignedIn(w, r)
			return
		}
		next(w, r, u)
	}
}

func (s *server) notSignedIn(w http.ResponseWriter, r *http.Request) {
	code := s.whyNot(r.Context())
	s.writeError(w, r, http.StatusUnauthorized, code, whyNotTexts[code])
}

var whyNotTexts = map[string]string{
	codeNotSignedIn:      "Not signed in",
	codeSessionTimeout:   "Session expired",
	codeSessionRevoked:   "Session signed out from another device",
	codeSessionEvicted:   "Session ended by a sign-in on another device, beyond the limit",
	codeSessionSignedOut: "Session signed out",
}

// whyNot is the code of why the request's session signs nobody in. Only pgstore
// can tell; with any other store, a session that has ended looks like none.
func (s *server) whyNot(ctx context.Context) string {
	if s.store == nil {
		return codeNotSignedIn
	}
	status := s.store.StatusOf(ctx)
	switch {
	case status.State == pgstore.Expired:
		return codeSessionTimeout
	case status.State != pgstore.Ended:
		return codeNotSignedIn
	}
	switch status.EndReason {
	case pgstore.Revoked:
		return codeSessionRevoked
	case pgstore.Evicted:
		return codeSessionEvicted
	case pgstore.SignedOut:
		return codeSessionSignedOut
	}
	// Renewed: an old cookie of a session that lives on under a new one.
	return codeNotSignedIn
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	username, password, err := readCredentials(r)
	if err != nil {
		s.badBody(w, r, err, "username and password", typeForm+" or "+typeJSON)
		return
	}
	u, ok := authenticate(username, password)
	if !ok {
		s.writeError(w, r, http.StatusUnauthorized, codeBadCredentials, "Wrong username or password")
		return
	}
	err = s.signIn(r.Context(), u)
	switch {
	case errors.Is(err, pgstore.ErrUserLimit):
		s.writeError(w, r, http.StatusConflict, codeSessionLimit,
			fmt.Sprintf("Already signed in on %s: sign out on one of them first", devices(s.cfg.limit)))
	case errors.Is(err, pgstore.ErrEnded):
		// Somebody signed this user out everywhere while we were at it.
		s.writeError(w, r, http.StatusUnauthorized, codeSessionRevoked, whyNotTexts[codeSessionRevoked])
	case err != nil:
		s.internalError(w, r, "signing in", err)
	default:
		s.done(w, r, "", map[string]bool{"success": true})
	}
}

// signIn makes the request's session one of u. Its token is renewed first: a
// token that somebody knew before the sign-in is worth nothing after it.
func (s *server) signIn(ctx context.Context, u user) error {
	if before := s.sm.GetString(ctx, userKey); before != "" && before != u.Username {
		// Renewing keeps the session's values, and those are another user's.
		if err := s.sm.Destroy(ctx); err != nil {
			return fmt.Errorf("signing out the user before: %w", err)
		}
	}
	if s.store != nil {
		err := s.store.SignIn(ctx, s.sm, u.Username)
		if err != nil && len(s.sm.Keys(ctx)) == 0 {
			// Nobody needs a session without values, nor a cookie for it.
			err = errors.Join(err, s.sm.Destroy(ctx))
		}
		return err
	}
	if err := s.sm.RenewToken(ctx); err != nil {
		return err
	}
	s.sm.Put(ctx, userKey, u.Username)
	return nil
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	if err := s.sm.Destroy(r.Context()); err != nil {
		s.internalError(w, r, "signing out", err)
		return
	}
	s.done(w, r, noticeSignedOut, map[string]bool{"success": true})
}

// done answers a request that succeeded: a form on the page with the page and a
// notice, anything else with v.
func (s *server) done(w http.ResponseWriter, r *http.Request, notice string, v any) {
	if fromPage(r) {
		redirectToPage(w, r, notice)
		return
	}
	s.writeJSON(w, r, http.StatusOK, v)
}

var errMediaType = errors.New("unsupported media type")

// readCredentials reads the body of a sign-in. The query string is not looked at:
// URLs end up in logs and histories.
func readCredentials(r *http.Request) (username, password string, err error) {
	switch mediaType(r) {
	case typeForm:
		if err := r.ParseForm(); err != nil {
			return "", "", err
		}
		return r.PostForm.Get("username"), r.PostForm.Get("password"), nil
	case typeJSON:
		var body struct {
			Username string `json:"username"`
			Password string `json:"password"`
		}
		err := readJSON(r, &body)
		return body.Username, body.Password, err
	}
	return "", "", errMediaType
}

// readJSON reads the body, which is one JSON value, into v.
func readJSON(r *http.Request, v any) error {
	if mediaType(r) != typeJSON {
		return errMediaType
	}
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("data after the JSON value"), err)
	}
	return nil
}

// badBody says what is wrong with a body that could not be read as what it should hold.
func (s *server) badBody(w http.ResponseWriter, r *http.Request, err error, what, types string) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.writeError(w, r, http.StatusRequestEntityTooLarge, codeTooLarge,
			fmt.Sprintf("The request body is larger than %d bytes", tooLarge.Limit))
	case errors.Is(err, errMediaType):
		s.writeError(w, r, http.StatusUnsupportedMediaType, codeUnsupportedMedia,
			"Send "+what+" as "+types)
	default:
		s.writeError(w, r, http.StatusBadRequest, codeBadRequest,
			"The request body could not be read as "+what)
	}
}
