// Package frame encodes sessions, and compares and merges them encoded. Bytes in, bytes
// out: it knows neither the database nor scs.
//
// A frame is what Encode makes of a session:
//
//	mark      0x00, which begins no gob stream
//	version   0x01
//	deadline  varint seconds since 1970, uvarint nanoseconds
//	user      uvarint 0: made without a user key; n+1: an id of n bytes follows
//	count     uvarint
//	fields    count times, by strictly ascending key:
//	          uvarint length, key, tag, uvarint length, payload
//
// Every payload carries its length, so fields are told apart, compared and merged
// without decoding a value.
package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	mark          = 0x00
	version       = 0x01
	minFieldBytes = 3 // an empty key, a tag, and an empty payload
)

var errFrame = errors.New("the session data is not a well-formed frame")

// Is reports whether b claims to be a frame, of any version.
func Is(b []byte) bool { return len(b) > 0 && b[0] == mark }

// Check walks over the whole frame, without allocating. What it accepts, Decode decodes.
func Check(b []byte) error {
	r := open(b)
	for r.next() {
	}
	return r.err
}

// User returns whose session the frame is ("" while anonymous), and whether it was made
// with a user key. ok is false for other data.
func User(b []byte) (user string, keyed, ok bool) {
	r := open(b)
	return string(r.user), r.keyed, r.err == nil
}

// Deadline returns the absolute deadline of the session, in UTC. ok is false for other
// data.
func Deadline(b []byte) (deadline time.Time, ok bool) {
	r := open(b)
	return r.deadline, r.err == nil
}

// Encode makes a frame. If keyed, it says that user ("" while anonymous) is whose session
// it is. If a value cannot be encoded, the error names its key.
func Encode(deadline time.Time, user string, keyed bool, values map[string]any) ([]byte, error) {
	keys := make([]string, 0, 32) // so few stay on the stack
	size := 32 + len(user)
	for key, v := range values {
		keys = append(keys, key)
		text, _ := v.(string)
		data, _ := v.([]byte)
		size += len(key) + len(text) + len(data) + 20 // no plain value takes more
	}
	slices.Sort(keys)
	b := appendHeader(make([]byte, 0, size), deadline, []byte(user), keyed, len(values))
	for _, key := range keys {
		var err error
		if b, err = appendValue(appendChunk(b, key), values[key]); err != nil {
			return nil, fmt.Errorf("session value %q cannot be encoded: %w", key, err)
		}
	}
	return b, nil
}

// Decode decodes a frame. The values do not alias b. If the one under userKey is Opaque,
// it gets the frame's user.
func Decode(b []byte, userKey string) (time.Time, map[string]any, error) {
	r := open(b)
	// One copy of b holds all keys and strings, which saves an allocation for each.
	text := string(b)
	part := func(chunk []byte) string {
		start := cap(b) - cap(chunk) // chunk is a slice of b
		return text[start : start+len(chunk)]
	}
	values := make(map[string]any, r.left)
	for r.next() {
		key, v := part(r.key), decodeValue(r.tag, r.payload, part(r.payload))
		if o, ok := v.(Opaque); ok && key == userKey {
			o.User = string(r.user)
			v = o
		}
		values[key] = v
	}
	if r.err != nil {
		return time.Time{}, nil, r.err
	}
	return r.deadline, values, nil
}

// field is one key and its value, aliasing the frame.
type field struct {
	key     []byte
	tag     byte
	payload []byte
}

// reader reads a frame: its header once opened, then its fields one by one.
type reader struct {
	deadline time.Time
	user     []byte
	keyed    bool

	rest  []byte
	left  uint64 // fields still to come
	field        // the current one, while ok
	ok    bool
	err   error // the first fault
}

// open reads the header. The number of fields is plausible for what is left, so it may
// size an allocation.
func open(b []byte) (r reader) {
	if !Is(b) || len(b) < 2 || b[1] != version {
		r.fail("its version is unknown")
		return r
	}
	r.rest = b[2:]
	sec, nsec := r.uvarint(), r.uvarint()
	r.deadline = time.Unix(int64(sec>>1)^-int64(sec&1), int64(nsec)).UTC() // sec is a varint
	if size := r.uvarint(); size > uint64(len(r.rest)) {
		r.fail("the user's id is cut short")
	} else if size > 0 {
		r.keyed, r.user, r.rest = true, r.rest[:size-1], r.rest[size-1:]
	}
	if r.left = r.uvarint(); r.left > uint64(len(r.rest))/minFieldBytes || nsec >= uint64(time.Second) {
		r.fail("its header is malformed")
	}
	return r
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail("its header is cut short")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// next moves to the next field. It returns false at the end, and where the frame is
// broken: then err is set.
func (r *reader) next() bool {
	if r.left == 0 {
		if len(r.rest) > 0 {
			r.fail("more follows its last field")
		}
		r.ok = false
		return false
	}
	key, b, ok := chunk(r.rest)
	if !ok || len(b) == 0 || r.ok && bytes.Compare(r.key, key) >= 0 {
		return r.fail("a key is cut short, or not in order")
	}
	r.key, r.tag = key, b[0]
	if r.payload, r.rest, ok = chunk(b[1:]); !ok {
		return r.fail("a value is cut short")
	}
	r.left, r.ok = r.left-1, true
	return true
}

// at reports whether the current field is that of key.
func (r *reader) at(key []byte) bool { return r.ok && bytes.Equal(r.key, key) }

// fail ends the reading. The first fault is the one kept.
func (r *reader) fail(fault string) bool {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errFrame, fault)
	}
	r.rest, r.left, r.ok = nil, 0, false
	return false
}

// chunk reads a length and as many bytes.
func chunk(b []byte) (c, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	return b[:size], b[size:], true
}

func appendHeader(b []byte, deadline time.Time, user []byte, keyed bool, count int) []byte {
	b = binary.AppendVarint(append(b, mark, version), deadline.Unix())
	b = binary.AppendUvarint(b, uint64(deadline.Nanosecond()))
	if keyed {
		b = binary.AppendUvarint(b, uint64(len(user))+1)
		b = append(b, user...)
	} else {
		b = append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(count))
}

func appendField(b []byte, f field) []byte {
	return appendChunk(append(appendChunk(b, f.key), f.tag), f.payload)
}

// appendChunk appends a length and as many bytes.
func appendChunk[T string | []byte](b []byte, chunk T) []byte {
	b = binary.AppendUvarint(b, uint64(len(chunk)))
	return append(b, chunk...)
}
