package pgstore

import "sync/atomic"

type counters struct {
	finds, misses, badRows, writes, touches, skips, signIns, evictions, refusals,
	ended, dropped, conflicts, merges, retries, untracked atomic.Int64
}

// Stat is a snapshot of what a Store has done since New. All counts only grow.
type Stat struct {
	finds, misses, badRows, writes, touches, skips, signIns, evictions, refusals,
	ended, dropped, conflicts, merges, retries, untracked int64
}

// Stat returns the counters of this Store. It does no I/O and is safe for
// concurrent use; the counters are read one after the other.
func (s *Store) Stat() *Stat {
	c := &s.stat
	return &Stat{
		finds: c.finds.Load(), misses: c.misses.Load(), badRows: c.badRows.Load(),
		writes: c.writes.Load(), touches: c.touches.Load(), skips: c.skips.Load(),
		signIns: c.signIns.Load(), evictions: c.evictions.Load(), refusals: c.refusals.Load(),
		ended: c.ended.Load(), dropped: c.dropped.Load(),
		conflicts: c.conflicts.Load(), merges: c.merges.Load(),
		retries: c.retries.Load(), untracked: c.untracked.Load(),
	}
}

// Finds counts the reads of a session by token.
func (s *Stat) Finds() int64 { return s.finds }

// Misses counts the finds that found no live session.
func (s *Stat) Misses() int64 { return s.misses }

// BadRows counts the sessions that were taken for missing because their data, in
// Codec's format, was damaged. Each was logged.
func (s *Stat) BadRows() int64 { return s.badRows }

// Writes counts the commits that stored data, sign-ins included.
func (s *Stat) Writes() int64 { return s.writes }

// Touches counts the writes that moved expiry and last-seen time only.
func (s *Stat) Touches() int64 { return s.touches }

// Skips counts the commits that wrote nothing, because nothing had changed and no
// touch was due.
func (s *Stat) Skips() int64 { return s.skips }

// SignIns counts the sessions that became live sessions of a user, renewals
// included.
func (s *Stat) SignIns() int64 { return s.signIns }

// Evictions counts the sessions that were ended to keep a user within the limit.
func (s *Stat) Evictions() int64 { return s.evictions }

// Refusals counts the sign-ins that were refused with ErrUserLimit.
func (s *Stat) Refusals() int64 { return s.refusals }

// Ended counts the sessions that were signed out or revoked through this Store,
// those whose token was renewed included.
func (s *Stat) Ended() int64 { return s.ended }

// Dropped counts the writes that met a session that had ended, expired or changed
// hands, and were dropped.
func (s *Stat) Dropped() int64 { return s.dropped }

// Conflicts counts the data writes that found a newer version of their session than
// the one their request had loaded.
func (s *Stat) Conflicts() int64 { return s.conflicts }

// Merges counts those conflicts in which the changes of both requests were kept. In
// the others the data was not Codec's, and the last write won.
func (s *Stat) Merges() int64 { return s.merges }

// Retries counts the attempts after the first, of all operations.
func (s *Stat) Retries() int64 { return s.retries }

// Untracked counts the finds and commits that had a context other than
// context.Background() but did not run under Track.
func (s *Stat) Untracked() int64 { return s.untracked }
