//go:build !race

package token

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// dayReport is what came of a fleet's day.
type dayReport struct {
	name   string
	server *authority
	fleet  map[time.Duration]int // instances, by the lifetime of their tokens

	mu       sync.Mutex
	requests map[time.Duration]int // for a token
	tokens   map[time.Duration]int // that came
	ready    time.Duration         // when the last instance had its first token

	made    int // requests to the API
	expired int // of which the API saw a token that had ended
	// Sent away without a token:
	withValid int           // by one that had been given one, with more than its margin left
	inMargin  int           // by one whose token was in its last seconds
	inTrouble int           // while the server gave none, or soon after
	early     int           // before the first token
	other     int           // none of these
	longest   time.Duration // that one waited
	back      map[string]time.Duration
}

// soon is how long after a trouble requests without a token may be due to it.
const soon = 10 * time.Minute

func newDayReport(name string, lives []time.Duration, troubles []trouble) *dayReport {
	r := &dayReport{name: name, server: newAuthority(troubles), fleet: make(map[time.Duration]int),
		requests: make(map[time.Duration]int), tokens: make(map[time.Duration]int), back: make(map[string]time.Duration)}
	for _, life := range lives {
		r.fleet[life]++
	}
	return r
}

// ask makes a token request.
func (r *dayReport) ask(at, life, timeout time.Duration) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.server.ask(at, life, timeout)
	r.requests[life]++
	if got.end > 0 {
		r.tokens[life]++
	}
	return got
}

// first notes when an instance got its first token.
func (r *dayReport) first(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = max(r.ready, at)
}

// sent notes a request that carried a token with that end.
func (r *dayReport) sent(at, waited, underWay, end time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	r.longest = max(r.longest, waited)
	if at+underWay >= end {
		r.expired++
	}
}

// turnedAway notes a request that got no token. end is that of the token which
// its instance was given last, 0 if it was given none.
func (r *dayReport) turnedAway(at, waited, end, margin time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	r.longest = max(r.longest, waited)
	t := r.server.troubleAt(at, soon)
	switch left := end - at; {
	case end == 0:
		r.early++
	case left > margin+slowAnswer: // its life counts from the sending, and so ends that much sooner
		r.withValid++
	case left > 0:
		r.inMargin++
	case t != nil:
		r.inTrouble++
	default:
		r.other++
	}
	if t != nil {
		r.back[t.name] = max(r.back[t.name], at-t.to)
	}
}

// peak is the most token requests in one second of a part of the day.
func (r *dayReport) peak(from, to time.Duration) int {
	return slices.Max(r.server.received[from/time.Second : to/time.Second])
}

// after is the peak in the hour after a trouble.
func (r *dayReport) after(t trouble) int { return r.peak(t.to, t.to+time.Hour) }

func (r *dayReport) total() (requests, tokens int) {
	for life := range r.fleet {
		requests += r.requests[life]
		tokens += r.tokens[life]
	}
	return requests, tokens
}

// renewals are the tokens behind the first ones, for each lifetime that the day
// is long.
func (r *dayReport) renewals(life time.Duration) float64 {
	return float64(r.tokens[life]-r.fleet[life]) / r.lifetimes(life)
}

func (r *dayReport) lifetimes(life time.Duration) float64 {
	return float64(r.fleet[life]) * dayLength.Hours() / life.Hours()
}

// dayTable sets two days side by side, in Markdown.
func dayTable(a, b *dayReport) string {
	var s strings.Builder
	row := func(what string, cell func(*dayReport) string) {
		fmt.Fprintf(&s, "| %s | %s | %s |\n", what, cell(a), cell(b))
	}
	count := func(what string, of func(*dayReport) int) {
		row(what, func(r *dayReport) string { return fmt.Sprint(of(r)) })
	}
	row("", func(r *dayReport) string { return r.name })
	row("---", func(*dayReport) string { return "---" })
	count("requests to the API", func(r *dayReport) int { return r.made })
	count("… that came with an expired token", func(r *dayReport) int { return r.expired })
	count("… sent away while the instance had a valid token", func(r *dayReport) int { return r.withValid })
	count("… sent away in the last 10 s of a token, its `expiry_margin`", func(r *dayReport) int { return r.inMargin })
	count("… sent away without a token, the server giving none", func(r *dayReport) int { return r.inTrouble })
	count("… sent away before the first token", func(r *dayReport) int { return r.early })
	count("… sent away else", func(r *dayReport) int { return r.other })
	row("longest wait for a token", func(r *dayReport) string { return seconds(r.longest) })
	row("all instances have a token, after the start", func(r *dayReport) string { return seconds(r.ready) })
	count("token requests", func(r *dayReport) int { n, _ := r.total(); return n })
	count("… that brought a token", func(r *dayReport) int { _, n := r.total(); return n })
	for _, life := range dayLives {
		row(fmt.Sprintf("renewals a lifetime, of %s; with those that failed", short(life)), func(r *dayReport) string {
			return fmt.Sprintf("%.2f; %.2f", r.renewals(life), float64(r.requests[life]-r.fleet[life])/r.lifetimes(life))
		})
	}
	count("token requests in a second, at most, in the first minute", func(r *dayReport) int { return r.peak(0, time.Minute) })
	count("… from 20:00 on, long after all trouble", func(r *dayReport) int { return r.peak(20*time.Hour, dayLength) })
	for _, t := range a.server.troubles {
		count("… during “"+t.name+"”", func(r *dayReport) int { return r.peak(t.from, t.to) })
		count("… in the hour after", func(r *dayReport) int { return r.after(t) })
		row("the last request sent away because of it, after its end", func(r *dayReport) string { return seconds(r.back[t.name]) })
	}
	return s.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func short(life time.Duration) string {
	if life < time.Hour {
		return fmt.Sprintf("%.0f min", life.Minutes())
	}
	return fmt.Sprintf("%.0f h", life.Hours())
}
