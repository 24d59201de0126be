package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// estimate is the median of some values, and where that of all there could be
// lies with a probability of at least 95%.
type estimate struct {
	median, low, high float64
	n                 int
}

// fewest is how many values an interval of 95% takes: with less, even from the
// least to the most is no such.
const fewest = 6

// estimateOf takes the interval from the order of the values, so that nothing is
// assumed of how they are spread: how many of n lie below the true median is as
// with n throws of a coin. With fewer than fewest it is from the least to the
// most; of none all is NaN.
func estimateOf(values []float64) estimate {
	n := len(values)
	if n == 0 {
		return estimate{math.NaN(), math.NaN(), math.NaN(), 0}
	}
	sorted := slices.Sorted(slices.Values(values))
	outside := max(0, ordered(n)-1)
	return estimate{median(sorted), sorted[outside], sorted[n-1-outside], n}
}

// ordered is the k for which the k-th least and the k-th most of n values are the
// ends of the interval: the greatest for which fewer than k heads in n throws
// have a probability of at most 2.5%; 0 if there is none.
func ordered(n int) (k int) {
	all, _ := math.Lgamma(float64(n) + 1)
	sum := 0.0
	for ; k < n; k++ {
		heads, _ := math.Lgamma(float64(k) + 1)
		tails, _ := math.Lgamma(float64(n-k) + 1)
		if sum += math.Exp(all - heads - tails - float64(n)*math.Ln2); sum > 0.025 {
			return k
		}
	}
	return k
}

// excludes tells whether a value is outside the interval.
func (e estimate) excludes(value float64) bool { return value < e.low || value > e.high }

func (e estimate) String() string {
	if e.n == 0 {
		return none
	}
	return fmt.Sprintf("%.3f (%.3f–%.3f)", e.median, e.low, e.high)
}

// none is in a table where there is no figure.
const none = "–"

// spread is a median between the least and the most.
func spread(values []float64) string {
	if len(values) == 0 {
		return none
	}
	return fmt.Sprintf("%.1f (%.1f–%.1f)", median(values), slices.Min(values), slices.Max(values))
}

// quantile is the time that a part of the sorted ones is not above; 0 of none.
func quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)]
}
