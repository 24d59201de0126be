package interop

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The picture: where the columns and rows of the dashboard are in it.
const (
	pictureWidth          = 1000
	pictureMargin         = 10
	pictureColumn         = float64(pictureWidth-2*pictureMargin) / 24
	pictureRow            = 21
	pictureTop            = 66
	pictureGap            = 8
	letter        float64 = 5.9 // the width of one, about
)

const pictureStyle = `<style>
text { font: 11px system-ui, sans-serif; fill: #57606a }
.ground { fill: #ffffff }
.panel { fill: #f6f8fa; stroke: #d0d7de }
.grid { fill: none; stroke: #d0d7de }
.line { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round }
.area { fill: currentColor }
.bar { fill: currentColor; fill-opacity: .35 }
.tint { fill: currentColor; fill-opacity: .12 }
.spark { fill: none; stroke: currentColor; stroke-width: 1.2; stroke-opacity: .5 }
text.value { font-size: 24px; font-weight: 600; fill: currentColor }
text.colored { fill: currentColor; font-weight: 600 }
.end { text-anchor: end }
.middle { text-anchor: middle }
text.name, text.row, text.title { fill: #24292f; font-weight: 600 }
text.name { font-size: 12px }
text.row { font-size: 14px }
text.title { font-size: 17px }
%s@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.ground { fill: #0d1117 }
.panel { fill: #151b23; stroke: #3d444d }
.grid { stroke: #3d444d }
text.name, text.row, text.title { fill: #f0f6fc }
%s}
</style>
`

// shades are the colours that the dashboard names, on light and on dark.
var shades = map[string][2]string{
	"green": {"#1a7f37", "#3fb950"}, "orange": {"#bc4c00", "#f0883e"}, "red": {"#cf222e", "#f85149"},
	"dark-red": {"#82071e", "#b62324"}, "yellow": {"#bf8700", "#e3b341"}, "purple": {"#8250df", "#bc8cff"},
	"blue": {"#0969da", "#4493f8"}, "light-blue": {"#54aeff", "#a5d6ff"}, "dark-blue": {"#0a3069", "#1f6feb"},
	"text": {"#24292f", "#f0f6fc"},
	"n0":   {"#0969da", "#58a6ff"}, "n1": {"#bf3989", "#f778ba"}, "n2": {"#1b7c83", "#39c5cf"}, "n3": {"#bc4c00", "#f0883e"},
	"n4": {"#8250df", "#bc8cff"}, "n5": {"#4d7d0f", "#7ee787"}, "n6": {"#953800", "#ffa657"}, "n7": {"#57606a", "#9198a1"},
}

// canvas is a picture in the making.
type canvas struct {
	bytes.Buffer
	began  time.Time
	length int               // of the run, in seconds
	drawn  map[string][]line // what the queries returned
	colors map[string]string // of those that have no colour of their own, by legend
}

