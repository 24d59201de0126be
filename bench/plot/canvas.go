package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strconv"
)

// style serves both of a reader's colour schemes. What tells two lines apart is
// their marker and their dashes, too (see look), and ours from others the weight
// of the text.
const style = `text { font: 13px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.strong { font-weight: 600 }
.quiet { fill: #59636e }
.tick { font-size: 12px; fill: #59636e }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grid { fill: none; stroke: #d1d9e0; stroke-width: 1 }
.axis { fill: none; stroke: #818b98; stroke-width: 1 }
.bar { fill: #a7b1bc }
.ours { fill: #0969da }
.whisker { fill: none; stroke: #1f2328; stroke-width: 1.2 }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round }
.heavy { stroke-width: 2.8 }
.thin { fill: none; stroke-width: 1.2; opacity: .65 }
.lead { fill: none; stroke-width: 1; opacity: .5 }
.mark { stroke: none }
.c0 { stroke: #0969da; fill: #0969da }
.c1 { stroke: #bc4c00; fill: #bc4c00 }
.c2 { stroke: #00805e; fill: #00805e }
.c3 { stroke: #a0438f; fill: #a0438f }
.c4 { stroke: #8a6d00; fill: #8a6d00 }
.c5 { stroke: #57606a; fill: #57606a }
.c6 { stroke: #0e7c9c; fill: #0e7c9c }
.c7 { stroke: #c4183c; fill: #c4183c }
.line, .thin, .lead { fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.quiet, .tick { fill: #9198a1 }
.grid { stroke: #2f353d }
.axis { stroke: #656c76 }
.bar { fill: #565f69 }
.ours { fill: #388bfd }
.whisker { stroke: #f0f6fc }
.c0 { stroke: #58a6ff; fill: #58a6ff }
.c1 { stroke: #f0883e; fill: #f0883e }
.c2 { stroke: #2fc49a; fill: #2fc49a }
.c3 { stroke: #e29ad4; fill: #e29ad4 }
.c4 { stroke: #e3c04a; fill: #e3c04a }
.c5 { stroke: #9aa4af; fill: #9aa4af }
.c6 { stroke: #6fd3f2; fill: #6fd3f2 }
.c7 { stroke: #ff8593; fill: #ff8593 }
.line, .thin, .lead { fill: none }
}
`

// canvas collects the elements of a drawing.
type canvas struct{ body bytes.Buffer }

// text writes a line of text at its baseline.
func (c *canvas) text(x, y float64, class, s string) {
	c.body.WriteString(`<text`)
	if class != "" {
		fmt.Fprintf(&c.body, ` class="%s"`, class)
	}
	fmt.Fprintf(&c.body, ` x="%s" y="%s">%s</text>`+"\n", px(x), px(y), escape(s))
}

// path writes a path; dashes may be "".
func (c *canvas) path(class, dashes, format string, at ...float64) {
	args := make([]any, 0, len(at))
	for _, v := range at {
		args = append(args, px(v))
	}
	fmt.Fprintf(&c.body, `<path class="%s"`, class)
	if dashes != "" {
		fmt.Fprintf(&c.body, ` stroke-dasharray="%s"`, dashes)
	}
	fmt.Fprintf(&c.body, ` d="`+format+"\"/>\n", args...)
}

// whole is the drawing, of the height given, with a title and a description for
// those who do not see it.
func (c *canvas) whole(height float64, title, desc string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%[1]s" height="%[2]s" role="img" aria-labelledby="t d">`+"\n", px(width), px(height))
	fmt.Fprintf(&out, "<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n<style>\n%s</style>\n", escape(title), escape(desc), style)
	out.Write(c.body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// px writes a length to a tenth of a pixel.
func px(v float64) string {
	s := strconv.FormatFloat(v, 'f', 1, 64)
	if s == "-0.0" {
		return "0"
	}
	if n := len(s) - 2; s[n:] == ".0" {
		return s[:n]
	}
	return s
}

// escape makes text of what may hold markup, or bytes that XML has no place for.
func escape(s string) string {
	var out bytes.Buffer
	_ = xml.EscapeText(&out, []byte(s)) // a buffer takes everything
	return out.String()
}
