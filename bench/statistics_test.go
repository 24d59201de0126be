package main

import (
	"math"
	"testing"
	"time"
)

func TestOrdered(t *testing.T) {
	// of a table of the binomial distribution
	for n, want := range map[int]int{0: 0, 1: 0, 5: 0, 6: 1, 8: 1, 9: 2, 10: 2, 20: 6, 25: 8, 30: 10, 50: 18, 60: 22, 100: 40, 1000: 469} {
		if got := ordered(n); got != want {
			t.Errorf("of %d: %d, want %d", n, got, want)
		}
	}
}

func TestEstimateOf(t *testing.T) {
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64((i*37)%100+1)) // 1 to 100, in no order
	}
	for name, test := range map[string]struct {
		values []float64
		want   estimate
		text   string
	}{
		"a hundred": {hundred, estimate{50.5, 40, 61, 100}, "50.500 (40.000–61.000)"},
		"ten":       {[]float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, estimate{5.5, 2, 9, 10}, "5.500 (2.000–9.000)"},
		"too few":   {[]float64{3, 1, 2}, estimate{2, 1, 3, 3}, "2.000 (1.000–3.000)"},
		"one":       {[]float64{7}, estimate{7, 7, 7, 1}, "7.000 (7.000–7.000)"},
	} {
		got := estimateOf(test.values)
		if got != test.want || got.String() != test.text {
			t.Errorf("%s: %s %+v, want %+v", name, got, got, test.want)
		}
	}
	if e := estimateOf(nil); !math.IsNaN(e.median) || e.String() != none || spread(nil) != none {
		t.Errorf("of nothing: %+v", e)
	}
	if got := spread([]float64{3, 1, 2}); got != "2.0 (1.0–3.0)" {
		t.Error(got)
	}
}

func TestExcludes(t *testing.T) {
	e := estimate{1.01, 0.99, 1.02, 60}
	for value, want := range map[float64]bool{0.98: true, 0.99: false, 1: false, 1.02: false, 1.03: true} {
		if got := e.excludes(value); got != want {
			t.Errorf("%v: %v", value, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for part, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.9: 900, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := quantile(sorted, part); got != want {
			t.Errorf("%v: %d, want %d", part, got, want)
		}
	}
	if got := quantile(sorted[:3], 0.5); got != 2 {
		t.Errorf("the middle of three: %d", got)
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
	points := tail(sorted)
	last := points[len(points)-1]
	if first := points[0]; first.X != 1 || first.Y != 1e-6 || last.X != 1000 || last.Y != 999e-6 {
		t.Errorf("from %+v to %+v", first, last)
	}
}
