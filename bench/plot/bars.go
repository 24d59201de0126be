package plot

import (
	"fmt"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	barHeight  = 18.0
	barGap     = 12.0
	longestBar = 260.0 // label, in pixels
)

// bars draws a bar for each point, from above in their order, with its figure at
// its end and its range as a whisker. Ours have the accent and a bold label.
func bars(p *result.Plot) []byte {
	points := p.Series[0].Points
	var figures, ends []float64
	for _, pt := range points {
		low, high, _ := span(pt)
		figures = append(figures, pt.Y)
		ends = append(ends, pt.Y, high)
		if low > 0 || !p.LogY {
			ends = append(ends, low)
		}
	}
	digits := decimals(figures)

	column, after, before := 0.0, 0.0, 0.0
	labels := make([][]string, len(points))
	for i, pt := range points {
		labels[i] = wrap(pt.Label, labelSize*bold, longestBar, 2)
		for _, line := range labels[i] {
			column = max(column, measure(line, labelSize*bold))
		}
		room := measure(figureText(pt.Y, digits), labelSize*bold) + 10
		if pt.Y < 0 {
			before = max(before, room)
		} else {
			after = max(after, room)
		}
	}

	c := new(canvas)
	top := header(c, p) + 8
	a := newAxis(ends, p.LogY, true)
	if !p.LogY {
		a.tighten(append(ends, 0))
	}
	a.from, a.to = margin+column+12+before, width-margin-after
	bottom := top
	for _, lines := range labels {
		bottom += rowHeight(lines)
	}
	for _, v := range a.all() {
		c.path("grid", "", "M%s %sV%s", a.at(v), top, bottom)
		c.text(a.at(v), bottom+16, "tick middle", tickText(v))
	}

	base := a.at(0)
	y := top
	for i, pt := range points {
		height := rowHeight(labels[i])
		mid := y + height/2
		bar(c, a, pt, base, mid)
		class := "end"
		if pt.Ours {
			class = "strong end"
		}
		for n, line := range labels[i] {
			c.text(margin+column, mid+4.5+(float64(n)-float64(len(labels[i])-1)/2)*lineHeight, class, line)
		}
		low, high, _ := span(pt)
		text := figureText(pt.Y, digits)
		if pt.Y < 0 {
			c.text(min(a.at(pt.Y), a.at(low))-6, mid+4.5, class, text)
		} else {
			c.text(max(a.at(pt.Y), a.at(high))+6, mid+4.5, strings.TrimSuffix(strings.TrimSuffix(class, "end"), " "), text)
		}
		y += height
	}
	c.path("axis", "", "M%s %sV%s", base, top, bottom)
	return c.whole(bottom+16+margin, p.Title, describeBars(p, digits))
}

func rowHeight(label []string) float64 {
	return max(barHeight, float64(len(label))*lineHeight) + barGap
}

// bar draws a bar from the base to the figure, its end rounded, and its range.
func bar(c *canvas, a axis, pt result.Point, base, mid float64) {
	class := "bar"
	if pt.Ours {
		class = "ours"
	}
	if end := a.at(pt.Y); end != base {
		c.path(class, "", "M%s %sH%sV%sH%sZ", base, mid-barHeight/2, end, mid+barHeight/2, base)
	}
	low, high, known := span(pt)
	if known {
		c.path("whisker", "", "M%s %sH%sM%s %sv8M%s %sv8", a.at(low), mid, a.at(high), a.at(low), mid-4, a.at(high), mid-4)
	}
}

// describeBars says what the bars show.
func describeBars(p *result.Plot, digits int) string {
	var out []string
	for _, pt := range p.Series[0].Points {
		says := pt.Label + ": " + figureText(pt.Y, digits)
		if low, high, known := span(pt); known {
			says += fmt.Sprintf(" (%s to %s)", figureText(low, digits), figureText(high, digits))
		}
		out = append(out, says)
	}
	return p.Y + ". " + strings.Join(out, "; ") + "."
}
