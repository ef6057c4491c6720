package pgstore

import (
	"context"
	"errors"

	"github.com/alexedwards/scs/v2"
)

// aliveKey is the context key under which SignIn learns whether its commit lived.
type aliveKey struct{}

// SignIn signs the user in: it renews the session's token (as the OWASP session
// cheat sheet asks at every change of privilege), puts userID under the key that
// sm.Codec names, and commits. userID is what the app keeps there: a string, an
// integer or a fmt.Stringer. An id that cannot be one is an error before anything
// has changed.
//
// It returns ErrUserLimit where the user's limit refuses the sign-in, and ErrEnded
// where the session did not survive it. After these, and any other error, nobody is
// signed in: the key has been removed again, so that LoadAndSave has nothing left to
// fail on, and the handler can answer as it likes.
func (s *Store) SignIn(ctx context.Context, sm *scs.SessionManager, userID any) error {
	key, err := userKey(sm.Codec)
	if err != nil {
		return err
	}
	if _, err := signInID(key, userID); err != nil {
		return err
	}
	if err := sm.RenewToken(ctx); err != nil {
		sm.Remove(ctx, key)
		return err
	}
	sm.Put(ctx, key, userID)
	alive := false
	_, _, err = sm.Commit(context.WithValue(ctx, aliveKey{}, &alive))
	if err == nil && !alive {
		err = ErrEnded
	}
	if err != nil {
		sm.Remove(ctx, key)
	}
	return err
}

func userKey(codec scs.Codec) (string, error) {
	var key string
	switch c := codec.(type) {
	case Codec:
		key = c.UserKey
	case *Codec:
		key = c.UserKey
	}
	if key == "" {
		return "", errors.New("pgstore: sign in: SessionManager.Codec does not say where the user's id is kept: " +
			"set it to pgstore.Codec{UserKey: ...}")
	}
	return key, nil
}

// signInID is the user's id as the store keeps it.
func signInID(key string, userID any) (string, error) {
	id, err := userIDOf(key, userID)
	if err != nil {
		return "", err
	}
	return id, checkUserID("sign in", id)
}
