package pgstore

import (
	"errors"
	"fmt"

	"github.com/scspg/scspg/internal/pgfault"
)

var (
	// ErrUserLimit is returned by SignIn, and by the commit that signs a user in, if
	// the policy is Reject and the user has no session to spare.
	ErrUserLimit = errors.New("pgstore: the user has reached the limit of sessions")

	// ErrEnded is returned by SignIn if RevokeAll or RevokeOthers ran after the request
	// began. Nobody is signed in.
	ErrEnded = errors.New("pgstore: the session was ended while it was being signed in")

	// ErrNotLive is returned by RevokeOthers if the token to keep is not that of a
	// live session of the user, for instance because another device has just signed
	// this one out. Nothing was revoked.
	ErrNotLive = errors.New("pgstore: the token to keep is not that of a live session of this user; nothing was revoked")
)

// ErrStale is returned by a commit under a key of All if the session has changed or ended
// since All read it, or if the commit would change its user. Nothing was written.
var ErrStale = errors.New("pgstore: the session has changed since All read it; nothing was written")

// errInDoubt is for a write whose answer was lost, to a session that somebody else has
// written or ended since.
var errInDoubt = errors.New("the connection broke before the answer came, and the session has changed since: " +
	"whether it was stored is not known")

// errUnkeyed keeps a user's sessions in the user's index, where RevokeAll finds them.
var errUnkeyed = errors.New("the session belongs to a user, and the data to store does not say whose it is: " +
	"set SessionManager.Codec to pgstore.Codec with the UserKey that the other apps on these tables have")

// opError says which operation failed, and what to do if that is known. The cause
// stays for errors.Is and errors.As.
func opError(op string, err error) error {
	if err == nil || errors.Is(err, ErrUserLimit) || errors.Is(err, ErrNotLive) || errors.Is(err, ErrStale) {
		return err
	}
	_, ofLimit := errors.AsType[*limitError](err) // the app's own errors are about the app's tables
	_, ofSeal := errors.AsType[*sealError](err)
	if !ofLimit && !ofSeal {
		if advice := pgfault.Advice(err); advice != "" {
			return fmt.Errorf("pgstore: %s: %s: %w", op, advice, err)
		}
	}
	return fmt.Errorf("pgstore: %s: %w", op, err)
}
