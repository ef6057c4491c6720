package main

import (
	"fmt"
	"slices"
	"time"
)

// spread prints the median, and the least and the greatest.
func spread(ratios []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", middle(ratios), slices.Min(ratios), slices.Max(ratios))
}

// number is what is measured.
type number interface{ ~int | ~int64 | ~float64 }

// middle is the median: of an even number, between the two in the middle.
func middle[T number](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func median[T number](ms []measurement, of func(measurement) T) T {
	values := make([]T, len(ms))
	for i, m := range ms {
		values[i] = of(m)
	}
	return middle(values)
}

// thousands prints a rate with three significant digits at most.
func thousands(v float64) string {
	switch n := int(v); {
	case n >= 1_000_000:
		return fmt.Sprintf("%d,%03d,000", n/1_000_000, n/1000%1000)
	case n >= 10_000:
		return fmt.Sprintf("%d,%03d", n/1000, n/100%10*100)
	case n >= 1000:
		return fmt.Sprintf("%d,%03d", n/1000, n/10%100*10)
	default:
		return fmt.Sprint(n)
	}
}

// short prints a duration with about three significant digits.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// megabytes prints a size.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
