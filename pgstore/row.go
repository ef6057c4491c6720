package pgstore

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// stamp is the state of a row right after a read or a write. Its times are by the
// database's clock.
type stamp struct {
	version int64
	expiry  time.Time
	seen    time.Time // last_seen_at
	now     time.Time // when the row was read or written
}

// row is a session as stored. The zero value stands for a row that is not there.
type row struct {
	stamp
	present bool
	data    []byte
	user    string // "" while anonymous
	reason  EndReason
}

func (r *row) state() State {
	switch {
	case !r.present:
		return None
	case r.reason != "":
		return Ended
	case !r.expiry.After(r.now):
		return Expired
	default:
		return Active
	}
}

// lost returns what StatusOf reports to a request whose write the row refused. If the
// row is alive it belongs to another user by now, so the request's own user was signed
// out of it.
func (r *row) lost() (State, EndReason) {
	if state := r.state(); state != Active {
		return state, r.reason
	}
	return Ended, SignedOut
}

// scan reads rowColumns. A missing row is no error.
func (r *row) scan(from pgx.Row) error {
	*r = row{}
	var reason string
	err := from.Scan(&r.data, &r.user, &r.version, &reason, &r.expiry, &r.seen, &r.now)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	r.present, r.reason = err == nil, EndReason(reason)
	return err
}

// scanStamp reads stampColumns. Without a row, the write was dropped. The database's
// time is taken from last_seen_at; see stampColumns.
func (o *outcome) scanStamp(from pgx.Row) error {
	*o = outcome{}
	err := from.Scan(&o.version, &o.expiry, &o.seen)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	o.now, o.written = o.seen, err == nil
	return err
}

// outcome is the result of a write.
type outcome struct {
	stamp
	written bool   // false: the write was dropped
	found   row    // if dropped: the row that it met
	data    []byte // if written: what the row holds now

	admitted bool // it was a sign-in or a renewal
	conflict bool // the row had a newer version
	merged   bool // changes of another request were merged in
	evicted  int  // sessions that were ended to make room
}
