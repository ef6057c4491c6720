package frame

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"time"
)

// appendGob sends v as an interface value, and so with the name of its type. Every value
// is a stream of its own, so that it can be read alone.
func appendGob(b []byte, v any) ([]byte, error) {
	var stream bytes.Buffer
	if err := gob.NewEncoder(&stream).Encode(&v); err != nil {
		return nil, fmt.Errorf("%w (type %T: register it with gob.Register, or store something simpler)", err, v)
	}
	return appendChunk(append(b, tagGob), stream.Bytes()), nil
}

func decodeGob(stream []byte) (v any, ok bool) {
	err := readGob(stream, &v)
	return v, err == nil && v != nil
}

// readGob decodes a stream into v. If damaged bytes make the GobDecode or UnmarshalBinary
// of some type panic, it returns an error.
func readGob(stream []byte, v any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("decoding a value panicked")
		}
	}()
	return gob.NewDecoder(bytes.NewReader(stream)).Decode(v)
}

// errGob stands for whatever gob says of a stream that it cannot read: it quotes names from
// it, which in a damaged one may be any part of the session, and so may the GobDecode of a
// type of the app's.
var errGob = errors.New("it is damaged, or has a type that is not registered with gob.Register")

// DecodeGobCodec decodes what scs.GobCodec has written. Without an error, the map can be
// written to.
func DecodeGobCodec(b []byte) (time.Time, map[string]any, error) {
	session := struct {
		Deadline time.Time
		Values   map[string]any
	}{Values: map[string]any{}} // gob leaves out one that is empty
	if err := readGob(b, &session); err != nil {
		return time.Time{}, nil, errGob
	}
	return session.Deadline, session.Values, nil
}
