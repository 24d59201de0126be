//go:build !race

package token

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// The rule of Envoy's credential injector for OAuth 2.0: a token is asked for
// again at half of its lifetime, and two seconds after any failure, whatever
// Retry-After says; it is used to its end (the kinder reading: some versions use
// it beyond); a request that finds none is sent away at once.
const envoyRetry = 2 * time.Second

// envoy is an instance that keeps to that rule.
type envoy struct {
	life   time.Duration
	next   time.Duration // when it asks for a token
	end    time.Duration // of the token in use, 0 if it had none yet
	comes  time.Duration // when the answer under way comes, with a token
	brings time.Duration // that ends at this moment, 0 if none is under way
	serves time.Duration // when it sends its next request to the API
	rnd    *rand.Rand
}

// envoys is a heap by the moment of the next token request.
type envoys []*envoy

func (e envoys) Len() int           { return len(e) }
func (e envoys) Less(i, j int) bool { return e[i].next < e[j].next }
func (e envoys) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *envoys) Push(any)          { panic("the fleet does not grow") }
func (e *envoys) Pop() any          { panic("the fleet does not shrink") }

// envoyDay is the day of a fleet that keeps to the rule.
func envoyDay(lives []time.Duration, troubles []trouble) *dayReport {
	report := newDayReport("Envoy's rule", lives, troubles)
	fleet := make(envoys, len(lives))
	for n, life := range lives {
		rnd := seeded(traffic + n)
		at := between(rnd, 0, startWithin)
		fleet[n] = &envoy{life: life, next: at, serves: at, rnd: rnd}
	}
	heap.Init(&fleet)
	for fleet[0].next < dayLength {
		e := fleet[0]
		at := e.next
		e.serve(at, report)
		got := report.ask(at, e.life, DefaultTimeout)
		e.next = at + got.took + envoyRetry
		if got.end > 0 {
			e.comes, e.brings = at+got.took, got.end
			e.next = e.comes + e.life/2
			if e.end == 0 {
				report.first(e.comes)
			}
		}
		heap.Fix(&fleet, 0)
	}
	for _, e := range fleet {
		e.serve(dayLength, report)
	}
	return report
}

// serve sends the requests to the API up to a moment.
func (e *envoy) serve(until time.Duration, report *dayReport) {
	for e.serves < until {
		at := e.serves
		if e.brings > 0 && at >= e.comes {
			e.end, e.brings = e.brings, 0
		}
		if at < e.end {
			report.sent(at, 0, between(e.rnd, 0, travel), e.end)
		} else {
			report.turnedAway(at, 0, e.end, 0)
		}
		e.serves += gap(e.rnd, at, e.end)
	}
	if e.brings > 0 && until >= e.comes {
		e.end, e.brings = e.brings, 0
	}
}
