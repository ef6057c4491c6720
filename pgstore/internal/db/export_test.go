package db

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
		idle := len(t.wait) == 0 && t.busy == 0 && t.flying == 0 && len(t.held) == 0 && !t.called
		t.mu.Unlock()
		if !idle {
			return false
		}
	}
	return true
}

func (d *DB) kinds() []*trips { return []*trips{&d.reads, &d.touches, &d.updates} }

// How many trips take one operation each.
const (
	ReadsAlone  = readsAlone
	WritesAlone = writesAlone
)
