package interop

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// plotScale is where times and values are in a box.
type plotScale struct {
	box
	low, high float64
	linear    float64 // from where on it grows by tens; 0 for a scale that never does
	*canvas
}

func (s plotScale) x(at time.Time) float64 {
	return s.box.x + s.w*at.Sub(s.began).Seconds()/float64(s.length)
}

func (s plotScale) y(v float64) float64 {
	if s.linear > 0 {
		high, low := math.Asinh(s.high/s.linear), math.Asinh(s.low/s.linear)
		return s.box.y + s.h*(high-math.Asinh(v/s.linear))/(high-low)
	}
	return s.box.y + s.h*(s.high-v)/(s.high-s.low)
}

// times are the seconds of the run, beneath.
func (s plotScale) times() {
	for n := 0; n <= s.length; n += 10 {
		x := s.x(s.began.Add(time.Duration(n) * time.Second))
		s.text("middle", x, s.box.y+s.h+13, fmt.Sprintf("%d s", n))
	}
}

// path has a gap where a value is missing; one alone is a dot, and of several in
// a row that are level the first and the last will do.
func (s plotScale) path(l line) string {
	var d strings.Builder
	points := slices.DeleteFunc(slices.Clone(l.points), func(p point) bool { return math.IsNaN(p.value) || math.IsInf(p.value, 0) })
	follows := func(n int) bool {
		return n > 0 && n < len(points) && points[n].at.Sub(points[n-1].at) < 1500*time.Millisecond
	}
	at := func(n int) string { return fmt.Sprintf("%.1f", s.y(points[n].value)) }
	for n, p := range points {
		switch {
		case !follows(n):
			fmt.Fprintf(&d, "M%.1f %sh0", s.x(p.at), at(n))
		case !follows(n+1) || at(n-1) != at(n) || at(n) != at(n+1):
			fmt.Fprintf(&d, "L%.1f %s", s.x(p.at), at(n))
		}
	}
	return d.String()
}

// plot is a panel of lines, or of areas that are stacked.
func (c *canvas) plot(p panel, b box) {
	var lines []line
	for _, q := range p.Targets {
		lines = append(lines, c.drawn[p.of(q)]...)
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		if len(p.Targets) > 1 {
			return 0 // as they were asked for
		}
		return cmp.Compare(a.legend, b.legend)
	})
	f := p.FieldConfig.Defaults
	beneath := c.legend(p, lines, b)
	s := plotScale{box{b.x + 44, b.y + 2, b.w - 48, b.h - 20 - beneath}, 0, 0, 0, c}
	stacked := f.Custom.Stacking.Mode == "normal"
	if stacked {
		lines = stack(lines)
	}
	s.low, s.high = 0-highest(negated(lines)), max(highest(lines), f.Custom.AxisSoftMax)
	if f.Max != nil {
		s.high = *f.Max
	}
	ticks := rule(s.low, s.high)
	if distribution := f.Custom.ScaleDistribution; distribution.Type == "symlog" {
		s.linear = distribution.LinearThreshold
		ticks = []float64{0, 10, 60, 600, 3600, 86400}
		ticks = ticks[:min(len(ticks), 1+slices.IndexFunc(append(ticks, s.high), func(v float64) bool { return v >= s.high }))]
	}
	s.low, s.high = min(s.low, ticks[0]), max(s.high, ticks[len(ticks)-1])
	s.tints(f)
	axis := f.Unit
	if strings.HasPrefix(axis, "req") {
		axis = "none" // the head of the panel says of what
	}
	for _, tick := range ticks {
		fmt.Fprintf(c, `<path class="grid" d="M%.1f %.1fh%.1f"/>`+"\n", s.box.x, s.y(tick), s.w)
		c.text("end", s.box.x-5, s.y(tick)+4, show(tick, axis))
	}
	s.times()
	// the highest of a stack first, for those beneath cover it
	for _, l := range slices.Backward(lines) {
		shade := c.shadeOf(p, l.legend)
		if d := s.path(l); stacked && d != "" {
			first := l.points[0]
			fmt.Fprintf(c, `<path class="area %s" d="%sV%.1fH%.1fZ"/>`+"\n", shade, strings.Replace(d, "h0", "", 1), s.y(0), s.x(first.at))
		} else if d != "" {
			fmt.Fprintf(c, `<path class="line %s" d="%s"/>`+"\n", shade, d)
		}
	}
}

