package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/pgstore/internal/request"
)

// aliveKey is the key of a *bool in the context of SignIn's commit. CommitCtx, which
// returns nil for a dropped write, reports there whether the session is alive.
type aliveKey struct{}

// SignIn signs a user in on the session of ctx. It renews the session's token (the
// OWASP session cheat sheet asks for that at every change of privilege), puts userID
// under Codec.UserKey, and commits. userID is what the app keeps there: a string, an
// integer or a fmt.Stringer. If it is empty, or not usable as an id, or ctx has ended,
// SignIn returns an error and has changed nothing.
//
// Check the password first: SignIn does not. The session keeps its other values, unless
// another user was signed in on it: then all are removed. Whatever has become of the
// browser's old session, the sign-in goes through; if it is still alive, under whatever
// token other requests have given it, it ends.
//
// SignIn returns ErrUserLimit if the user's limit refuses the sign-in, and ErrEnded
// if RevokeAll or RevokeOthers has run for this user since the request began. After these
// and any other later error nobody is signed in, not even the user who was before: the old
// token is void, the key has been removed, and if a user was signed in, so has all else.
// LoadAndSave then commits what is left as an anonymous session, so the handler is free to
// answer; call sm.Destroy to leave none behind.
//
// ctx must hold session data, as it does inside LoadAndSave or after sm.Load; without
// it scs panics. sm must use this Store and a Codec with a UserKey.
func (s *Store) SignIn(ctx context.Context, sm *scs.SessionManager, userID any) error {
	if err := ctx.Err(); err != nil {
		return opError("sign in", err)
	}
	if store, ok := sm.Store.(*Store); !ok || store != s {
		return fmt.Errorf("pgstore: sign in: SessionManager.Store is %T, not the Store whose SignIn is called", sm.Store)
	}
	key, err := userKey(sm.Codec)
	if err != nil {
		return err
	}
	id, err := signInID(key, userID)
	if err != nil {
		return err
	}
	if _, err := sm.Codec.Encode(time.Now(), map[string]any{key: userID}); err != nil {
		return err
	}
	err = sm.RenewToken(ctx)
	owned := s.ofAnother(ctx, sm, key, "")
	if err == nil && s.ofAnother(ctx, sm, key, id) {
		err = sm.Clear(ctx)
	}
	alive := false
	if err == nil {
		sm.Put(ctx, key, userID)
		_, _, err = sm.Commit(context.WithValue(ctx, aliveKey{}, &alive))
	}
	if err == nil && !alive {
		err = ErrEnded
	}
	if err != nil {
		sm.Remove(ctx, key)
		if owned { // what is left would become nobody's, and then the next user's
			_ = sm.Clear(ctx)
		}
	}
	return err
}

// ofAnother reports whether the session of ctx is, or was when the request loaded it, that of
// another user than id, which may be "".
func (s *Store) ofAnother(ctx context.Context, sm *scs.SessionManager, key, id string) bool {
	is := func(user string) bool { return user != "" && user != id }
	if req := s.requestOf(ctx); req != nil {
		for _, left := range req.Left() {
			if left.Phase == request.Renewing && is(left.User) { // what is in a destroyed one, scs has removed
				return true
			}
		}
	}
	user, err := userIDOf(key, sm.Get(ctx, key))
	return err != nil || is(user)
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
