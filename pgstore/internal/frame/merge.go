package frame

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/gob"
	"fmt"
	"reflect"
	"time"
)

// Same reports whether b, an encoded session as a holds it, is a unchanged: a frame, or what
// scs.GobCodec has written. The same are deadline, values and user, unless b does not say
// whose it is.
func Same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if !Is(a) && !Is(b) {
		deadlineA, valuesA, errA := DecodeGobCodec(a)
		deadlineB, valuesB, errB := DecodeGobCodec(b)
		return errA == nil && errB == nil && deadlineA.Equal(deadlineB) && equal(reflect.ValueOf(valuesA), reflect.ValueOf(valuesB))
	}
	x, y := open(a), open(b)
	if x.left != y.left || !x.deadline.Equal(y.deadline) || y.keyed && (!x.keyed || !bytes.Equal(x.user, y.user)) {
		return false
	}
	for {
		moreX, moreY := x.next(), y.next()
		if !moreX || !moreY {
			return x.err == nil && y.err == nil
		}
		if !bytes.Equal(x.key, y.key) || !sameValue(x.field, y.field) {
			return false
		}
	}
}

// Holds reports whether a value of the encoded session reads as the user's id. It is for
// data that does not say whose it is.
func Holds(b []byte, user string) bool {
	read := DecodeGobCodec
	if Is(b) {
		read = func(b []byte) (time.Time, map[string]any, error) { return Decode(b, "") }
	}
	_, values, err := read(b)
	for _, v := range values {
		if err == nil && fmt.Sprint(v) == user {
			return true
		}
	}
	return false
}

// sameValue reports whether two fields hold the same value. gob writes maps in no
// particular order, so its streams are compared by what they decode to.
func sameValue(a, b field) bool {
	if a.tag != tagGob || b.tag != tagGob || bytes.Equal(a.payload, b.payload) {
		return a.tag == b.tag && bytes.Equal(a.payload, b.payload)
	}
	x, okX := decodeGob(a.payload)
	y, okY := decodeGob(b.payload)
	return okX && okY && equal(reflect.ValueOf(x), reflect.ValueOf(y))
}

// equal is reflect.DeepEqual for what gob decodes, but takes a NaN to equal a NaN, save as
// the key of a map and in a type that decodes itself. Only such a type can make a cycle.
func equal(v, w reflect.Value) bool {
	if !w.IsValid() || v.Type() != w.Type() || v.IsZero() != w.IsZero() {
		return false
	}
	if v.IsZero() { // as all unexported fields are
		return true
	}
	switch reflect.New(v.Type()).Interface().(type) {
	case *[]byte, gob.GobDecoder, encoding.BinaryUnmarshaler:
		return reflect.DeepEqual(v.Interface(), w.Interface())
	}
	same := true
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		return cmp.Compare(v.Float(), w.Float()) == 0
	case reflect.Interface, reflect.Pointer:
		return equal(v.Elem(), w.Elem())
	case reflect.Struct:
		for i := 0; same && i < v.NumField(); i++ {
			same = equal(v.Field(i), w.Field(i))
		}
	case reflect.Array, reflect.Slice:
		same = v.Len() == w.Len()
		for i := 0; same && i < v.Len(); i++ {
			same = equal(v.Index(i), w.Index(i))
		}
	case reflect.Map:
		same = v.Len() == w.Len()
		for key, e := range v.Seq2() {
			same = same && equal(e, w.MapIndex(key))
		}
	default:
		return v.Equal(w)
	}
	return same
}

// Merge merges two changes of one session, key by key: mine and current both come from
// loaded. A key that mine added, changed or removed is as in mine; every other is as in
// current. The deadline is merged likewise, and if both changed it, the earlier one wins.
// The user is that of mine; the caller has checked that current has the same user, or
// none.
//
// ok is false if one of the three is not a well-formed frame.
func Merge(loaded, mine, current []byte) (merged []byte, ok bool) {
	l, m, c := open(loaded), open(mine), open(current)
	deadline := m.deadline
	if deadline.Equal(l.deadline) || !c.deadline.Equal(l.deadline) && c.deadline.Before(deadline) {
		deadline = c.deadline
	}

	count := 0
	out := make([]byte, 0, len(mine)+len(current))
	l.next()
	m.next()
	c.next()
	for m.ok || c.ok {
		key := m.key
		if !m.ok || c.ok && bytes.Compare(c.key, key) < 0 {
			key = c.key
		}
		for l.ok && bytes.Compare(l.key, key) < 0 {
			l.next() // removed by both
		}
		from := &c
		if l.at(key) != m.at(key) || l.at(key) && !sameValue(l.field, m.field) {
			from = &m
		}
		if from.at(key) {
			out = appendField(out, from.field)
			count++
		}
		for _, r := range []*reader{&l, &m, &c} {
			if r.at(key) {
				r.next()
			}
		}
	}
	for l.next() { // to the end of loaded, to see whether it is well-formed
	}
	if l.err != nil || m.err != nil || c.err != nil {
		return nil, false
	}
	head := appendHeader(make([]byte, 0, len(out)+len(m.user)+32), deadline, m.user, m.keyed, count)
	return append(head, out...), true
}
