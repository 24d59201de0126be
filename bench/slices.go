package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// lane is one address of a contest, and the process behind it.
type lane struct {
	name string
	// bare puts no token on, and ours is this module.
	bare, ours bool
	group      int // the process group whose time counts
	target     *target
	crowd      *crowd

	taken  []*slice // by round; nil if it was thrown away
	thrown int
	failed int // requests, of all slices
}

// slice is a short load on one lane: each caller has the next request sent as
// soon as the last one is answered.
type slice struct {
	requests int
	length   time.Duration
	cpu      time.Duration   // of the process that was measured
	times    []time.Duration // the shortest first
}

// each is the processor time of one request, in µs.
func (s *slice) each() float64 {
	return float64(s.cpu) / float64(time.Microsecond) / float64(s.requests)
}

// perSecond is how many were answered a second.
func (s *slice) perSecond() float64 { return float64(s.requests) / s.length.Seconds() }

// busy is the part of the time in which the process ran; 1 is one processor.
func (s *slice) busy() float64 { return float64(s.cpu) / float64(s.length) }

// p99 is in milliseconds.
func (s *slice) p99() float64 {
	return float64(quantile(s.times, 0.99)) / float64(time.Millisecond)
}

// contest gives each lane one slice a round, in an order of chance. The first is
// the reference, and the second the same thing once more: the figures that are
// compared are those of one round, and what comes out when the reference is
// compared with itself is the noise that is left.
type contest struct {
	lanes  []*lane
	rounds int
	length time.Duration
	random *rand.Rand

	all, unseen time.Duration // of all the processors, in all slices
}

const (
	// settling is waited before a slice, for what is left of the last one, and
	// behind it: garbage of its requests is collected on its account.
	settling = 5 * time.Millisecond
	// attempts is how often a slice is taken in a round, if it is thrown away.
	attempts = 3
)

// run first gives each a slice that does not count: caches are cold, heaps small.
func (c *contest) run(ctx context.Context) error {
	for round := range c.rounds + 1 {
		for _, i := range c.random.Perm(len(c.lanes)) {
			l := c.lanes[i]
			if round == 0 {
				if _, _, err := c.take(l); err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
				continue
			}
			var kept *slice
			for n := 0; n < attempts && kept == nil; n++ {
				if err := ctx.Err(); err != nil {
					return err
				}
				s, foreign, err := c.take(l)
				if err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
				if foreign > share(*sliceOthers) {
					l.thrown++
					continue
				}
				kept = s
			}
			l.taken = append(l.taken, kept)
		}
	}
	return nil
}

// take is one slice, and what part of the processors others took meanwhile.
func (c *contest) take(l *lane) (*slice, share, error) {
	l.crowd.open()
	without, requests := l.target.without.Load(), l.target.requests.Load()
	time.Sleep(settling)
	w, err := watchMachine()
	if err != nil {
		return nil, 0, err
	}
	p := l.crowd.press(c.length)
	time.Sleep(settling)
	seen, err := w.end(l.group)
	if err != nil {
		return nil, 0, err
	}
	c.all += seen.all
	c.unseen += seen.unseen
	l.failed += p.failed
	s := &slice{requests: len(p.times) + p.failed, length: p.length, cpu: seen.proxy, times: p.times}
	slices.Sort(s.times)
	if len(s.times) == 0 {
		return nil, 0, fmt.Errorf("none of %d requests was answered with 200", p.failed)
	}
	without, requests = l.target.without.Load()-without, l.target.requests.Load()-requests
	if l.bare && without < requests || !l.bare && without > 0 {
		return nil, 0, fmt.Errorf("%d of %d requests came to the API without a token", without, requests)
	}
	return s, seen.foreign(), nil
}

// figures are those of all slices that were kept.
func (l *lane) figures(of func(*slice) float64) []float64 {
	var out []float64
	for _, s := range l.taken {
		if s != nil {
			out = append(out, of(s))
		}
	}
	return out
}

// beside are a lane's figures, divided by another's of the same round.
func (l *lane) beside(other *lane, of func(*slice) float64) []float64 {
	var out []float64
	for round, s := range l.taken {
		if s != nil && other.taken[round] != nil {
			out = append(out, of(s)/of(other.taken[round]))
		}
	}
	return out
}

// overall is the processor time of a request in all slices together, in µs. A
// heap that is collected in few of them shows here, and not in a median.
func (l *lane) overall() float64 {
	whole := new(slice)
	for _, s := range l.taken {
		if s != nil {
			whole.cpu += s.cpu
			whole.requests += s.requests
		}
	}
	return whole.each()
}

// times are those of all its slices, the shortest first.
func (l *lane) times() []time.Duration {
	var out []time.Duration
	for _, s := range l.taken {
		if s != nil {
			out = append(out, s.times...)
		}
	}
	slices.Sort(out)
	return out
}

// named is the lane of that name; nil if there is none.
func (c *contest) named(name string) *lane {
	for _, l := range c.lanes {
		if l.name == name {
			return l
		}
	}
	return nil
}

// hidden is the share of the processors that went to nobody who is known. The
// machine's own count is in ticks: it may come to less than the clocks of all
// processes.
func (c *contest) hidden() share { return share(max(0, c.unseen)) / share(max(1, c.all)) }

// void says why a contest is no measure; "" if it is one.
func (c *contest) void() string {
	floor := estimateOf(c.lanes[1].beside(c.lanes[0], (*slice).each))
	switch {
	case floor.n < fewest:
		return fmt.Sprintf("%d rounds are left, of %d, in which others left the processors alone: too few", floor.n, c.rounds)
	case floor.excludes(1):
		return fmt.Sprintf("%s, beside itself, comes to %s", c.lanes[0].name, floor)
	case c.hidden() > mostForeign:
		return fmt.Sprintf("%s of the processors went to processes too short-lived to be seen", c.hidden())
	}
	return ""
}
