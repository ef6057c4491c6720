package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/alexedwards/scs/v2"
)

// aliveKey is the key of a *bool in the context of SignIn's commit. CommitCtx, which
// returns nil for a dropped write, reports there whether the session is alive.
type aliveKey struct{}

// SignIn signs a user in on the session of ctx. It renews the session's token (the
// OWASP session cheat sheet asks for that at every change of privilege), puts userID
// under Codec.UserKey, and commits. userID is what the app keeps there: a string, an
// integer or a fmt.Stringer. If it is empty, or not usable as an id, SignIn returns
// an error and has changed nothing.
//
// Check the password first: SignIn does not. The session keeps its other values. If
// another user may be signed in on it, call sm.Destroy first, or that user's values
// become this one's.
//
// SignIn returns ErrUserLimit if the user's limit refuses the sign-in, and ErrEnded
// if the session was ended meanwhile. After these and any other later error nobody is
// signed in, not even the user who was before: the old token is void and the key has
// been removed. LoadAndSave then commits what is left as an anonymous session, so the
// handler is free to answer; call sm.Destroy to leave none behind.
//
// ctx must hold session data, as it does inside LoadAndSave or after sm.Load; without
// it scs panics. sm must use this Store and a Codec with a UserKey.
func (s *Store) SignIn(ctx context.Context, sm *scs.SessionManager, userID any) error {
	key, err := userKey(sm.Codec)
	if err != nil {
		return err
	}
	if _, err := signInID(key, userID); err != nil {
		return err
	}
	if _, err := sm.Codec.Encode(time.Now(), map[string]any{key: userID}); err != nil {
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
