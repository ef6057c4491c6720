package pgstore

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"math/bits"
	"reflect"
	"slices"
	"sync"
)

// Every value that goes through gob is a stream of its own, so that it can be read
// alone. Such a stream is mostly definitions of types, and to make and to compile these
// is nearly all that it costs to encode and to decode a small value. So encoders that
// have sent the definitions of a type, and decoders that have read them, are kept for
// the next value of that type.
//
// The messages of the stream of an interface value, as gob calls what it sends at a time:
//
//	header, first definition    the header is the name of the value's type
//	definition                  any number of them
//	value                       or, from an encoder that has sent it before: header, value

// appendGob sends v as an interface value, and so with the name of its type.
func appendGob(b []byte, v any) ([]byte, error) {
	t := typeEncoderOf(reflect.TypeOf(v))
	e, _ := t.encoders.Get().(*gobEncoder)
	if e == nil {
		e = &gobEncoder{}
		e.enc = gob.NewEncoder(&e.buf)
	}
	e.buf.Reset()
	if err := e.enc.Encode(&v); err != nil {
		return nil, fmt.Errorf("%w (type %T: register it with gob.Register, or store something simpler)", err, v)
	}
	stream := e.buf.Bytes()
	if e.definitions == nil { // it is new, and has sent them
		b = binary.AppendUvarint(append(b, tagGob), uint64(len(stream)))
		b = append(b, stream...)
		if parts, ok := splitGob(stream); ok && t.closed {
			e.definitions, e.header = bytes.Clone(parts.definitions), len(parts.header)
			t.encoders.Put(e)
		}
		return b, nil
	}
	_, n := gobUint(stream)
	value := stream[n+e.header:]
	length := appendGobUint(e.length[:0], uint64(len(value)))
	b = binary.AppendUvarint(append(b, tagGob), uint64(len(e.definitions)+len(length)+len(value)))
	b = append(append(append(b, e.definitions...), length...), value...)
	t.encoders.Put(e)
	return b, nil
}

// gobEncoder is an encoder for values of one type.
type gobEncoder struct {
	enc         *gob.Encoder
	buf         bytes.Buffer
	definitions []byte // all messages before the value, once they were sent
	header      int    // its length
	length      [9]byte
}

// typeEncoders holds a *typeEncoder for each reflect.Type.
var typeEncoders sync.Map

type typeEncoder struct {
	closed   bool // see isClosed
	encoders sync.Pool
}

func typeEncoderOf(t reflect.Type) *typeEncoder {
	if e, ok := typeEncoders.Load(t); ok {
		return e.(*typeEncoder)
	}
	e, _ := typeEncoders.LoadOrStore(t, &typeEncoder{closed: isClosed(t, nil)})
	return e.(*typeEncoder)
}

// isClosed reports whether all types that a value of t can hold are known from t: there
// is no interface in it. Only then are the definitions the same for all values.
func isClosed(t reflect.Type, outer []reflect.Type) bool {
	if slices.Contains(outer, t) {
		return true
	}
	outer = append(outer, t)
	switch t.Kind() {
	case reflect.Interface:
		return false
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() && !isClosed(f.Type, outer) { // gob sends no others
				return false
			}
		}
		return true
	case reflect.Map:
		return isClosed(t.Key(), outer) && isClosed(t.Elem(), outer)
	case reflect.Array, reflect.Slice, reflect.Pointer:
		return isClosed(t.Elem(), outer)
	default:
		return true
	}
}

// gobParts are those of a stream.
type gobParts struct {
	definitions []byte // all messages before the value
	header      []byte // the beginning of the first one
	value       []byte // the body of the last one
}

