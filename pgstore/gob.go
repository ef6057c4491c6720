package pgstore

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
)

// appendGob sends v as an interface value, and so with the name of its type. Every value
// is a stream of its own, so that it can be read alone.
func appendGob(b []byte, v any) ([]byte, error) {
	var stream bytes.Buffer
	if err := gob.NewEncoder(&stream).Encode(&v); err != nil {
		return nil, fmt.Errorf("%w (type %T: register it with gob.Register, or store something simpler)", err, v)
	}
	b = binary.AppendUvarint(append(b, tagGob), uint64(stream.Len()))
	return append(b, stream.Bytes()...), nil
}

// decodeGob decodes a stream. If damaged bytes make the GobDecode or UnmarshalBinary of
// some type panic, the value does not decode.
func decodeGob(stream []byte) (v any, ok bool) {
	defer func() {
		if recover() != nil {
			v, ok = nil, false
		}
	}()
	err := gob.NewDecoder(bytes.NewReader(stream)).Decode(&v)
	return v, err == nil && v != nil
}
