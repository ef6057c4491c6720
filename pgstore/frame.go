package pgstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A frame is what Codec makes of a session:
//
//	mark      0x00, which begins no gob stream
//	version   0x01
//	deadline  varint seconds since 1970, uvarint nanoseconds
//	user      uvarint 0: made without a UserKey; n+1: an id of n bytes follows
//	count     uvarint
//	fields    count times, by strictly ascending key:
//	          uvarint length, key, tag, uvarint length, payload
//
// Every payload carries its length, so fields are told apart, compared and merged
// without decoding a value.
const (
	frameMark    = 0x00
	frameVersion = 0x01

	// minFieldBytes is the shortest field: an empty key and an empty payload.
	minFieldBytes = 3
)

var errFrame = errors.New("the session data is not a well-formed frame")

// isFrame reports whether b claims to be a frame, of any version.
func isFrame(b []byte) bool { return len(b) > 0 && b[0] == frameMark }

// header is what comes before the fields.
type header struct {
	sec   int64
	nsec  uint64
	user  []byte
	keyed bool // made with a UserKey
}

func (h header) deadline() time.Time { return time.Unix(h.sec, int64(h.nsec)).UTC() }

// field is one key and its value, aliasing the frame.
type field struct {
	key     []byte
	tag     byte
	payload []byte
}

// fields reads the fields of a frame one by one.
type fields struct {
	rest  []byte
	left  uint64 // fields still to come
	field        // the current one, once next has returned true
	began bool
	err   error
}

// openFrame reads the header. The number of fields is plausible for what is left,
// so it may size an allocation.
func openFrame(b []byte) (h header, f fields, err error) {
	if !isFrame(b) {
		return h, f, fmt.Errorf("%w: it begins with another byte", errFrame)
	}
	if len(b) < 2 || b[1] != frameVersion {
		return h, f, fmt.Errorf("%w: its version is unknown", errFrame)
	}
	b = b[2:]
	sec, n := binary.Varint(b)
	if n <= 0 {
		return h, f, fmt.Errorf("%w: the deadline is cut short", errFrame)
	}
	h.sec, b = sec, b[n:]
	var ok bool
	if h.nsec, b, ok = uvarint(b); !ok || h.nsec >= uint64(time.Second) {
		return h, f, fmt.Errorf("%w: the deadline is cut short", errFrame)
	}
	size, b, ok := uvarint(b)
	if !ok || size > uint64(len(b))+1 {
		return h, f, fmt.Errorf("%w: the user id is cut short", errFrame)
	}
	if size > 0 {
		h.keyed, h.user, b = true, b[:size-1], b[size-1:]
	}
	if f.left, f.rest, ok = uvarint(b); !ok || f.left > uint64(len(f.rest))/minFieldBytes {
		return h, f, fmt.Errorf("%w: it ends before its fields", errFrame)
	}
	return h, f, nil
}

// next moves to the next field. It returns false at the end, and where the frame is
// broken: then err is set.
func (f *fields) next() bool {
	if f.err != nil {
		return false
	}
	if f.left == 0 {
		if len(f.rest) > 0 {
			f.err = fmt.Errorf("%w: %d bytes follow its last field", errFrame, len(f.rest))
		}
		return false
	}
	key, rest, ok := chunk(f.rest)
	if !ok || len(rest) == 0 {
		f.err = fmt.Errorf("%w: a key is cut short", errFrame)
		return false
	}
	if f.began && bytes.Compare(f.key, key) >= 0 {
		f.err = fmt.Errorf("%w: its keys are not in order", errFrame)
		return false
	}
	f.began, f.key, f.tag = true, key, rest[0]
	if f.payload, f.rest, ok = chunk(rest[1:]); !ok {
		f.err = fmt.Errorf("%w: a value is cut short", errFrame)
		return false
	}
	f.left--
	return true
}

// chunk reads a length and as many bytes.
func chunk(b []byte) (c, rest []byte, ok bool) {
	size, b, ok := uvarint(b)
	if !ok || size > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:size], b[size:], true
}

func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// checkFrame walks over the whole frame, without allocating. What it accepts,
// Codec.Decode decodes.
func checkFrame(b []byte) error {
	_, f, err := openFrame(b)
	if err != nil {
		return err
	}
	for f.next() {
	}
	return f.err
}

// frameUser returns whose session the frame is ("" while anonymous), and whether it
// was made with a UserKey. ok is false for other data.
func frameUser(b []byte) (user string, keyed, ok bool) {
	h, _, err := openFrame(b)
	return string(h.user), h.keyed, err == nil
}

// frameDeadline returns the absolute deadline of the session.
func frameDeadline(b []byte) (time.Time, bool) {
	h, _, err := openFrame(b)
	return h.deadline(), err == nil
}

func appendHeader(b []byte, h header, count int) []byte {
	b = append(b, frameMark, frameVersion)
	b = binary.AppendVarint(b, h.sec)
	b = binary.AppendUvarint(b, h.nsec)
	if h.keyed {
		b = binary.AppendUvarint(b, uint64(len(h.user))+1)
		b = append(b, h.user...)
	} else {
		b = append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(count))
}

func appendKey[T string | []byte](b []byte, key T) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	return append(b, key...)
}

func appendField(b []byte, f field) []byte {
	b = append(appendKey(b, f.key), f.tag)
	b = binary.AppendUvarint(b, uint64(len(f.payload)))
	return append(b, f.payload...)
}