// splitGob splits a stream. ok is false unless it is just that: an interface value, the
// definitions for it, and nothing more.
func splitGob(stream []byte) (parts gobParts, ok bool) {
	const interfaceID = 8 << 1 // as gob writes its number
	for at := 0; at < len(stream); {
		length, n := gobUint(stream[at:])
		if n == 0 || length > uint64(len(stream)-at-n) {
			return parts, false
		}
		body := stream[at+n : at+n+int(length)]
		end := at + n + int(length)
		rest := body
		if at == 0 {
			id, n := gobUint(rest)
			if id != interfaceID || n != 1 || len(rest) < 2 || rest[1] != 0 {
				return parts, false
			}
			size, n := gobUint(rest[2:])
			if n == 0 || size > uint64(len(rest)-2-n) {
				return parts, false
			}
			parts.header, rest = rest[:2+n+int(size)], rest[2+n+int(size):]
		}
		id, n := gobUint(rest)
		if n == 0 {
			return parts, false
		}
		if id&1 == 0 { // not the negative number that a definition begins with
			parts.definitions, parts.value = stream[:at], body
			return parts, at > 0 && end == len(stream)
		}
		at = end
	}
	return parts, false
}

// appendGobUint appends a number as gobUint reads it.
func appendGobUint(b []byte, v uint64) []byte {
	if v < 0x80 {
		return append(b, byte(v))
	}
	size := (bits.Len64(v) + 7) / 8
	b = append(b, byte(-size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

// gobUint reads an unsigned number of gob's and returns how many bytes it takes, 0 if
// there is none.
func gobUint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	if b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	size := -int(int8(b[0]))
	if size > 8 || len(b) <= size {
		return 0, 0
	}
	for _, c := range b[1 : 1+size] {
		v = v<<8 | uint64(c)
	}
	return v, 1 + size
}

// decodeGob decodes a stream. A panic in the GobDecode or UnmarshalBinary of some type,
// which damaged bytes may cause, makes it a value that does not decode.
func decodeGob(stream []byte) (v any, ok bool) {
	parts, ok := splitGob(stream)
	if !ok || len(parts.definitions) > maxDefinitions {
		return newGobDecoder().decode(stream)
	}
	decoders := decodersOf(parts.definitions)
	if d, _ := decoders.Get().(*gobDecoder); d != nil {
		d.buf = appendGobUint(d.buf[:0], uint64(len(parts.header)+len(parts.value)))
		d.buf = append(append(d.buf, parts.header...), parts.value...)
		if v, ok := d.decode(d.buf); ok {
			decoders.Put(d)
			return v, true
		}
	}
	d := newGobDecoder()
	v, ok = d.decode(stream)
	if ok && typeEncoderOf(reflect.TypeOf(v)).closed {
		decoders.Put(d)
	}
	return v, ok
}

// gobDecoder is a decoder that can be given one value after another.
type gobDecoder struct {
	dec *gob.Decoder
	in  *bytes.Reader
	buf []byte
}

func newGobDecoder() *gobDecoder {
	in := bytes.NewReader(nil)
	return &gobDecoder{dec: gob.NewDecoder(in), in: in}
}

func (d *gobDecoder) decode(b []byte) (v any, ok bool) {
	defer func() {
		if recover() != nil {
			v, ok = nil, false
		}
	}()
	d.in.Reset(b)
	if err := d.dec.Decode(&v); err != nil {
		return nil, false
	}
	return v, v != nil
}

const (
	// maxDefinitions is the most bytes of definitions for which decoders are kept, and
	// maxDecoders for how many definitions. Processes number their types differently, so
	// there may be several for one type.
	maxDefinitions = 4096
	maxDecoders    = 256
)

// typeDecoders holds the decoders that have read certain definitions.
var typeDecoders struct {
	sync.RWMutex
	m map[string]*sync.Pool
}

func decodersOf(definitions []byte) *sync.Pool {
	c := &typeDecoders
	c.RLock()
	p := c.m[string(definitions)]
	c.RUnlock()
	if p != nil {
		return p
	}
	c.Lock()
	defer c.Unlock()
	if p := c.m[string(definitions)]; p != nil {
		return p
	}
	if c.m == nil || len(c.m) >= maxDecoders {
		c.m = make(map[string]*sync.Pool)
	}
	p = new(sync.Pool)
	c.m[string(definitions)] = p
	return p
}
