package main

import (
	"fmt"
	"time"
)

const (
	outageRequests = 15                    // to the token endpoint, at most
	outageFailure  = 20 * time.Millisecond // how long a failure may take
	outageWait     = time.Second           // what is counted as a long wait
	// asking is how much earlier than by the server's clock a token may end: a
	// proxy counts from the moment at which it asked for it.
	asking = 20 * time.Millisecond
)

// outageRow is what one proxy did.
type outageRow struct {
	variant    string // what the token endpoint does
	foreign    share
	ours, bare bool
	requests   int
	failed     int // not answered with 200
	valid      int // of those, while a token was valid
	margin     int // of those, in the last tenth of its life
	waits      int // over outageWait, well answered or not
	longest    time.Duration
	tokens     int // requests to the token endpoint
	// what failed without a valid token, or in the last tenth of its life
	failP99, failSlowest time.Duration
	failLate             int           // of those, over outageFailure; of a bare one, of all
	back                 time.Duration // from the return to the first good answer; 0 if none came
	step                 time.Duration // of the backoff then
}

// judgeOutage looks at the calls around an outage.
func judgeOutage(s subject, calls []call, from, to time.Time, tokens []life, requests int) *outageRow {
	during := within(calls, from, to)
	took := times(during)
	r := &outageRow{
		ours: s.ours, bare: s.bare,
		requests: len(during), failed: failures(during), waits: over(took, outageWait), longest: at(took, 100), tokens: requests,
	}
	var without []call
	for _, c := range during {
		left, margin := remaining(tokens, c.sent)
		if c.good() && !s.bare {
			continue
		}
		if left > 0 {
			r.valid++
		}
		if left > 0 && left <= margin {
			r.margin++
		}
		if left <= margin {
			without = append(without, c)
		}
	}
	took = times(without)
	r.failP99, r.failSlowest, r.failLate = at(took, 99), at(took, 100), over(took, outageFailure)
	for _, c := range calls {
		if c.good() && c.answered.After(to) && (r.back == 0 || c.answered.Sub(to) < r.back) {
			r.back = c.answered.Sub(to)
		}
	}
	if requests > 0 {
		r.step = longestBackoff
		if requests <= 6 { // or the step is longer
			r.step = firstBackoff << (requests - 1)
		}
	}
	return r
}

// remaining is what is left of the newest token at a moment, 0 or less without a
// valid one, and the last tenth of its life.
func remaining(tokens []life, when time.Time) (left, tenth time.Duration) {
	for _, t := range tokens {
		if !t.from.After(when) {
			left, tenth = t.until.Sub(when), t.until.Sub(t.from)/10+asking
		}
	}
	return left, tenth
}

func (r *outageRow) cells() []string {
	requests, failed, waits, longest := fmt.Sprint(r.requests), fmt.Sprint(r.failed), fmt.Sprint(r.waits), brief(r.longest)
	if r.bare {
		return []string{requests, failed, "", "", waits, longest, "", "", fmt.Sprint(r.failLate), "", r.again()}
	}
	return []string{
		requests, failed, fmt.Sprint(r.valid), fmt.Sprint(r.margin), waits, longest,
		brief(r.failP99), brief(r.failSlowest), fmt.Sprint(r.failLate), fmt.Sprint(r.tokens), r.again(),
	}
}

// again is when the first good answer came.
func (r *outageRow) again() string {
	if r.back == 0 {
		return "never"
	}
	return brief(r.back)
}

// needless are the failures while a token was valid, but in its last tenth.
func (r *outageRow) needless() int { return r.valid - r.margin }

// limit is the goal of the first good answer.
func (r *outageRow) limit() time.Duration { return r.step + rekindle }

// checks are the goals. A peer has no backoff that its return could be held
// against.
func (r *outageRow) checks(row) []check {
	of := "token endpoint " + r.variant + ", "
	back := check{of + "first good answer after its return", "≤ a step of the backoff", float64(r.back),
		r.again(), r.back > 0 && (!r.ours || r.back <= r.limit())}
	if r.ours {
		back.said += ", the step " + brief(r.step)
	}
	return []check{
		{of + "requests that failed with a valid token, before its last tenth (expiry_margin)", "0", float64(r.needless()), fmt.Sprint(r.needless()), r.needless() == 0},
		{of + "token requests in " + outageLength.String(), fmt.Sprintf("≤ %d", outageRequests), float64(r.tokens), fmt.Sprint(r.tokens), r.tokens <= outageRequests},
		{of + "slowest failure without a token", "≤ " + brief(outageFailure), float64(r.failSlowest), brief(r.failSlowest), r.failLate == 0},
		back,
	}
}

// void is never so: an outage cannot be missed.
func (*outageRow) void() string { return "" }

func (r *outageRow) others() share { return r.foreign }

func worstOutage(a, b *outageRow) *outageRow {
	w := &outageRow{
		variant:     a.variant,
		foreign:     max(a.foreign, b.foreign),
		ours:        a.ours,
		bare:        a.bare,
		requests:    a.requests + b.requests,
		failed:      max(a.failed, b.failed),
		valid:       max(a.valid, b.valid),
		margin:      max(a.margin, b.margin),
		waits:       max(a.waits, b.waits),
		tokens:      max(a.tokens, b.tokens),
		longest:     max(a.longest, b.longest),
		failP99:     max(a.failP99, b.failP99),
		failSlowest: max(a.failSlowest, b.failSlowest),
		failLate:    max(a.failLate, b.failLate),
		back:        max(a.back, b.back),
		step:        max(a.step, b.step),
	}
	if a.back == 0 || b.back == 0 {
		w.back = 0
	}
	return w
}
