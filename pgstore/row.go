package pgstore

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// stamp is what the database says of a row after a read or a write, by its clock.
type stamp struct {
	version           int64
	expiry, seen, now time.Time
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

// lost is what the row has become for a request whose write it refused. A row that
// lives belongs to another user by now: the request's own was signed out of it.
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

// scanStamp reads stampColumns, and whether the write met its row.
func (o *outcome) scanStamp(from pgx.Row) error {
	*o = outcome{}
	err := from.Scan(&o.version, &o.expiry, &o.seen)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	o.now, o.written = o.seen, err == nil
	return err
}

// outcome is what became of a write.
type outcome struct {
	stamp
	written bool
	found   row    // where it was dropped: what it met
	data    []byte // where it was written: what the row holds now

	admitted, conflict, merged bool
	evicted                    int
}
