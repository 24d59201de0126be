// Package plot draws the plots of bench as SVG: for a README that is read in
// light and in dark, with no font, script or other file, and the same bytes for
// the same figures.
package plot

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// Sizes in pixels: of the whole, and of what surrounds the figures.
const (
	width      = 800.0
	margin     = 10.0
	titleSize  = 16.0
	labelSize  = 13.0
	tickSize   = 12.0
	lineHeight = 17.0
)

// Draw draws a plot, as bars or as lines. A plot without points is an error, and
// so are a figure that is no number, a negative one on a logarithmic axis, and a
// range whose low end is above its high one. Zero has a place of its own on a
// logarithmic axis, before the lowest figure. A range of 0 to 0 is none.
func Draw(p *result.Plot) ([]byte, error) {
	if err := check(p); err != nil {
		return nil, fmt.Errorf("plot %q: %w", p.Name, err)
	}
	if p.Bars {
		return bars(p), nil
	}
	return lines(p), nil
}

// check finds what cannot be drawn.
func check(p *result.Plot) error {
	if p.Title == "" {
		return errors.New("it has no title")
	}
	if len(p.Series) == 0 {
		return errors.New("it has no series")
	}
	if p.Bars && len(p.Series) > 1 {
		return fmt.Errorf("bars are of one series, and there are %d", len(p.Series))
	}
	for _, s := range p.Series {
		if len(s.Points) == 0 {
			return fmt.Errorf("series %q has no points", s.Name)
		}
		for _, pt := range s.Points {
			for _, v := range []float64{pt.X, pt.Y, pt.Low, pt.High} {
				if math.IsNaN(v) || math.Abs(v) > 1e15 {
					return fmt.Errorf("series %q, %q: %g is no figure", s.Name, pt.Label, v)
				}
			}
			if pt.Low > pt.High {
				return fmt.Errorf("series %q, %q: the range %g to %g is upside down", s.Name, pt.Label, pt.Low, pt.High)
			}
			if (p.LogY && pt.Y < 0) || (p.LogX && !p.Bars && pt.X < 0) {
				return fmt.Errorf("series %q, %q: a logarithmic axis has no place for a negative figure", s.Name, pt.Label)
			}
		}
	}
	return nil
}

// span is a point's range, or its figure alone where no range is known.
func span(pt result.Point) (low, high float64, known bool) {
	if pt.Low == pt.High && (pt.Low == pt.Y || pt.Low == 0) {
		return pt.Y, pt.Y, false
	}
	return pt.Low, pt.High, true
}

// ours tells whether a series is this project's: by its points, or by its name.
func ours(s result.Series) bool {
	return strings.HasPrefix(s.Name, "upstream_auth") || slices.ContainsFunc(s.Points, func(pt result.Point) bool { return pt.Ours })
}

// header writes the title and what the figures are, and returns where they end.
func header(c *canvas, p *result.Plot) float64 {
	y := margin + titleSize
	for _, line := range wrap(p.Title, titleSize*bold, width-2*margin, 3) {
		c.text(margin, y, "title", line)
		y += titleSize + 5
	}
	for _, line := range wrap(axisText(p.Y, p.LogY), labelSize, width-2*margin, 2) {
		c.text(margin, y, "quiet", line)
		y += lineHeight
	}
	return y - lineHeight + 6
}

// axisText is what an axis is of.
func axisText(says string, log bool) string {
	if log && says != "" {
		says += " (logarithmic)"
	}
	return says
}
