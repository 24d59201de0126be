package caddymodule

import (
	"mime"
	"strconv"
	"strings"
)

// prefersHTML tells whether a client would rather have a page than JSON, as
// browsers say and probes do not. A tie is for JSON.
func prefersHTML(accept []string) bool { return prefersText(accept, "html") }

// prefersText tells whether a client would rather have a kind of text than JSON
// (RFC 9110 §12.5.1).
func prefersText(accept []string, subtype string) bool {
	text, json := wish{}, wish{}
	for _, line := range accept {
		for one := range strings.SplitSeq(line, ",") {
			kind, q, ok := acceptable(one)
			if !ok {
				continue
			}
			text.hear("text", subtype, kind, q)
			json.hear("application", "json", kind, q)
		}
	}
	return text.q > json.q
}

// wish is how much a client wants a media type: what names it most exactly
// counts.
type wish struct {
	exact int
	q     float64
}

func (w *wish) hear(kind, subtype, asked string, q float64) {
	exact := 0
	switch asked {
	case kind + "/" + subtype:
		exact = 3
	case kind + "/*":
		exact = 2
	case "*/*":
		exact = 1
	}
	if exact > w.exact || exact == w.exact && exact > 0 && q > w.q {
		w.exact, w.q = exact, q
	}
}

// acceptable reads one member of an Accept field. A weight that is none does
// not count, nor does what it weighs.
func acceptable(s string) (kind string, q float64, ok bool) {
	kind, parameters, err := mime.ParseMediaType(s)
	if err != nil {
		return "", 0, false
	}
	weight, given := parameters["q"]
	if !given {
		return kind, 1, true
	}
	q, err = strconv.ParseFloat(weight, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return "", 0, false
	}
	return kind, q, true
}
