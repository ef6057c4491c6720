package pgstore

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

// AEAD is authenticated encryption with associated data
// (https://www.rfc-editor.org/rfc/rfc5116), for Config.Seal. Package keyring has one, with
// keys that can be rotated; tink.AEAD is one, for keys that a KMS keeps. It must be safe for
// concurrent use, and is called at each read and each write of a session: at some of the
// latter while the session's row is locked.
type AEAD interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// sealMark begins what is sealed. No frame and no gob stream begins so.
var sealMark = []byte("\x01sealed:")

// resealedAtOnce is how many rows Reseal locks at a time.
const resealedAtOnce = 100

// sealer is a db.Sealer.
type sealer struct {
	aead       AEAD // nil: nothing is sealed
	allowPlain bool
}

// associated is what the data is bound to: a row copied to another id, or given to another
// user, does not open.
func associated(id pgtype.UUID, user string) []byte {
	return append(append([]byte("scspg session "), id.Bytes[:]...), user...)
}

func (s sealer) Seal(id pgtype.UUID, user string, data []byte) ([]byte, error) {
	if s.aead == nil {
		return data, nil
	}
	sealed, err := s.aead.Encrypt(data, associated(id, user))
	if err != nil {
		return nil, &sealError{err}
	}
	return slices.Concat(sealMark, sealed), nil
}

func (s sealer) Open(id pgtype.UUID, user string, stored []byte) (data []byte, outdated bool, err error) {
	sealed, ok := bytes.CutPrefix(stored, sealMark)
	switch {
	case !ok && (s.aead == nil || s.allowPlain):
		return stored, s.aead != nil, nil
	case !ok:
		return nil, true, errors.New("it is not sealed: rows from before Config.Seal was set need Config.AllowPlain until Reseal has run")
	case s.aead == nil:
		return nil, true, errors.New("it is sealed, and Config.Seal is not set")
	}
	ring, ok := s.aead.(interface{ Outdated([]byte) bool })
	if data, err = s.aead.Decrypt(sealed, associated(id, user)); data == nil && err == nil {
		data = []byte{}
	}
	return data, !ok || ring.Outdated(sealed), err
}

// sealError is an error of Config.Seal.
type sealError struct{ err error }

func (e *sealError) Error() string { return "Config.Seal: " + e.err.Error() }
func (e *sealError) Unwrap() error { return e.err }

// Reseal seals what live sessions hold with today's key, if another one or none has, and
// returns how many it has changed. So a key can be retired, or Config.AllowPlain, without
// waiting until each session has been written. It goes page by page until ctx ends, and may
// run while the app serves: neither expiry nor version of a session changes. Rows that
// cannot be opened are logged, counted by Stat.BadRows, and left.
//
// With an AEAD that has no method Outdated([]byte) bool, as keyring.Ring has, Reseal seals
// all of them.
func (s *Store) Reseal(ctx context.Context) (int, error) {
	const op = "reseal sessions"
	if s.cfg.Seal == nil {
		return 0, opError(op, errors.New("Config.Seal is not set"))
	}
	resealed := 0
	for page, err := range s.pages(ctx, op, true) {
		if err != nil {
			return resealed, err
		}
		page = slices.DeleteFunc(page, func(l row.Listed) bool { return !s.readable(ctx, l.ID, l.Data, l.Unreadable) || !l.Outdated })
		for part := range slices.Chunk(page, resealedAtOnce) {
			n := 0
			err := s.do(ctx, op, func(ctx context.Context) (err error) {
				n, err = s.db.Reseal(ctx, part)
				return err
			})
			if resealed += n; err != nil {
				return resealed, err
			}
		}
	}
	return resealed, nil
}
