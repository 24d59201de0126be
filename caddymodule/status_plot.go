package caddymodule

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Heights in the plot, in pixels. Widths are in percent, so that it fits every
// screen without being scaled.
const (
	plotHeight = 56
	plotDots   = plotHeight + 12 // where the token requests stand
)

// life is the bar of a token's life.
type life struct {
	Sent, Refresh, Until when
	// From, To are what the bar spans, in milliseconds of Unix time.
	From, To int64
	// Now, RefreshAt and Reserve are places on the bar and a width, in percent.
	Now, RefreshAt, Reserve string
	Over                    bool // the token has ended
	Late                    bool // it was to be renewed by now, and is not
	Assumed                 bool
	Length                  string
	Text                    string // the bar in words
}

func newLife(t *tokenReport, failing bool, now time.Time) *life {
	end := t.Expires
	if t.Ends.Before(end) && now.Before(t.Ends) { // it may serve on behind its assumed end
		end = t.Ends
	}
	l := &life{
		Sent: newWhen(t.Sent, now), Refresh: newWhen(t.RefreshAt, now), Until: newWhen(t.Expires, now),
		From: t.Sent.UnixMilli(), To: end.UnixMilli(), Over: !t.Valid, Late: failing && now.After(t.RefreshAt), Assumed: t.Assumed,
		Length: spanText(time.Duration(t.Lifetime * float64(time.Second))),
	}
	at := func(m time.Time) float64 {
		return min(max(m.Sub(t.Sent).Seconds()/max(end.Sub(t.Sent).Seconds(), 1e-3), 0), 1) * 100
	}
	l.Now, l.RefreshAt, l.Reserve = percentText(at(now)), percentText(at(t.RefreshAt)), percentText(100-at(t.RefreshAt))
	l.Text = fmt.Sprintf("%.0f percent of the token's life are over; it is to be renewed at %.0f percent.", at(now), at(t.RefreshAt))
	if l.Over {
		l.Text = "The token's life is over."
	}
	return l
}

// plot is the last hour.
type plot struct {
	Bars   []bar
	Dots   []dot
	Most   string // the top of the scale
	Text   string // the plot in words
	Asked  string // token requests in words
	Denied bool   // a request was turned away
	Failed bool   // a token request brought none
	Height int
	DotsAt int
	Base   int
}

// bar is a minute with requests, those that failed on top.
type bar struct {
	X                     string
	Y, Height             string
	FailedY, FailedHeight string
	Title                 string
}

// dot is a minute with token requests.
type dot struct {
	X      string
	Failed bool
	Title  string
}

func newPlot(h *hour) *plot {
	p := &plot{Height: plotDots + 6, DotsAt: plotDots, Base: plotHeight}
	most := ceiling(slices.Max(h.Requests))
	p.Most = thousands(most)
	const step = 100.0 / minutes
	for i, n := range h.Requests {
		// the last minute ends now, the one before ended when it began
		ago := "this minute"
		if i < minutes-1 {
			ago = spanText(time.Duration(minutes-1-i)*time.Minute) + " ago"
			if i == minutes-2 {
				ago = "the minute before"
			}
		}
		if n > 0 {
			failed := min(h.Failures[i], n)
			height := max(float64(n)/float64(most)*plotHeight, 1.5)
			top := float64(failed) / float64(n) * height
			if failed > 0 {
				top = min(max(top, 3), height) // else it would not be seen
			}
			b := bar{
				X: percentText(float64(i)*step + step*0.1), Y: pixels(plotHeight - height + top), Height: pixels(height - top),
				Title: fmt.Sprintf("%s: %s", ago, many(n, "request")),
			}
			if failed > 0 {
				b.FailedY, b.FailedHeight = pixels(plotHeight-height), pixels(top)
				b.Title += fmt.Sprintf(", %s turned away", thousands(failed))
			}
			p.Bars = append(p.Bars, b)
		}
		if asked := h.TokenRequests[i]; asked > 0 {
			d := dot{X: percentText((float64(i) + 0.5) * step), Failed: h.TokenFailures[i] > 0, Title: fmt.Sprintf("%s: %s", ago, many(asked, "token request"))}
			if d.Failed {
				d.Title += fmt.Sprintf(", %s failed", thousands(h.TokenFailures[i]))
			}
			p.Dots = append(p.Dots, d)
		}
	}
	p.tell(h)
	return p
}

// tell says the plot in words.
func (p *plot) tell(h *hour) {
	sum := func(series []uint64) (n uint64) {
		for _, v := range series {
			n += v
		}
		return n
	}
	all, failed, rejected := sum(h.Requests), sum(h.Failures), sum(h.Rejected)
	words := []string{many(all, "request")}
	if all > 0 {
		words = append(words, orNone(failed)+" turned away")
	}
	if rejected > 0 {
		words = append(words, many(rejected, "refusal")+" of the token by an upstream")
	}
	p.Text = strings.Join(words, ", ")
	asked, vain := sum(h.TokenRequests), sum(h.TokenFailures)
	p.Denied, p.Failed = failed > 0, vain > 0
	p.Asked = many(asked, "token request")
	if asked > 0 {
		p.Asked += ", " + orNone(vain) + " failed"
	}
}

func orNone(n uint64) string {
	if n == 0 {
		return "none"
	}
	return thousands(n)
}

func many(n uint64, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}

// ceiling is the next number that reads well: one digit and zeros.
func ceiling(n uint64) uint64 {
	for unit := uint64(1); unit <= math.MaxUint64/10; unit *= 10 {
		for _, f := range []uint64{1, 2, 3, 4, 5, 6, 8} {
			if n <= f*unit {
				return f * unit
			}
		}
	}
	return n
}

func percentText(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }

func pixels(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
