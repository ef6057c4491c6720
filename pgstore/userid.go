package pgstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// maxUserIDBytes is what the user_id column takes.
const maxUserIDBytes = 255

// userIDOf returns the id that v, found under key, stands for; "" is anonymous.
func userIDOf(key string, v any) (string, error) {
	id, err := userText(v)
	if err == nil && id != "" {
		err = validUserID(id)
	}
	if err != nil {
		return "", fmt.Errorf("pgstore: the user's id under the session key %q: %w", key, err)
	}
	return id, nil
}

func userText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case frame.Opaque:
		return v.User, nil
	}
	// A named type may be both, and then means what it prints.
	rv := reflect.ValueOf(v)
	if s, ok := v.(fmt.Stringer); ok {
		if rv.Kind() == reflect.Pointer && rv.IsNil() {
			return "", nil
		}
		return s.String(), nil
	}
	switch {
	case rv.Kind() == reflect.String:
		return rv.String(), nil
	case rv.CanInt():
		return strconv.FormatInt(rv.Int(), 10), nil
	case rv.CanUint():
		return strconv.FormatUint(rv.Uint(), 10), nil
	}
	return "", fmt.Errorf("a value of type %T is not an id: use a string, an integer, or a type with a String method", v)
}

// validUserID refuses what the user_id column cannot hold. The id itself is the
// app's data, and stays out of the error.
func validUserID(id string) error {
	switch {
	case len(id) > maxUserIDBytes:
		return fmt.Errorf("it has %d bytes, at most %d are possible: use the id of the user's row", len(id), maxUserIDBytes)
	case !utf8.ValidString(id):
		return errors.New("it is not valid UTF-8")
	case strings.ContainsRune(id, 0):
		return errors.New("it contains a NUL byte, which PostgreSQL does not store in text")
	}
	return nil
}

// firstCommits is after how many commits without a user it is said that there was none. An
// app without anybody signed in gets there, too, so it is said as a hint.
const firstCommits = 100

// noteUser says once that a limit is set and no commit has carried a user: if UserKey is
// mistyped, all sessions are anonymous, and nothing else would tell.
func (s *Store) noteUser(ctx context.Context, user string) {
	switch {
	case !s.cfg.limited() || s.carriedUser.Load():
	case user != "":
		s.carriedUser.Store(true)
	case s.anonymous.Add(1) == firstCommits:
		s.cfg.Logger.WarnContext(ctx, "pgstore: a user limit is set, but no commit so far has carried a user; "+
			"if users have signed in, Codec.UserKey is not the session key that the app keeps their id under", "commits", firstCommits)
	}
}
