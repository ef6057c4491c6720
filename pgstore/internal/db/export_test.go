package db

import "time"

// Operations returns how many operations wait for a trip, and how many are on one.
func (d *DB) Operations() (waiting, flying int) {
	for _, t := range d.kinds() {
		t.mu.Lock()
		waiting += len(t.wait)
		flying += t.flying
		t.mu.Unlock()
	}
	return waiting, flying
}

// Idle reports whether nothing is left of trips that have been.
func (d *DB) Idle() bool {
	for _, t := range d.kinds() {
		t.mu.Lock()
		idle := len(t.wait) == 0 && t.busy() == 0 && t.flying == 0 && len(t.held) == 0
		t.mu.Unlock()
		if !idle {
			return false
		}
	}
	return true
}

// SetPatience sets after how long a trip is late.
func (d *DB) SetPatience(p time.Duration) {
	for _, t := range d.kinds() {
		t.mu.Lock()
		t.patience = p
		t.mu.Unlock()
		t.look()
	}
}

func (d *DB) kinds() []*trips { return []*trips{&d.reads, &d.touches, &d.updates} }

// The numbers of the rule.
const (
	ReadsAlone  = readsAlone
	WritesAlone = writesAlone
	Patience    = patience
)
