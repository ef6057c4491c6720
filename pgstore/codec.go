package pgstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"
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
// through unchanged; there, scs's typed getters return their zero value.
//
// Codec also decodes what scs.GobCodec has written. Data that is neither its own nor
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

// scratch holds the buffers of one Encode.
type scratch struct {
	buf  []byte
	keys []string
}

const (
	minScratchBytes = 512

	// maxScratchBytes keeps a huge session from pinning its buffer in the pool: a
	// larger buffer is handed to the caller as it is.
	maxScratchBytes = 64 << 10
)

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// release returns s to the pool, without the session's keys, which it would keep alive.
func (s *scratch) release() {
	clear(s.keys)
	scratches.Put(s)
}

// Encode encodes a session. If a value cannot be encoded, or the value under UserKey
// cannot be a user's id, the error names the key. Safe for
// concurrent use.
func (c Codec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	h := header{sec: deadline.Unix(), nsec: uint64(deadline.Nanosecond())}
	if c.UserKey != "" {
		user, err := userIDOf(c.UserKey, values[c.UserKey])
		if err != nil {
			return nil, err
		}
		h.keyed, h.user = true, []byte(user)
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	s.keys = s.keys[:0]
	size := minScratchBytes
	for key, v := range values {
		s.keys = append(s.keys, key)
		size += len(key) + sizeHint(v)
	}
	slices.Sort(s.keys)
	b := appendHeader(slices.Grow(s.buf[:0], size), h, len(values))
	for _, key := range s.keys {
		b = appendKey(b, key)
		var err error
		if b, err = appendValue(b, values[key]); err != nil {
			return nil, fmt.Errorf("pgstore: session value %q cannot be encoded: %w", key, err)
		}
	}
	if cap(b) > maxScratchBytes {
		return b, nil
	}
	s.buf = b
	return bytes.Clone(b), nil
}

// sizeHint saves a large session from growing its buffer step by step.
func sizeHint(v any) int {
	const others = 16
	switch v := v.(type) {
	case string:
		return len(v) + others
	case []byte:
		return len(v) + others
	default:
		return others
	}
}

// Decode decodes a session. The values do not alias b. It returns an error only if b
// begins like Encode's output and is damaged; the store checks for that before and
// reports such a session as not found, so that scs does not see the error. Safe for
// concurrent use.
func (c Codec) Decode(b []byte) (time.Time, map[string]any, error) {
	if !isFrame(b) {
		return decodeForeign(b)
	}
	h, f, err := openFrame(b)
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("pgstore: %w", err)
	}
	// One copy of b holds all keys and strings, which saves an allocation for each.
	text := string(b)
	part := func(chunk []byte) string {
		start := cap(b) - cap(chunk) // chunk is a slice of b
		return text[start : start+len(chunk)]
	}
	values := make(map[string]any, f.left)
	for f.next() {
		v := decodeValue(f.tag, f.payload, part(f.payload))
		key := part(f.key)
		if o, ok := v.(opaque); ok && key == c.UserKey {
			o.user = string(h.user)
			v = o
		}
		values[key] = v
	}
	if f.err != nil {
		return time.Time{}, nil, fmt.Errorf("pgstore: %w", f.err)
	}
	return h.deadline(), values, nil
}

// decodeForeign reads rows of scs's gob codec.
func decodeForeign(b []byte) (time.Time, map[string]any, error) {
	deadline, values, err := readGob(b)
	if err != nil {
		slog.Default().Error("pgstore: a session's data is neither ours nor a gob stream that this process can read; "+
			"it is treated as expired", "bytes", len(b), "error", err)
		return time.Unix(0, 0).UTC(), map[string]any{}, nil
	}
	if values == nil {
		values = map[string]any{}
	}
	return deadline, values, nil
}

// readGob is scs.GobCodec's Decode, but where bytes that are damaged make the
// GobDecode or UnmarshalBinary of some type panic, it returns an error.
func readGob(b []byte) (deadline time.Time, values map[string]any, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("decoding a value panicked")
		}
	}()
	return scs.GobCodec{}.Decode(b)
}
