package rules

import (
	"time"

	"github.com/scspg/scspg/pgstore/internal/frame"
	"github.com/scspg/scspg/pgstore/internal/request"
	"github.com/scspg/scspg/pgstore/internal/row"
)

// Merged is what a write stores.
type Merged struct {
	Bytes    []byte
	TTL      time.Duration
	Conflict bool // others had changed the session since the request loaded it
	Kept     bool // their changes were kept
}

// Merge returns what to store: what the request commits, merged with what others have
// changed meanwhile, in the session itself or in the one that it continues. Nothing that
// was written for one user is carried over to another.
func (f *Facts) Merge() Merged {
	d := Merged{Bytes: f.Data, TTL: f.TTL}
	if s := f.Session; s != nil && f.Current.Present && (s.User == f.User || s.User == "") {
		d.merge(s, &f.Current, true)
	}
	if p := f.continued(); p != nil && p.open() && (p.Row.User == f.User || p.Row.User == p.User) {
		d.merge(&p.Session, &p.Row, p.hops == 0)
		if f.Unseen && f.Renewal {
			d.TTL = min(d.TTL, p.Row.Expiry.Sub(p.Row.Now))
		}
	}
	return d
}

// Unreadable returns why a session that is to be merged cannot be read: what it holds would
// be lost.
func (f *Facts) Unreadable() error {
	if f.Current.Alive() && f.Current.Unreadable != nil {
		return f.Current.Unreadable
	}
	for i := range f.Left {
		if l := &f.Left[i]; l.open() && l.Row.Unreadable != nil {
			return l.Row.Unreadable
		}
	}
	return nil
}

// merge takes in what others have changed since the request had the session, key by key.
// The time to live is the longer of the two, cut to the merged deadline. Data that is not
// Codec's cannot be merged: then the last write wins.
func (d *Merged) merge(s *request.Session, current *row.Row, sameRow bool) {
	if !s.Had() || sameRow && s.RowHoldsBase && current.Version == s.Version {
		return
	}
	d.Conflict = true
	merged, ok := frame.Merge(s.Base, d.Bytes, current.Data)
	if !ok {
		return
	}
	d.Bytes, d.Kept = merged, true
	d.TTL = max(d.TTL, current.Expiry.Sub(current.Now))
	if deadline, ok := frame.Deadline(merged); ok {
		d.TTL = min(d.TTL, time.Until(deadline))
	}
}
