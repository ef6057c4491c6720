package cleanup

import (
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// Beside others who write, a sweep makes small batches, and rests twice as long as
	// each of them took: a request then waits for a core, or for the log to be flushed,
	// no longer than for another request. It costs two thirds of the speed.
	politeBatch = 200
	politePause = 2

	// busyWrites is from how many transactions of others a second a server counts as
	// busy.
	busyWrites = 20
	// observation is over how long they are counted.
	observation = 100 * time.Millisecond
)

// tempo is how fast a sweep may go.
type tempo struct {
	busy bool          // until it is known that the server is not
	last time.Duration // the last batch
	xid  int64         // the next transaction id, as of seen
	seen time.Time
	own  int64 // transactions of ours since
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
