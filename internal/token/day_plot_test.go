//go:build !race

package token

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"
)

// The plot: the drawing's place in the picture, and what a step of it stands for.
const (
	plotLeft, plotRight  = 64.0, 928.0
	plotTop, plotBottom  = 76.0, 376.0
	plotStep             = 5 * time.Minute
	plotLeast, plotMost  = 0.8, 1500.0 // token requests in a second; none is drawn as the least
	plotWidth, plotHight = 960, 432
)

const plotStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.ground { fill: #ffffff }
.grid { fill: none; stroke: #d0d7de; stroke-width: 1 }
.limit { fill: none; stroke: #57606a; stroke-width: 1; stroke-dasharray: 5 4 }
.trouble { fill: #9a6700; fill-opacity: .16 }
.line { fill: none; stroke-width: 1.4; stroke-linejoin: round }
.rule { stroke: #cf222e }
.engine { stroke: #0550ae; stroke-width: 1.8 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.title { font-size: 15px; font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.ground { fill: #0d1117 }
.grid { fill: none; stroke: #30363d }
.limit { fill: none; stroke: #8b949e }
.trouble { fill: #d29922; fill-opacity: .22 }
.rule { stroke: #ff7b72 }
.engine { stroke: #79c0ff }
}
</style>
`

// plotDay draws the token requests of two fleets over the day, as SVG.
func plotDay(engine, rule *dayReport) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="t">`+"\n", plotWidth, plotHight)
	b.WriteString("<title id=\"t\">Token requests in a second over a day, by this engine and by Envoy's rule</title>\n" + plotStyle)
	fmt.Fprintf(&b, `<rect class="ground" width="%d" height="%d"/>`+"\n", plotWidth, plotHight)
	for _, t := range engine.server.troubles {
		x, to := plotX(t.from), plotX(t.to)
		fmt.Fprintf(&b, `<rect class="trouble" x="%.1f" y="%g" width="%.1f" height="%g"/>`+"\n", x, plotTop, to-x, plotBottom-plotTop)
		label(&b, "middle", (x+to)/2, plotTop-6, t.name+", "+t.length())
	}
	for _, n := range []float64{1, 10, 100, 1000} {
		y := plotY(n)
		fmt.Fprintf(&b, `<path class="grid" d="M%g %.1fH%g"/>`+"\n", plotLeft, y, plotRight)
		label(&b, "end", plotLeft-8, y+4, fmt.Sprint(n))
	}
	for hour := 0; hour <= 24; hour += 3 {
		x := plotX(time.Duration(hour) * time.Hour)
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %gv5"/>`+"\n", x, plotBottom)
		label(&b, "middle", x, plotBottom+20, fmt.Sprintf("%02d:00", hour))
	}
	fmt.Fprintf(&b, `<path class="grid" d="M%g %gV%gH%g"/>`+"\n", plotLeft, plotTop, plotBottom, plotRight)
	fmt.Fprintf(&b, `<path class="limit" d="M%g %.1fH%g"/>`+"\n", plotLeft, plotY(rateLimit), plotRight)
	plotLine(&b, "rule", rule.server.received)
	plotLine(&b, "engine", engine.server.received)
	plotTexts(&b, engine, rule)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func plotTexts(b *bytes.Buffer, engine, rule *dayReport) {
	instances := 0
	for _, n := range engine.fleet {
		instances += n
	}
	label(b, "title", plotLeft, 24, fmt.Sprintf("Token requests of %d instances over a simulated day", instances))
	x := plotLeft
	total := func(r *dayReport) string {
		n, _ := r.total()
		return fmt.Sprintf("%s: %d requests", r.name, n)
	}
	for _, key := range [][2]string{
		{"line engine", total(engine)},
		{"line rule", total(rule)},
		{"limit", fmt.Sprintf("above %d a second, the server answers 429", rateLimit)},
	} {
		fmt.Fprintf(b, `<path class="%s" d="M%g 42h24"/>`+"\n", key[0], x)
		label(b, "", x+32, 46, key[1])
		x += 255
	}
	label(b, "middle", (plotLeft+plotRight)/2, plotBottom+44, "time of day (hours)")
	fmt.Fprintf(b, `<text class="middle" transform="translate(18 %g) rotate(-90)">requests per second, peak in 5 min</text>`+"\n", (plotTop+plotBottom)/2)
}

// plotLine draws the busiest second of each step.
func plotLine(b *bytes.Buffer, class string, counts []int) {
	step := int(plotStep / time.Second)
	fmt.Fprintf(b, `<path class="line %s" d="M`, class)
	for n := range int(dayLength / plotStep) {
		y := plotY(float64(slices.Max(counts[n*step : (n+1)*step])))
		fmt.Fprintf(b, "%.1f %.1f ", plotX(plotStep*time.Duration(n)+plotStep/2), y)
	}
	b.WriteString("\"/>\n")
}

func plotX(at time.Duration) float64 {
	return plotLeft + (plotRight-plotLeft)*at.Hours()/dayLength.Hours()
}

func plotY(n float64) float64 {
	return plotBottom - (plotBottom-plotTop)*math.Log(max(n, plotLeast)/plotLeast)/math.Log(plotMost/plotLeast)
}

func label(b *bytes.Buffer, class string, x, y float64, text string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, text)
}

// length is how long a trouble lasts, for people.
func (t trouble) length() string { return short(t.to - t.from) }
