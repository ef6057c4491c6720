package pgstore

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// standInPrefix begins the keys that All returns in place of tokens. A cookie
// cannot hold a NUL (RFC 6265, section 4.1.1), so none can be sent by a client.
const standInPrefix = "\x00id:"

// IDOf returns the id under which the session with this token is stored, as UUID
// text: the first 128 bits of the token's SHA-256. Session.ID and Status.ID are
// such ids. An id signs nobody in, and may be shown and logged.
func IDOf(token string) string {
	id, _, _ := idOf(token)
	return id.String()
}

// idOf also accepts the stand-ins of All, and says whether token is one: then version is
// that of the session when All read it.
func idOf(token string) (id pgtype.UUID, version int64, standIn bool) {
	if text, ok := strings.CutPrefix(token, standInPrefix); ok {
		text, number, _ := strings.Cut(text, ":")
		version, err := strconv.ParseInt(number, 10, 64)
		if id, ok := parseID(text); ok && err == nil && version > 0 {
			return id, version, true
		}
	}
	// 64 bytes hold any token of scs, whose hash then costs no allocation.
	var buf [64]byte
	sum := sha256.Sum256(append(buf[:0], token...))
	id.Valid = true
	copy(id.Bytes[:], sum[:])
	return id, 0, false
}

func standInFor(id pgtype.UUID, version int64) string {
	return standInPrefix + id.String() + ":" + strconv.FormatInt(version, 10)
}

// parseID reads the text form of an id.
func parseID(text string) (pgtype.UUID, bool) {
	var id pgtype.UUID
	// Scan takes other spellings too; only what String prints names a session.
	if err := id.Scan(text); err != nil || id.String() != text {
		return pgtype.UUID{}, false
	}
	return id, true
}
