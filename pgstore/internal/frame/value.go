package frame

import (
	"encoding/binary"
	"math"
	"reflect"
	"time"
)

// Tags of the values in a frame. Never renumber: rows are written with them.
const (
	tagNil, tagString, tagBytes, tagBool                 = 0, 1, 2, 3
	tagInt, tagInt8, tagInt16, tagInt32, tagInt64        = 4, 5, 6, 7, 8
	tagUint, tagUint8, tagUint16, tagUint32, tagUint64   = 9, 10, 11, 12, 13
	tagFloat32, tagFloat64, tagTime, tagDuration, tagGob = 14, 15, 16, 17, 18
)

// Opaque is a value that this process cannot decode, for instance because it has not
// registered the value's type with gob. It is written back as it came.
type Opaque struct {
	tag     byte
	payload string

	// User is the user's id, as its writer understood it, if the value stands for one.
	User string
}

// appendValue appends tag, length and payload of v.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, tagNil, 0), nil
	case string:
		return appendChunk(append(b, tagString), v), nil
	case []byte:
		return appendChunk(append(b, tagBytes), v), nil
	case bool:
		if v {
			return append(b, tagBool, 1, 1), nil
		}
		return append(b, tagBool, 1, 0), nil
	case int, int8, int16, int32, int64: // tags are in the order of kinds
		n := reflect.ValueOf(v)
		return appendInt(b, tagInt+byte(n.Kind()-reflect.Int), n.Int()), nil
	case uint, uint8, uint16, uint32, uint64:
		n := reflect.ValueOf(v)
		return appendUint(b, tagUint+byte(n.Kind()-reflect.Uint), n.Uint()), nil
	case float32:
		return binary.LittleEndian.AppendUint32(append(b, tagFloat32, 4), math.Float32bits(v)), nil
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, tagFloat64, 8), math.Float64bits(v)), nil
	case time.Duration:
		return appendInt(b, tagDuration, int64(v)), nil
	case time.Time:
		return appendTime(b, v)
	case Opaque:
		return appendChunk(append(b, v.tag), v.payload), nil
	default:
		return appendGob(b, v)
	}
}

func appendInt(b []byte, tag byte, v int64) []byte {
	var number [binary.MaxVarintLen64]byte
	return appendChunk(append(b, tag), number[:binary.PutVarint(number[:], v)])
}

func appendUint(b []byte, tag byte, v uint64) []byte {
	var number [binary.MaxVarintLen64]byte
	return appendChunk(append(b, tag), number[:binary.PutUvarint(number[:], v)])
}

// appendTime keeps the instant, and the offset of its zone where that is in whole
// minutes: time's binary form fails on some of the others, such as London's before
// 1847, and reads back those west of Greenwich wrong. These become UTC.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	_, offset := t.Zone()
	if minutes := offset / 60; offset%60 != 0 || minutes == -1 || int(int16(minutes)) != minutes {
		t = t.UTC()
	}
	var buf [16]byte
	payload, err := t.AppendBinary(buf[:0])
	return appendChunk(append(b, tagTime), payload), err
}

// decodeValue returns the value of a field whose payload is text: one that does not
// decode is Opaque. text must not alias memory that changes.
func decodeValue(tag byte, payload []byte, text string) any {
	if v, ok := decodeKnown(tag, payload, text); ok {
		return v
	}
	return Opaque{tag: tag, payload: text}
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
	case tagInt:
		return signed[int](payload)
	case tagInt8:
		return signed[int8](payload)
	case tagInt16:
		return signed[int16](payload)
	case tagInt32:
		return signed[int32](payload)
	case tagInt64:
		return signed[int64](payload)
	case tagUint:
		return unsigned[uint](payload)
	case tagUint8:
		return unsigned[uint8](payload)
	case tagUint16:
		return unsigned[uint16](payload)
	case tagUint32:
		return unsigned[uint32](payload)
	case tagUint64:
		return unsigned[uint64](payload)
	case tagFloat32:
		if len(payload) == 4 {
			return math.Float32frombits(binary.LittleEndian.Uint32(payload)), true
		}
	case tagFloat64:
		if len(payload) == 8 {
			return math.Float64frombits(binary.LittleEndian.Uint64(payload)), true
		}
	case tagTime:
		var t time.Time
		err := t.UnmarshalBinary(payload)
		return t, err == nil
	case tagDuration:
		return signed[time.Duration](payload)
	case tagGob:
		return decodeGob(payload)
	}
	return nil, false // malformed, or of a newer release
}

func signed[T int | int8 | int16 | int32 | int64 | time.Duration](payload []byte) (any, bool) {
	v, n := binary.Varint(payload)
	return T(v), n > 0 && n == len(payload) && int64(T(v)) == v
}

func unsigned[T uint | uint8 | uint16 | uint32 | uint64](payload []byte) (any, bool) {
	v, n := binary.Uvarint(payload)
	return T(v), n > 0 && n == len(payload) && uint64(T(v)) == v
}
