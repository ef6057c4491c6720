package pgstore

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"time"
)

// Tags of the values in a frame. Never renumber: rows are written with them.
const (
	tagNil      = 0
	tagString   = 1
	tagBytes    = 2
	tagBool     = 3
	tagInt      = 4
	tagInt8     = 5
	tagInt16    = 6
	tagInt32    = 7
	tagInt64    = 8
	tagUint     = 9
	tagUint8    = 10
	tagUint16   = 11
	tagUint32   = 12
	tagUint64   = 13
	tagFloat32  = 14
	tagFloat64  = 15
	tagTime     = 16
	tagDuration = 17
	tagGob      = 18
)

// opaque is a value that this process cannot decode, for instance because it has
// not registered the value's type with gob. It is written back as it came.
type opaque struct {
	tag     byte
	payload string
	user    string // where it is the user's id: the id, as its writer understood it
}

// appendValue appends tag, length and payload of v.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, tagNil, 0), nil
	case string:
		b = binary.AppendUvarint(append(b, tagString), uint64(len(v)))
		return append(b, v...), nil
	case []byte:
		b = binary.AppendUvarint(append(b, tagBytes), uint64(len(v)))
		return append(b, v...), nil
	case bool:
		if v {
			return append(b, tagBool, 1, 1), nil
		}
		return append(b, tagBool, 1, 0), nil
	case int:
		return appendInt(b, tagInt, int64(v)), nil
	case int8:
		return appendInt(b, tagInt8, int64(v)), nil
	case int16:
		return appendInt(b, tagInt16, int64(v)), nil
	case int32:
		return appendInt(b, tagInt32, int64(v)), nil
	case int64:
		return appendInt(b, tagInt64, v), nil
	case uint:
		return appendUint(b, tagUint, uint64(v)), nil
	case uint8:
		return appendUint(b, tagUint8, uint64(v)), nil
	case uint16:
		return appendUint(b, tagUint16, uint64(v)), nil
	case uint32:
		return appendUint(b, tagUint32, uint64(v)), nil
	case uint64:
		return appendUint(b, tagUint64, v), nil
	case float32:
		return binary.LittleEndian.AppendUint32(append(b, tagFloat32, 4), math.Float32bits(v)), nil
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, tagFloat64, 8), math.Float64bits(v)), nil
	case time.Duration:
		return appendInt(b, tagDuration, int64(v)), nil
	case time.Time:
		return appendTime(b, v)
	case opaque:
		b = binary.AppendUvarint(append(b, v.tag), uint64(len(v.payload)))
		return append(b, v.payload...), nil
	default:
		return appendGob(b, v)
	}
}

// Numbers take at most ten bytes, so their length is one.

func appendInt(b []byte, tag byte, v int64) []byte {
	b = append(b, tag, 0)
	start := len(b)
	b = binary.AppendVarint(b, v)
	b[start-1] = byte(len(b) - start)
	return b
}

func appendUint(b []byte, tag byte, v uint64) []byte {
	b = append(b, tag, 0)
	start := len(b)
	b = binary.AppendUvarint(b, v)
	b[start-1] = byte(len(b) - start)
	return b
}

// appendTime keeps the instant, and the offset of its zone where that is in whole
// minutes: time's binary form fails on some of the others, such as London's before
// 1847, and reads back those west of Greenwich wrong. These become UTC.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	_, offset := t.Zone()
	if minutes := offset / 60; offset%60 != 0 || minutes == -1 || int(int16(minutes)) != minutes {
		t = t.UTC()
	}
	b = append(b, tagTime, 0)
	start := len(b)
	b, err := t.AppendBinary(b)
	if err != nil {
		return nil, err
	}
	b[start-1] = byte(len(b) - start) // 15 or 16
	return b, nil
}

// decodeValue returns the value of a field whose payload is text: one that does not
// decode is opaque. text must not alias memory that changes.
func decodeValue(tag byte, payload []byte, text string) any {
	if v, ok := decodeKnown(tag, payload, text); ok {
		return v
	}
	return opaque{tag: tag, payload: text}
}

func decodeKnown(tag byte, payload []byte, text string) (any, bool) {
	switch tag {
	case tagNil:
		return nil, len(payload) == 0
	case tagString:
		return text, true
	case tagBytes:
		return append([]byte{}, payload...), true
	case tagBool:
		return len(payload) == 1 && payload[0] == 1, len(payload) == 1 && payload[0] <= 1
	case tagFloat32:
		if len(payload) != 4 {
			return nil, false
		}
		return math.Float32frombits(binary.LittleEndian.Uint32(payload)), true
	case tagFloat64:
		if len(payload) != 8 {
			return nil, false
		}
		return math.Float64frombits(binary.LittleEndian.Uint64(payload)), true
	case tagTime:
		var t time.Time
		err := t.UnmarshalBinary(payload)
		return t, err == nil
	case tagGob:
		return decodeGob(payload)
	case tagInt, tagInt8, tagInt16, tagInt32, tagInt64, tagDuration:
		v, n := binary.Varint(payload)
		if n <= 0 || n != len(payload) {
			return nil, false
		}
		return signed(tag, v)
	case tagUint, tagUint8, tagUint16, tagUint32, tagUint64:
		v, n := binary.Uvarint(payload)
		if n <= 0 || n != len(payload) {
			return nil, false
		}
		return unsigned(tag, v)
	default:
		return nil, false // of a newer release
	}
}

func signed(tag byte, v int64) (any, bool) {
	switch tag {
	case tagInt:
		return int(v), int64(int(v)) == v
	case tagInt8:
		return int8(v), int64(int8(v)) == v
	case tagInt16:
		return int16(v), int64(int16(v)) == v
	case tagInt32:
		return int32(v), int64(int32(v)) == v
	case tagDuration:
		return time.Duration(v), true
	default:
		return v, true
	}
}

func unsigned(tag byte, v uint64) (any, bool) {
	switch tag {
	case tagUint:
		return uint(v), uint64(uint(v)) == v
	case tagUint8:
		return uint8(v), uint64(uint8(v)) == v
	case tagUint16:
		return uint16(v), uint64(uint16(v)) == v
	case tagUint32:
		return uint32(v), uint64(uint32(v)) == v
	default:
		return v, true
	}
}

// sameValue reports whether two fields hold the same value. gob writes maps in no
// particular order, so its streams are compared by what they decode to.
func sameValue(a, b field) bool {
	if a.tag != b.tag {
		return false
	}
	if bytes.Equal(a.payload, b.payload) {
		return true
	}
	if a.tag != tagGob {
		return false
	}
	x, okX := decodeGob(a.payload)
	y, okY := decodeGob(b.payload)
	return okX && okY && reflect.DeepEqual(x, y)
}
