package caddymodule

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// minutes is how long a history reaches back.
const minutes = 60

// hour is what a credential has done in the last hour, minute by minute: the
// last value of each series is of the minute that is not over yet.
type hour struct {
	// Until is when the last minute ends, or now.
	Until time.Time `json:"until"`
	// Requests are all that came for this credential. Failures are those among
	// them that were turned away for want of a token or kept from an upstream;
	// Rejected are answers of upstreams that refused the token.
	Requests []uint64 `json:"requests"`
	Failures []uint64 `json:"failures"`
	Rejected []uint64 `json:"rejected"`
	// TokenRequests are all that have ended, TokenFailures those that brought no
	// token.
	TokenRequests []uint64 `json:"token_requests"`
	TokenFailures []uint64 `json:"token_failures"`
}

// tally is what has been counted.
type tally [5]uint64

func (t tally) minus(o tally) tally {
	for i := range t {
		t[i] -= min(o[i], t[i])
	}
	return t
}

// history remembers, once a minute, what a credential's counters show: so a
// request costs no more for it.
type history struct {
	name  string
	slept func() time.Duration // for how long the machine was suspended
	asked atomic.Uint64        // token requests that have ended
	vain  atomic.Uint64        // those among them that failed

	mu     sync.Mutex
	users  int                // entries of that name
	ended  bool               // its series are gone, and are not to be made anew by reading them
	past   [minutes - 1]tally // whole minutes, oldest first
	before tally              // all that is in them, and in those before
	since  time.Time          // the beginning of the minute that is not over
}

func newHistory(name string) *history {
	h := &history{name: name, slept: token.Slept}
	h.since = h.now()
	h.before = h.count()
	return h
}

// attempted counts a token request that has ended.
func (h *history) attempted(failed bool) {
	h.asked.Add(1)
	if failed {
		h.vain.Add(1)
	}
}

// turn ends the minutes that are over.
func (h *history) turn(now time.Time) {
	over := int(now.Sub(h.since) / time.Minute)
	if over <= 0 {
		return
	}
	all := h.count()
	h.since = h.since.Add(time.Duration(over) * time.Minute)
	for n := range min(over, len(h.past)) {
		var last tally // of a machine that slept: what it counted before
		if n == 0 {
			last = all.minus(h.before)
		}
		copy(h.past[:], h.past[1:])
		h.past[len(h.past)-1] = last
	}
	h.before = all
}

// sample is to be called once a minute.
func (h *history) sample() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(h.now())
}

// now is on a clock that goes on while the machine is suspended, which the
// monotonic one does not.
func (h *history) now() time.Time { return time.Now().Add(h.slept()) }

// hour is the last hour.
func (h *history) hour() *hour {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(h.now())
	all := append(slices.Clone(h.past[:]), h.count().minus(h.before))
	series := func(i int) []uint64 {
		out := make([]uint64, len(all))
		for n, t := range all {
			out[n] = t[i]
		}
		return out
	}
	return &hour{
		Until: moment(time.Now()), Requests: series(0), Failures: series(1), Rejected: series(2), TokenRequests: series(3), TokenFailures: series(4),
	}
}

// count reads the credential's counters.
func (h *history) count() tally {
	if h.ended {
		return h.before
	}
	var t tally
	for o := range outcomes {
		n := counterValue(requests.WithLabelValues(h.name, outcome(o).String()))
		t[0] += n
		if outcome(o) == unavailable || outcome(o) == upstreamDenied {
			t[1] += n
		}
	}
	for _, action := range actions {
		t[2] += counterValue(upstreamUnauthorized.WithLabelValues(h.name, action))
	}
	t[3], t[4] = h.asked.Load(), h.vain.Load()
	return t
}

func counterValue(c prometheus.Counter) uint64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return 0
	}
	return uint64(m.GetCounter().GetValue())
}

// histories are those of the live credentials, by name: they survive a reload
// that changes one.
type histories struct {
	mu     sync.Mutex
	byName map[string]*history
	timer  *time.Timer // nil while there is none
}

var pasts = &histories{byName: make(map[string]*history)}

// take is the history of a name, to be dropped again.
func (s *histories) take(name string) *history {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byName[name]
	if !ok {
		h = newHistory(name)
		s.byName[name] = h
	}
	h.users++
	if s.timer == nil {
		s.timer = time.AfterFunc(time.Minute, s.sample)
	}
	return h
}

// drop has to come before the name's series go.
func (s *histories) drop(h *history) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	delete(s.byName, h.name)
	if len(s.byName) == 0 {
		s.timer.Stop()
		s.timer = nil
	}
}

// sample has no goroutine of its own while it rests.
func (s *histories) sample() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return
	}
	for _, h := range s.byName {
		h.sample()
	}
	s.timer.Reset(time.Minute)
}
