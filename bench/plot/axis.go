package plot

import (
	"math"
	"slices"
	"strings"
)

// zeroRoom is the place of zero on a logarithmic axis, in pixels.
const zeroRoom = 30.0

// axis turns figures into pixels.
type axis struct {
	log       bool
	low, high float64 // the ends
	zero      bool    // a logarithmic one with a place for zero
	from, to  float64 // pixels of the ends
	ticks     []float64
	minor     []float64 // without a text
}

// newAxis makes an axis for figures, none of them negative if it is a
// logarithmic one. A linear one with grounded set has zero on it. Its pixels are
// for the caller to set.
func newAxis(figures []float64, log, grounded bool) axis {
	a := axis{log: log}
	if log {
		positive := slices.DeleteFunc(slices.Clone(figures), func(v float64) bool { return v <= 0 })
		a.zero = len(positive) < len(figures)
		if len(positive) == 0 {
			positive = []float64{1}
		}
		a.logarithmic(slices.Min(positive), slices.Max(positive))
		return a
	}
	a.low, a.high = slices.Min(figures), slices.Max(figures)
	if grounded {
		a.low, a.high = min(a.low, 0), max(a.high, 0)
	}
	if a.low == a.high {
		a.high++
		if !grounded {
			a.low-- // so that a single figure lies in the middle
		}
	}
	step := roundStep((a.high - a.low) / 5)
	if grounded {
		a.low, a.high = math.Floor(a.low/step)*step, math.Ceil(a.high/step-1e-9)*step
	}
	for i := math.Ceil(a.low/step - 1e-9); i*step <= a.high+step*1e-9; i++ {
		a.ticks = append(a.ticks, i*step+0) // no negative zero
	}
	return a
}

// roundStep is the next of 1, 2, 2.5 and 5 times a power of ten.
func roundStep(step float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(step)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if step <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// logarithmic sets ends and ticks: at 1, 2 and 5 times the powers of ten, or at
// these alone where there are many.
func (a *axis) logarithmic(low, high float64) {
	var steps []float64
	first, last := int(math.Floor(math.Log10(low)))-1, int(math.Ceil(math.Log10(high)))+1
	for power := first; power <= last; power++ {
		for _, m := range []float64{1, 2, 5} {
			steps = append(steps, m*math.Pow10(power))
		}
	}
	i := 0
	for i+1 < len(steps) && steps[i+1] <= low*(1+1e-9) {
		i++
	}
	j := i + 1
	for j+1 < len(steps) && steps[j] < high*(1-1e-9) {
		j++
	}
	a.low, a.high = steps[i], steps[j]
	if j-i <= 5 {
		a.ticks = steps[i : j+1]
		return
	}
	// so that the axis ends at ticks
	bottom, top := int(math.Floor(math.Log10(a.low)+1e-9)), int(math.Ceil(math.Log10(a.high)-1e-9))
	a.low, a.high = math.Pow10(bottom), math.Pow10(top)
	every := 1 + (top-bottom)/8
	for power := bottom; power <= top; power++ {
		if (power-bottom)%every == 0 {
			a.ticks = append(a.ticks, math.Pow10(power))
		}
		for m := 2.0; m < 10 && power < top && every == 1; m++ {
			a.minor = append(a.minor, m*math.Pow10(power))
		}
	}
}

// tighten brings the ends to the outermost figures.
func (a *axis) tighten(figures []float64) {
	if a.log {
		figures = slices.DeleteFunc(slices.Clone(figures), func(v float64) bool { return v <= 0 })
	}
	if len(figures) == 0 {
		return
	}
	low, high := slices.Min(figures), slices.Max(figures)
	if low == high {
		if a.log {
			a.low, a.high = low/2, high*2 // so that a single figure lies in the middle
		}
		return
	}
	a.low, a.high = low, high
	outside := func(v float64) bool { return v < a.low || v > a.high }
	a.ticks, a.minor = slices.DeleteFunc(a.ticks, outside), slices.DeleteFunc(a.minor, outside)
}

// at is the pixel of a figure. On a logarithmic axis what is not above zero has
// the place of zero, or that of the low end.
func (a axis) at(v float64) float64 {
	low, high, from := a.low, a.high, a.from
	if a.log {
		if a.zero {
			from += math.Copysign(zeroRoom, a.to-a.from)
		}
		if v <= 0 {
			return a.from
		}
		v, low, high = math.Log10(v), math.Log10(low), math.Log10(high)
	}
	part := max(0, min(1, (v-low)/(high-low)))
	return from + part*(a.to-from)
}

// all are the ticks, with zero where it has a place of its own.
func (a axis) all() []float64 {
	if a.zero {
		return slices.Concat([]float64{0}, a.ticks)
	}
	return a.ticks
}

// useFigures puts the ticks where the figures are if these are few and short,
// and not too near to each other. The axis has its pixels.
func (a *axis) useFigures(figures []float64, text func(float64) string) {
	at := slices.Clone(figures)
	slices.Sort(at)
	at = slices.Compact(at)
	if len(at) > 12 {
		return
	}
	edge := math.Inf(-1)
	for _, v := range at {
		says := text(v)
		half := measure(says, tickSize) / 2
		if len(says) > 5 && !strings.HasSuffix(says, "iB") || a.at(v)-half < edge+8 {
			return
		}
		edge = a.at(v) + half
	}
	a.minor = nil
	a.ticks = slices.DeleteFunc(at, func(v float64) bool { return a.zero && v == 0 })
}
