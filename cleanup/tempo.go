package cleanup

import (
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// While others write to the server, a sweep makes small batches, and pauses after
	// each for politePause times as long as it took. On two cores that also serve the
	// requests, these had 1.3 to 1.5 times their p99 without a sweep; with 200 and 2 it was
	// twice. It still deletes some 10,000 rows a second.
	politeBatch = 80
	politePause = 4

	// busyWrites is how many writing transactions of others per second make a server
	// busy.
	busyWrites = 20
	// observation is the shortest time over which they are counted.
	observation = 100 * time.Millisecond
)

// tempo is how fast a sweep may go.
type tempo struct {
	busy bool          // others write; true at first, until it is known
	last time.Duration // how long the last batch took
	xid  int64         // the server's next transaction id at the time seen
	seen time.Time
	own  int64 // transaction ids that this sweep has used since
}

// observe reads the next transaction id, which comes with the settings of each of our
// transactions, and sees how many others there were.
func (t *tempo) observe(r pgx.Row) error {
	var set string
	var xid int64
	if err := r.Scan(&set, &set, &set, &set, &set, &xid); err != nil {
		return err
	}
	elapsed := time.Since(t.seen)
	if elapsed < observation {
		return nil
	}
	if !t.seen.IsZero() {
		t.busy = float64(xid-t.xid-t.own) > busyWrites*elapsed.Seconds()
	}
	t.xid, t.seen, t.own = xid, time.Now(), 0
	return nil
}
