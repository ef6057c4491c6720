package frame

import (
	"bytes"
	"reflect"
)

// Same reports whether two encoded sessions, frames or what scs.GobCodec has written, are
// the same: deadline, user and values.
func Same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if !Is(a) && !Is(b) {
		deadlineA, valuesA, errA := DecodeGobCodec(a)
		deadlineB, valuesB, errB := DecodeGobCodec(b)
		return errA == nil && errB == nil && deadlineA.Equal(deadlineB) && reflect.DeepEqual(valuesA, valuesB)
	}
	x, y := open(a), open(b)
	if x.left != y.left || !x.deadline.Equal(y.deadline) || x.keyed != y.keyed || !bytes.Equal(x.user, y.user) {
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

// sameValue reports whether two fields hold the same value. gob writes maps in no
// particular order, so its streams are compared by what they decode to.
func sameValue(a, b field) bool {
	if a.tag != b.tag || bytes.Equal(a.payload, b.payload) {
		return a.tag == b.tag
	}
	if a.tag != tagGob {
		return false
	}
	x, okX := decodeGob(a.payload)
	y, okY := decodeGob(b.payload)
	return okX && okY && reflect.DeepEqual(x, y)
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
