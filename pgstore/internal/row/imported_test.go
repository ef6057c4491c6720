package row_test

import (
	"math"
	"testing"
	"time"

	"github.com/scspg/scspg/pgstore/internal/row"
)

func TestImportedVersionSaysWhenTheOldRowExpires(t *testing.T) {
	t.Parallel()
	for _, expiry := range []time.Time{now, now.Add(time.Hour), row.Forever} {
		v := row.ImportedVersion(expiry, 0)
		if want := min(expiry.Unix(), 1<<34-1); v <= 0 || row.ImportedUntil(v).Unix() != want || !row.AsImported(v) {
			t.Errorf("%v: version %d, until %v", expiry, v, row.ImportedUntil(v))
		}
		for _, writes := range []int64{1, 2, 1<<20 - 1} { // by sessions in use
			if row.AsImported(v+writes) || !row.ImportedUntil(v+writes).Equal(row.ImportedUntil(v)) {
				t.Errorf("%v: after %d writes it is as imported, or until %v", expiry, writes, row.ImportedUntil(v+writes))
			}
		}
	}
	for _, v := range []int64{0, 1, 1<<20 - 1} { // of rows of our own
		if row.AsImported(v) || row.ImportedUntil(v).Year() > 1970 {
			t.Errorf("%d is taken for imported", v)
		}
	}
}

// Under a version that has been, another request would take new data for what it has read.
func TestImportedVersionGrowsWithEachImport(t *testing.T) {
	t.Parallel()
	v := row.ImportedVersion(now, 0)
	for i, expiry := range []time.Time{now, now, now.Add(time.Hour), now, now.AddDate(-100, 0, 0), row.Forever, row.Forever} {
		next := row.ImportedVersion(expiry, v)
		if next <= v || next > math.MaxInt64/2+1<<40 || !row.AsImported(next) {
			t.Errorf("%d: %d after %d", i, next, v)
		}
		v = next
	}
}
