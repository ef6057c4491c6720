package row

import "time"

// A row that Import has brought over says so by its version, which takes no column: above
// versionBits stands when the row that it was made of expires, so that one that is gone
// before its time is known to have been deleted; below stands how often an import has
// written it while that stayed the same; and in the writeBits what has been written since.
// No version reaches that far by writes alone.
const (
	versionBits = 28
	writeBits   = 20
	maxSeconds  = 1<<34 - 1
)

// ImportedVersion is that of a row that an import writes over one of version over, 0 if
// there is none. It is above both over and all that were written under the same expiry, as
// every version of changed data has to be.
func ImportedVersion(expiry time.Time, over int64) int64 {
	return max(min(max(expiry.Unix(), 0), maxSeconds)<<versionBits, over+1<<writeBits)
}

// ImportedUntil returns when the row that an import has last made this one of expires, in
// whole seconds. It is long past for a row that no import has written.
func ImportedUntil(version int64) time.Time { return time.Unix(version>>versionBits, 0) }

// AsImported reports whether the row is as an import has left it, but for touches.
func AsImported(version int64) bool {
	return version>>writeBits > 0 && version&(1<<writeBits-1) == 0
}
