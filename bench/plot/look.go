package plot

import "github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"

// look is how a line differs from the others: in its colour, and where colours
// look alike in its marker and its dashes.
type look struct {
	colour string
	dashes string
	marker string // a path, from the centre
	heavy  bool
}

// colours is the number of classes c0, c1 and so on.
const colours = 8

var (
	dashes  = []string{"", "7 5", "2 4.5", "10 4 2 4", "4 3", "12 4", "6 3 2 3 2 3"}
	markers = []string{
		"M%s %sm-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0z",          // disc
		"M%s %sm-3.8 -3.8h7.6v7.6h-7.6z",                                   // square
		"M%s %sm0 -5l4.8 8.4h-9.6z",                                        // triangle
		"M%s %sm0 -5.4l5.4 5.4l-5.4 5.4l-5.4 -5.4z",                        // diamond
		"M%s %sm0 5l4.8 -8.4h-9.6z",                                        // triangle, upside down
		"M%s %sm-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z", // cross
		"M%s %sm-4.8 -4.4v8.8l9.6 -8.8v8.8z",                               // two triangles
	}
)

// choose gives each series its look: the first colours to ours, and a heavier
// line where there are others beside.
func choose(series []result.Series) []look {
	count := 0
	for _, s := range series {
		if ours(s) {
			count++
		}
	}
	looks := make([]look, len(series))
	own, other := 0, count
	for i, s := range series {
		var n int
		if ours(s) {
			n = own
			own++
		} else {
			n = other
			other++
		}
		looks[i] = look{
			colour: "c" + string(rune('0'+n%colours)),
			dashes: dashes[n%len(dashes)],
			marker: markers[n%len(markers)],
			heavy:  ours(s) && count < len(series),
		}
	}
	return looks
}
