package pgstore

import (
	"testing"
	"time"
)

// The two bounds must hold the true instant between them, however the answer's time
// was split between the way there, the wait, and the way back.
func TestClockReadingBoundsHoldTheInstant(t *testing.T) {
	const skew = 5 * time.Minute // of the database against us
	asked := time.Now()
	for _, tt := range []struct{ there, back time.Duration }{
		{0, 0}, {time.Millisecond, 0}, {0, time.Millisecond}, {2 * time.Second, 3 * time.Millisecond},
	} {
		taken := asked.Add(tt.there)
		r := clockReading{clock: taken.Add(skew), asked: asked, heard: taken.Add(tt.back)}
		for _, before := range []time.Duration{0, time.Millisecond, time.Hour} {
			instant := asked.Add(-before)
			truth := instant.Add(skew)
			if e := r.earliest(instant); e.After(truth) || truth.Sub(e) != tt.back {
				t.Errorf("there %v, back %v: earliest is off by %v", tt.there, tt.back, truth.Sub(e))
			}
			if l := r.latest(instant); l.Before(truth) || l.Sub(truth) != tt.there {
				t.Errorf("there %v, back %v: latest is off by %v", tt.there, tt.back, l.Sub(truth))
			}
		}
	}
}