// draw makes a picture of what the queries returned, in the dashboard's layout.
func (s *scene) draw(d dashboard, drawn map[string][]line) []byte {
	c := &canvas{began: s.began, length: int(s.ended.Sub(s.began) / time.Second), drawn: drawn, colors: make(map[string]string)}
	height := 0
	for _, p := range d.placed() {
		height = max(height, pictureTop+(p.GridPos.Y+p.GridPos.H)*pictureRow)
	}
	height += pictureMargin
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="t">`+"\n", pictureWidth, height)
	c.WriteString("<title id=\"t\">What a Prometheus answered to the queries of the dashboard, panel by panel</title>\n")
	var light, dark strings.Builder
	for _, name := range slices.Sorted(maps.Keys(shades)) {
		fmt.Fprintf(&light, ".%s { color: %s }\n", name, shades[name][0])
		fmt.Fprintf(&dark, ".%s { color: %s }\n", name, shades[name][1])
	}
	fmt.Fprintf(c, pictureStyle, &light, &dark)
	fmt.Fprintf(c, `<rect class="ground" width="%d" height="%d"/>`+"\n", pictureWidth, height)
	c.text("title", pictureMargin, 26, d.Title)
	c.text("", pictureMargin, 44, fmt.Sprintf("Drawn from what a Prometheus answered to the dashboard's queries, not by Grafana: %d instances, a scrape each second, %d seconds,", len(s.caddys), c.length))
	c.text("", pictureMargin, 59, "with two credentials that never work, and in the middle a server that is away, a page in place of an answer, refusals by an upstream, and a storage that fails.")
	for _, p := range d.placed() {
		c.panel(p)
	}
	c.WriteString("</svg>\n")
	return c.Bytes()
}

// box is a place in the picture.
type box struct{ x, y, w, h float64 }

func (c *canvas) panel(p panel) {
	at := p.GridPos
	b := box{
		pictureMargin + float64(at.X)*pictureColumn, pictureTop + float64(at.Y*pictureRow),
		float64(at.W)*pictureColumn - pictureGap, float64(at.H*pictureRow) - pictureGap,
	}
	if p.Type == "row" {
		title := p.Title
		if p.Collapsed {
			title += " (closed, until somebody opens it)"
		}
		c.text("row", b.x, b.y+14, title)
		return
	}
	if at.X+at.W == 24 {
		b.w += pictureGap
	}
	fmt.Fprintf(c, `<rect class="panel" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="4"/>`+"\n", b.x, b.y, b.w, b.h)
	c.text("name", b.x+8, b.y+16, p.Title)
	if name := unitNames[p.FieldConfig.Defaults.Unit]; p.Type == "timeseries" {
		c.text("end", b.x+b.w-8, b.y+16, name)
	}
	inner := box{b.x + 8, b.y + 24, b.w - 16, b.h - 30}
	switch p.Type {
	case "stat":
		c.stat(p, inner)
	case "state-timeline":
		c.timeline(p, inner)
	case "table":
		c.table(p, inner)
	default:
		c.plot(p, inner)
	}
}

func (c *canvas) text(class string, x, y float64, text string) {
	fmt.Fprintf(c, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, html.EscapeString(text))
}

// stat is the last value of each query, large, with its course behind it.
func (c *canvas) stat(p panel, b box) {
	width := b.w / float64(len(p.Targets))
	for n, q := range p.Targets {
		x := b.x + width*float64(n)
		for _, l := range c.drawn[p.of(q)] {
			last := l.points[len(l.points)-1].value
			f := p.field(q.LegendFormat)
			shade := f.shade(last)
			if len(l.points) > 1 {
				scale := plotScale{box{x, b.y + b.h/2 + 14, width, b.h/2 - 14}, 0, highest([]line{l}), 0, c}
				fmt.Fprintf(c, `<path class="spark %s" d="%s"/>`+"\n", shade, scale.path(l))
			}
			c.text("value "+shade, x, b.y+b.h/2+6, show(last, f.Unit))
			if len(p.Targets) > 1 {
				c.text("", x, b.y+b.h/2+24, q.LegendFormat)
			}
		}
	}
}

// timeline has a bar for each series, cut where its value changes.
func (c *canvas) timeline(p panel, b box) {
	const names = 62
	var lines []line
	for _, q := range p.Targets {
		lines = append(lines, c.drawn[p.of(q)]...)
	}
	scale := plotScale{box{b.x + names, b.y, b.w - names, b.h - 14}, 0, 1, 0, c}
	height := (b.h - 14) / float64(len(lines))
	f := p.FieldConfig.Defaults
	for n, l := range lines {
		y := b.y + float64(n)*height
		c.text("", b.x, y+height/2+4, l.legend)
		for from := 0; from < len(l.points); {
			to := from
			for to+1 < len(l.points) && l.points[to+1].value == l.points[from].value {
				to++
			}
			x, end := scale.x(l.points[from].at), min(scale.x(l.points[to].at.Add(time.Second)), b.x+b.w)
			state := f.Mappings[0].Options[strconv.Itoa(int(l.points[from].value))]
			fmt.Fprintf(c, `<rect class="bar %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", state.Color, x, y+4, end-x, height-8)
			c.text("colored "+state.Color, x+6, y+height/2+4, state.Text)
			from = to + 1
		}
	}
	scale.times()
}

