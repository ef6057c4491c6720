package row_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/scspg/scspg/pgstore/internal/row"
)

var (
	now     = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	other   = pgtype.UUID{Bytes: [16]byte{0: 1, 7: 0xff, 15: 2}, Valid: true}
	renewed = row.Link{To: other}.Encode()
)

// stored is a row with a minute left.
func stored(endReason string, version int64, data []byte) row.Row {
	return row.Row{Present: true, EndReason: endReason, Data: data,
		Stamp: row.Stamp{Version: version, Now: now, Expiry: now.Add(time.Minute)}}
}

func expiring(r row.Row, at time.Time) row.Row {
	r.Expiry = at
	return r
}

func TestRowIsAliveOverOrNeither(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		row     row.Row
		alive   bool
		over    string
		pending bool
	}{
		"gone":                         {row: row.Row{}},
		"before its expiry":            {row: expiring(stored("", 1, nil), now.Add(1)), alive: true},
		"at its expiry":                {row: expiring(stored("", 1, nil), now), over: row.TimedOut},
		"after its expiry":             {row: expiring(stored("", 1, nil), now.Add(-1)), over: row.TimedOut},
		"signed out":                   {row: stored(row.SignedOut, 1, nil), over: row.SignedOut},
		"revoked":                      {row: stored(row.Revoked, 1, nil), over: row.Revoked},
		"evicted":                      {row: stored(row.Evicted, 1, nil), over: row.Evicted},
		"met past its expiry":          {row: stored(row.TimedOut, 1, nil), over: row.TimedOut},
		"revoked, and past its expiry": {row: expiring(stored(row.Revoked, 1, nil), now), over: row.Revoked},
		"renewed, without a successor": {row: stored(row.Renewed, 1, []byte("data")), over: row.Renewed, pending: true},
		"renewed, with one":            {row: stored(row.Renewed, 0, renewed), over: row.Renewed},
		"signed out, with one":         {row: stored(row.SignedOut, 0, renewed), over: row.SignedOut},
	} {
		if r := tt.row; r.Alive() != tt.alive || r.Over() != tt.over || r.Pending() != tt.pending {
			t.Errorf("%s: alive %t, over %q, pending %t", name, r.Alive(), r.Over(), r.Pending())
		}
	}
}

func TestLinkIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, link := range []row.Link{{To: other}, {SignIn: true, To: other}, {To: pgtype.UUID{Valid: true}}} {
		for _, reason := range []string{row.Renewed, row.SignedOut} {
			r := stored(reason, 0, link.Encode())
			if got, ok := r.Link(); !ok || got != link {
				t.Errorf("%s: %+v, %t, want %+v", reason, got, ok, link)
			}
		}
	}
}

func TestDataThatMerelyLooksLikeALinkIsNone(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]row.Row{
		"of a live session":       stored("", 1, renewed),
		"live, without a version": stored("", 0, renewed),
		"of a pending one":        stored(row.Renewed, 1, renewed),
		"too short":               stored(row.Renewed, 0, renewed[:16]),
		"too long":                stored(row.Renewed, 0, append(renewed[:17:17], 0)),
		"empty":                   stored(row.Revoked, 0, []byte{}),
		"gone":                    {},
	} {
		if link, ok := r.Link(); ok {
			t.Errorf("%s: %+v", name, link)
		}
	}
}

func TestClockPlacesAnInstantOnTheDatabasesClock(t *testing.T) {
	t.Parallel()
	heard := time.Now()
	noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	c := row.Clock{Read: noon, Heard: heard}
	if got := c.Earliest(heard.Add(-time.Minute)); !got.Equal(noon.Add(-time.Minute)) {
		t.Error(got)
	}
}
