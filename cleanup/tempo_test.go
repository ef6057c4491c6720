package cleanup

import (
	"errors"
	"testing"
	"time"
)

// settingsRow is what the settings of a transaction answer.
type settingsRow int64

func (r settingsRow) Scan(dest ...any) error {
	*dest[len(dest)-1].(*int64) = int64(r)
	return nil
}

func TestTempo(t *testing.T) {
	tempo := tempo{busy: true}
	see := func(xid, own int64, elapsed time.Duration) bool {
		tempo.own = own
		tempo.seen = tempo.seen.Add(-elapsed)
		if err := tempo.observe(settingsRow(xid)); err != nil {
			t.Fatal(err)
		}
		return tempo.busy
	}
	if !see(1000, 0, 0) {
		t.Error("nothing is known yet: it could be busy")
	}
	if see(1050, 50, time.Second) {
		t.Error("all of these transactions were our own")
	}
	if !see(2050, 50, time.Second) {
		t.Error("others had a thousand transactions")
	}
	if !see(2050, 0, time.Millisecond) {
		t.Error("a millisecond says nothing")
	}
	if see(2060, 0, time.Second) {
		t.Error("ten a second is quiet")
	}
}

func TestWhatMayBeTaken(t *testing.T) {
	s := &sweep{Options: Options{Batch: 1000}, tempo: tempo{busy: true}}
	if n, err := s.next(t.Context(), 1000); n != politeBatch || err != nil {
		t.Errorf("beside others: %d, %v", n, err)
	}
	s.Pause = time.Nanosecond // chosen by the caller
	if n, err := s.next(t.Context(), 1000); n != 1000 || err != nil {
		t.Errorf("with a pause of its own: %d, %v", n, err)
	}
	s.busy, s.Pause, s.MaxRows = false, 0, 1500
	s.Expired = 900
	if n, err := s.next(t.Context(), 1000); n != 600 || err != nil {
		t.Errorf("what the budget leaves: %d, %v", n, err)
	}
	s.Expired = 1500
	if _, err := s.next(t.Context(), 1000); !errors.Is(err, errBudget) {
		t.Error(err)
	}
	stop := make(chan struct{})
	close(stop)
	s.MaxRows, s.Stop = 0, stop
	if _, err := s.next(t.Context(), 1000); !errors.Is(err, errBudget) {
		t.Errorf("stopped: %v", err)
	}
}