// table joins the rows of the queries by the labels that all of them have.
func (c *canvas) table(p panel, b box) {
	type cell struct{ text, shade string }
	rows := make(map[string]map[string]cell)
	rename, place, hide := make(map[string]string), make(map[string]int), map[string]bool{"Time": true}
	for _, tr := range p.Transformations {
		maps.Copy(rename, tr.Options.RenameByName)
		maps.Copy(place, tr.Options.IndexByName)
		maps.Copy(hide, tr.Options.ExcludeByName)
	}
	columns := make(map[string]bool)
	for _, q := range p.Targets {
		value := "Value"
		if len(p.Targets) > 1 {
			value = "Value #" + q.RefID
		}
		for _, l := range c.drawn[p.of(q)] {
			key := cmp.Or(l.labels["instance"], fmt.Sprint(l.labels))
			if rows[key] == nil {
				rows[key] = make(map[string]cell)
			}
			for name, label := range l.labels {
				rows[key][name] = cell{label, "text"}
				columns[name] = true
			}
			f := p.field(cmp.Or(rename[value], value))
			rows[key][value] = cell{show(l.points[0].value, f.Unit), f.shade(l.points[0].value)}
			columns[value] = true
		}
	}
	maps.DeleteFunc(columns, func(name string, _ bool) bool { return hide[name] })
	sorted := slices.SortedFunc(maps.Keys(columns), func(a, b string) int { return place[a] - place[b] })
	x := b.x
	for _, name := range sorted {
		y, heading := b.y+12, cmp.Or(rename[name], name)
		c.text("", x, y, heading)
		longest := len(heading)
		for _, key := range slices.Sorted(maps.Keys(rows)) {
			y += 20
			c.text("colored "+rows[key][name].shade, x, y, rows[key][name].text)
			longest = max(longest, len(rows[key][name].text))
		}
		x += letter*float64(longest) + 30
	}
	fmt.Fprintf(c, `<path class="grid" d="M%.1f %.1fh%.1f"/>`+"\n", b.x, b.y+18, b.w)
}

// field is how values under a name are shown.
func (p panel) field(name string) field {
	f := p.FieldConfig.Defaults
	for _, o := range p.FieldConfig.Overrides {
		if o.Matcher.Options != name {
			continue
		}
		for _, property := range o.Properties {
			switch property.ID {
			case "color":
				_ = json.Unmarshal(property.Value, &f.Color)
			case "unit":
				_ = json.Unmarshal(property.Value, &f.Unit)
			case "thresholds":
				_ = json.Unmarshal(property.Value, &f.Thresholds)
			}
		}
	}
	return f
}

// shade is the colour of a value.
func (f field) shade(value float64) string {
	if f.Color.Mode != "thresholds" {
		return cmp.Or(f.Color.FixedColor, "text")
	}
	shade := "text"
	for _, step := range f.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			shade = step.Color
		}
	}
	return shade
}

var unitNames = map[string]string{
	"s": "time", "percentunit": "share", "reqps": "a second", "reqpm": "a minute", "none": "count",
}

// show is a value as people read it.
func show(v float64, unit string) string {
	number := func(v float64) string {
		if math.Abs(v) >= 10 || v == math.Trunc(v) {
			return fmt.Sprintf("%.0f", v)
		}
		return fmt.Sprintf("%.2g", v)
	}
	switch unit {
	case "s":
		switch {
		case v != 0 && math.Abs(v) < 1:
			return number(1000*v) + " ms"
		case math.Abs(v) >= 7200:
			return number(v/3600) + " h"
		case math.Abs(v) >= 120:
			return number(v/60) + " min"
		}
		return number(v) + " s"
	case "percentunit":
		return number(100*v) + "%"
	case "reqps":
		return number(v) + "/s"
	case "reqpm":
		return number(v) + "/min"
	}
	return number(v)
}
