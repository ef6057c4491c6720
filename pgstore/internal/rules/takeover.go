package rules

import (
	"time"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Incoming is a session that becomes its user's without a sign-in: Import has found it in
// the table of another store, or Reindex in ours as nobody's.
type Incoming struct {
	User   string // "" while anonymous: then Import brings it over all the same
	Data   []byte
	Expiry time.Time
	// Read is the version of our row that it was read from, 0 for one of another table.
	Read int64
}

// Fate is what becomes of an incoming session.
type Fate int

const (
	Stays   Fate = iota // the row is as new as what comes, or newer
	Comes               // there is no row yet
	Changes             // the row becomes what comes
	Barred              // a fence of the user's stops it: nobody knows whether it began before
	Fates
)

// Fate decides, under the locks of the user and of the row. Before, and with no fence, it
// tells whether there is anything to lock for.
func (in *Incoming) Fate(current *row.Row, fence time.Time) Fate {
	switch {
	case current.EndReason != "", in.Read != 0 && in.passed(current), in.Read == 0 && current.Present && !in.newer(current):
		return Stays
	case in.User != "" && !fence.IsZero() && !(current.Alive() && current.User == in.User):
		return Barred
	case current.Present:
		return Changes
	default:
		return Comes
	}
}

// passed reports whether the row is not any more what Reindex has read.
func (in *Incoming) passed(current *row.Row) bool {
	return !current.Alive() || current.User != "" || current.Version != in.Read
}

// newer reports whether the old row was written since an import has made this one of it, and
// this one was not. (Past its expiry it lives again: there it was alive all the time.)
func (in *Incoming) newer(current *row.Row) bool {
	return row.AsImported(current.Version) &&
		(row.ImportedVersion(in.Expiry, 0) > current.Version || !frame.Same(current.Data, in.Data))
}

// Version returns what the version becomes.
func (in *Incoming) Version(current *row.Row) int64 {
	if in.Read != 0 {
		return current.Version + 1
	}
	return row.ImportedVersion(in.Expiry, current.Version)
}
