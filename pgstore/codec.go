package pgstore

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scspg/scspg/pgstore/internal/frame"
)

// Codec is an scs codec that records whose session it encodes, so that the store can
// limit and list a user's sessions. It is compact, and deterministic: an unchanged
// session encodes to the same bytes.
//
// Strings, []byte, bools, integers, floats, time.Time and time.Duration keep their Go
// types: an int stays an int. A nil []byte comes back empty. A time keeps its instant
// and, if that is a whole number of minutes, its zone offset, but not the name of its
// location. Any other value goes through encoding/gob, and its type must be registered
// with gob.Register. A process that has not registered the type carries the value
// through unchanged; there, scs's typed getters return their zero value, and an assertion
// such as sm.Get(ctx, key).(T) panics, unless it asks for ok.
//
// Codec also decodes what scs.GobCodec has written, but not the other way round: an app
// that goes back to scs's codec cannot read the sessions that were stored meanwhile, and
// answers them with errors until their rows are gone. Data that is neither Codec's own nor
// gob decodes to an empty session past its deadline, and an error is logged to
// slog.Default(): a damaged row costs its user one sign-in, not an error at every
// request.
//
// The zero value is usable: all sessions are then anonymous.
type Codec struct {
	// UserKey is the session key under which the app keeps the user's id: a string,
	// an integer, or a fmt.Stringer, whose text has at most 255 bytes of valid UTF-8
	// without NUL. A session without the key, with nil, or with "" is anonymous; 0 is
	// an id. Default (""): all sessions are anonymous.
	UserKey string
}

var _ scs.Codec = Codec{}

// Encode encodes a session. If a value cannot be encoded, or the value under UserKey
// cannot be a user's id, the error names the key. Safe for concurrent use.
func (c Codec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	user, keyed := "", c.UserKey != ""
	if keyed {
		var err error
		if user, err = userIDOf(c.UserKey, values[c.UserKey]); err != nil {
			return nil, err
		}
	}
	b, err := frame.Encode(deadline, user, keyed, values)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	return b, nil
}

// Decode decodes a session. The values do not alias b. It returns an error only if b
// begins like Encode's output and is damaged; the store checks for that before and
// reports such a session as not found, so that scs does not see the error. Safe for
// concurrent use.
func (c Codec) Decode(b []byte) (time.Time, map[string]any, error) {
	if !frame.Is(b) {
		return decodeForeign(b)
	}
	deadline, values, err := frame.Decode(b, c.UserKey)
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("pgstore: %w", err)
	}
	return deadline, values, nil
}

// decodeForeign reads rows of scs's gob codec.
func decodeForeign(b []byte) (time.Time, map[string]any, error) {
	deadline, values, err := frame.DecodeGobCodec(b)
	if err != nil {
		slog.Default().Error("pgstore: a session's data is neither ours nor a gob stream that this process can read; "+
			"it is treated as expired", "bytes", len(b), "error", err)
		return time.Unix(0, 0).UTC(), map[string]any{}, nil
	}
	return deadline, values, nil
}
