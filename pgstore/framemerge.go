package pgstore

import (
	"bytes"
	"reflect"
	"time"
)

// sameSession reports whether two encoded sessions are the same: deadline, user and
// values.
func sameSession(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if !isFrame(a) && !isFrame(b) {
		return sameGob(a, b)
	}
	ha, fa, errA := openFrame(a)
	hb, fb, errB := openFrame(b)
	if errA != nil || errB != nil || fa.left != fb.left ||
		ha.sec != hb.sec || ha.nsec != hb.nsec || ha.keyed != hb.keyed || !bytes.Equal(ha.user, hb.user) {
		return false
	}
	for {
		moreA, moreB := fa.next(), fb.next()
		if !moreA || !moreB {
			return fa.err == nil && fb.err == nil
		}
		if !bytes.Equal(fa.key, fb.key) || !sameValue(fa.field, fb.field) {
			return false
		}
	}
}

// sameGob is sameSession for apps that keep scs's own codec. gob writes maps in random
// order, so equal sessions differ in their bytes and have to be decoded.
func sameGob(a, b []byte) bool {
	deadlineA, valuesA, errA := readGob(a)
	deadlineB, valuesB, errB := readGob(b)
	return errA == nil && errB == nil && deadlineA.Equal(deadlineB) && reflect.DeepEqual(valuesA, valuesB)
}

// mergeSession merges two changes of one session, key by key: mine and current both
// come from loaded. A key that mine added, changed or removed is as in mine; every other
// is as in current. The deadline is merged likewise, and if both changed it, the earlier
// one wins. The user is that of mine; the caller has checked that current has the same
// user, or none.
//
// ok is false if one of the three is not a well-formed frame.
func mergeSession(loaded, mine, current []byte) (merged []byte, ok bool) {
	hl, l, errL := openFrame(loaded)
	hm, m, errM := openFrame(mine)
	hc, c, errC := openFrame(current)
	if errL != nil || errM != nil || errC != nil {
		return nil, false
	}
	hm.sec, hm.nsec = mergeDeadline(hl, hm, hc)

	count := 0
	out := make([]byte, 0, len(mine)+len(current))
	inL, inM, inC := l.next(), m.next(), c.next()
	for inM || inC {
		key := m.key
		if !inM || inC && bytes.Compare(c.key, key) < 0 {
			key = c.key
		}
		for inL && bytes.Compare(l.key, key) < 0 {
			inL = l.next() // removed by both
		}
		was := inL && bytes.Equal(l.key, key)
		mineHas := inM && bytes.Equal(m.key, key)
		currentHas := inC && bytes.Equal(c.key, key)

		changed := was != mineHas || was && !sameValue(l.field, m.field)
		switch {
		case changed && mineHas:
			out = appendField(out, m.field)
			count++
		case !changed && currentHas:
			out = appendField(out, c.field)
			count++
		}
		if was {
			inL = l.next()
		}
		if mineHas {
			inM = m.next()
		}
		if currentHas {
			inC = c.next()
		}
	}
	for inL { // to the end of loaded, to see whether it is well-formed
		inL = l.next()
	}
	if l.err != nil || m.err != nil || c.err != nil {
		return nil, false
	}
	return append(appendHeader(make([]byte, 0, len(out)+len(hm.user)+32), hm, count), out...), true
}

// mergeDeadline chooses the deadline of a merged session.
func mergeDeadline(loaded, mine, current header) (sec int64, nsec uint64) {
	was, my, now := loaded.deadline(), mine.deadline(), current.deadline()
	switch {
	case my.Equal(was):
		my = now
	case !now.Equal(was):
		my = earlier(my, now)
	}
	return my.Unix(), uint64(my.Nanosecond())
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
