package plot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	areaHeight  = 300.0
	leadRoom    = 40.0  // between the last point and the name of its line
	longestName = 215.0 // of a line
	inset       = 14.0  // of the outermost points
	mostMarks   = 80
)

// lines draws a line for each series over their common axes, with markers at its
// points, whiskers for their ranges and its name at its end.
func lines(p *result.Plot) []byte {
	var xs, ys []float64
	series := slices.Clone(p.Series)
	for i, s := range series {
		s.Points = slices.SortedStableFunc(slices.Values(s.Points), func(a, b result.Point) int { return cmp.Compare(a.X, b.X) })
		series[i] = s
		for _, pt := range s.Points {
			low, high, _ := span(pt)
			xs = append(xs, pt.X)
			ys = append(ys, pt.Y, high)
			if low > 0 || !p.LogY {
				ys = append(ys, low)
			}
		}
	}
	looks := choose(series)

	c := new(canvas)
	top := header(c, p) + 10
	names, column := make([][]string, len(series)), 0.0
	rows := 0
	for i, s := range series {
		names[i] = wrap(s.Name, labelSize*bold, longestName, 2)
		rows += len(names[i])
		for _, line := range names[i] {
			column = max(column, measure(line, labelSize*bold))
		}
	}
	y := newAxis(ys, p.LogY, true)
	y.from = top + max(areaHeight, float64(rows)*lineHeight+float64(len(series))*3)
	y.to = top
	left := 0.0
	for _, v := range y.all() {
		left = max(left, measure(tickText(v), tickSize))
	}
	left += margin + 8
	right := width - margin - column - leadRoom
	x := newAxis(xs, p.LogX, false)
	if p.LogX {
		x.tighten(xs)
	}
	x.from, x.to = left+inset, right-inset
	xText := tickText
	switch {
	case strings.Contains(p.X, "KiB"):
		xText = func(v float64) string { return sizeText(v * 1024) }
	case strings.Contains(p.X, "bytes"):
		xText = sizeText
	}
	x.useFigures(xs, xText)

	frame(c, p, x, y, left, right, xText)
	ends := make([]float64, len(series))
	// the first line is whole and below, so that dashes above it show both, and
	// the first marker, a disc, is on top: the corners of others show behind it
	for i, s := range series {
		line(c, x, y, s.Points, looks[i])
		ends[i] = y.at(s.Points[len(s.Points)-1].Y)
	}
	for i, s := range slices.Backward(series) {
		marks(c, x, y, s.Points, looks[i], i, 1+len(xs)/mostMarks)
	}
	places := spread(ends, names, y.to, y.from)
	for i, s := range series {
		last := x.at(s.Points[len(s.Points)-1].X)
		c.path("lead "+looks[i].colour, "", "M%s %sL%s %s", last+8, ends[i], right+leadRoom-18, places[i])
		c.path("mark "+looks[i].colour, "", looks[i].marker, right+leadRoom-10, places[i])
		class := ""
		if looks[i].heavy {
			class = "strong"
		}
		for n, line := range names[i] {
			c.text(right+leadRoom, places[i]+4.5+(float64(n)-float64(len(names[i])-1)/2)*lineHeight, class, line)
		}
	}
	return c.whole(y.from+58, p.Title, describeLines(p, series))
}

// frame draws axes, grid and their texts.
func frame(c *canvas, p *result.Plot, x, y axis, left, right float64, xText func(float64) string) {
	for _, v := range y.all() {
		c.path("grid", "", "M%s %sH%s", left, y.at(v), right)
		c.text(left-8, y.at(v)+4, "tick end", tickText(v))
	}
	for _, v := range y.minor {
		c.path("axis", "", "M%s %sh-3", left, y.at(v))
	}
	ground := y.from
	c.path("axis", "", "M%s %sH%s", left, ground, right)
	for _, v := range x.minor {
		c.path("axis", "", "M%s %sv3", x.at(v), ground)
	}
	for _, v := range x.all() {
		c.path("axis", "", "M%s %sv5", x.at(v), ground)
		c.text(x.at(v), ground+19, "tick middle", xText(v))
	}
	if says := axisText(p.X, p.LogX); says != "" {
		c.text((left+right)/2, ground+41, "quiet middle", cut(says, labelSize, width-2*margin))
	}
}

// line draws a line, and the ranges of its points.
func line(c *canvas, x, y axis, points []result.Point, l look) {
	for _, pt := range points {
		if low, high, known := span(pt); known {
			c.path("thin "+l.colour, "", "M%s %sV%sM%s %sh6M%s %sh6", x.at(pt.X), y.at(low), y.at(high), x.at(pt.X)-3, y.at(low), x.at(pt.X)-3, y.at(high))
		}
	}
	if len(points) > 1 {
		format, at := strings.Builder{}, make([]float64, 0, 2*len(points))
		for i, pt := range points {
			if i == 0 {
				format.WriteString("M%s %s")
			} else {
				format.WriteString("L%s %s")
			}
			at = append(at, x.at(pt.X), y.at(pt.Y))
		}
		class := "line "
		if l.heavy {
			class = "line heavy "
		}
		c.path(class+l.colour, l.dashes, format.String(), at...)
	}
}

// marks draws the points of a line; of many lines with many points only some,
// each line's elsewhere than its neighbours', and the last one always.
func marks(c *canvas, x, y axis, points []result.Point, l look, first, every int) {
	for i, pt := range points {
		if i%every == first%every || i == len(points)-1 {
			c.path("mark "+l.colour, "", l.marker, x.at(pt.X), y.at(pt.Y))
		}
	}
}

// spread finds places for the names, in pixels, each as near to the end of its
// line as it can be without touching another.
func spread(ends []float64, names [][]string, top, bottom float64) []float64 {
	order := make([]int, len(ends))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ends[a], ends[b]) })
	// a block is of neighbours that touch; it lies where its members would on
	// average
	type block struct {
		of           []int
		height, want float64 // want: sum of where each would like the top of the block
	}
	tall := func(i int) float64 { return float64(len(names[i]))*lineHeight + 3 }
	place := func(b block) float64 {
		return max(top-lineHeight, min(b.want/float64(len(b.of)), bottom+lineHeight-b.height))
	}
	var blocks []block
	for _, i := range order {
		b := block{[]int{i}, tall(i), ends[i] - tall(i)/2}
		for len(blocks) > 0 {
			above := blocks[len(blocks)-1]
			if place(above)+above.height <= place(b) {
				break
			}
			b = block{slices.Concat(above.of, b.of), above.height + b.height, above.want + b.want - above.height*float64(len(b.of))}
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	places := make([]float64, len(ends))
	for _, b := range blocks {
		y := place(b)
		for _, i := range b.of {
			places[i] = y + tall(i)/2
			y += tall(i)
		}
	}
	return places
}

// describeLines says what the lines show.
func describeLines(p *result.Plot, series []result.Series) string {
	var out []string
	for _, s := range series {
		first, last := s.Points[0], s.Points[len(s.Points)-1]
		says := fmt.Sprintf("%s: %s at %s", s.Name, short(first.Y), short(first.X))
		if len(s.Points) > 1 {
			says += fmt.Sprintf(", %s at %s", short(last.Y), short(last.X))
		}
		out = append(out, says)
	}
	return fmt.Sprintf("%s over %s. %s.", p.Y, p.X, strings.Join(out, "; "))
}

func short(v float64) string { return figureText(v, decimals([]float64{v})) }