// tints are the regions of the thresholds.
func (s plotScale) tints(f field) {
	if f.Custom.ThresholdsStyle.Mode != "area" {
		return
	}
	for n, step := range f.Thresholds.Steps {
		from, to := s.low, s.high
		if step.Value != nil {
			from = max(from, *step.Value)
		}
		if n+1 < len(f.Thresholds.Steps) {
			to = min(to, *f.Thresholds.Steps[n+1].Value)
		}
		if step.Color != "transparent" && to > from {
			fmt.Fprintf(s, `<rect class="tint %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", step.Color, s.box.x, s.y(to), s.w, s.y(from)-s.y(to))
		}
	}
}

// legend stands beneath, in two rows at most, and returns how high it is.
func (c *canvas) legend(p panel, lines []line, b box) float64 {
	const row, key = 15, 14
	x, rows := b.x, 1
	var at [][2]float64
	for _, l := range lines {
		width := key + letter*float64(len(l.legend)) + 12
		if x+width > b.x+b.w && x > b.x {
			x, rows = b.x, rows+1
		}
		if rows > 2 {
			break
		}
		at = append(at, [2]float64{x, float64(rows)})
		x += width
	}
	height := float64(min(rows, 2) * row)
	for n, place := range at {
		y := b.y + b.h - height + place[1]*row - 2
		name := lines[n].legend
		if n == len(at)-1 && len(at) < len(lines) {
			name = fmt.Sprintf("and %d more", len(lines)-n)
		} else {
			fmt.Fprintf(c, `<path class="line %s" style="stroke-width:4" d="M%.1f %.1fh7"/>`+"\n", c.shadeOf(p, name), place[0]+2, y-4)
		}
		c.text("", place[0]+key, y, name)
	}
	return height
}

// shadeOf is the colour of a series: one that is named has its own, any other
// keeps the one that it had in the first panel.
func (c *canvas) shadeOf(p panel, legend string) string {
	if f := p.field(legend); f.Color.Mode == "fixed" {
		return f.Color.FixedColor
	}
	if c.colors[legend] == "" {
		c.colors[legend] = fmt.Sprintf("n%d", len(c.colors)%8)
	}
	return c.colors[legend]
}

// stack adds to each line those before it.
func stack(lines []line) []line {
	sums := make(map[time.Time]float64)
	for _, l := range lines {
		for _, p := range l.points {
			sums[p.at] = 0
		}
	}
	var stacked []line
	for _, l := range lines {
		for _, p := range l.points {
			sums[p.at] += p.value
		}
		up := line{legend: l.legend}
		for at, sum := range sums {
			up.points = append(up.points, point{at, sum})
		}
		slices.SortFunc(up.points, func(a, b point) int { return a.at.Compare(b.at) })
		stacked = append(stacked, up)
	}
	return stacked
}

// highest is the greatest value of all.
func highest(lines []line) float64 {
	most := 0.0
	for _, l := range lines {
		for _, p := range l.points {
			if !math.IsNaN(p.value) && !math.IsInf(p.value, 0) {
				most = max(most, p.value)
			}
		}
	}
	return most
}

// negated turns all values over, so that the highest is the lowest.
func negated(lines []line) []line {
	var all []line
	for _, l := range lines {
		n := line{}
		for _, p := range l.points {
			n.points = append(n.points, point{p.at, -p.value})
		}
		all = append(all, n)
	}
	return all
}

// rule are some round numbers that reach from one value to the other.
func rule(low, high float64) []float64 {
	if high <= low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high-low)))
	for _, part := range []float64{0.2, 0.5, 1, 2, 5} {
		if (high-low)/(step*part) <= 4.01 {
			step *= part
			break
		}
	}
	var ticks []float64
	for n := math.Floor(low / step); n <= math.Ceil(high/step-1e-9); n++ {
		ticks = append(ticks, n*step)
	}
	return ticks
}
