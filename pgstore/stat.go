package pgstore

import "sync"

// Stat is a snapshot of what a Store has done since New. All counts only grow.
type Stat struct {
	// Finds: the reads of a session by token.
	Finds int64
	// Misses: the finds that found no live session.
	Misses int64
	// BadRows: the sessions that were taken for missing because their data, in Codec's
	// format, was damaged, or because sealed data could not be opened. Each was logged,
	// but a missing key only once.
	BadRows int64
	// Writes: the commits that stored data, sign-ins included.
	Writes int64
	// Touches: the writes that moved expiry and last-seen time only.
	Touches int64
	// Skips: the commits that wrote nothing, because nothing had changed and no
	// touch was due.
	Skips int64
	// SignIns: the sessions that became live sessions of a user, renewals
	// included.
	SignIns int64
	// Evictions: the sessions that were ended to keep a user within the limit.
	Evictions int64
	// Refusals: the sign-ins that were refused with ErrUserLimit.
	Refusals int64
	// Ended: the sessions that were signed out or revoked through this Store, and those
	// whose token was renewed.
	Ended int64
	// Dropped: the writes that met a session that had ended, expired or changed
	// hands, and were dropped.
	Dropped int64
	// Conflicts: the data writes that found a newer version of their session than
	// the one their request had loaded.
	Conflicts int64
	// Merges: those conflicts in which the changes of both requests were kept. In
	// the others the data was not Codec's, and the last write won.
	Merges int64
	// Retries: the attempts after the first, of all operations.
	Retries int64
	// Untracked: the finds and commits that had a context other than
	// context.Background() but did not run under Track.
	Untracked int64
}

// counters are a Stat that is safe for concurrent use.
type counters struct {
	mu   sync.Mutex
	stat Stat
}

func (c *counters) count(f func(*Stat)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stat)
}

// Stat returns the counters of this Store. It does no I/O and is safe for concurrent use.
func (s *Store) Stat() (now Stat) {
	s.count(func(c *Stat) { now = *c })
	return now
}
