package main

import (
	"slices"
	"time"
)

// tolerance is how much later than the soak sees it a token may come into a
// process's hands, and how much earlier it may leave them.
const tolerance = 1500 * time.Millisecond

// span is a time from one moment to another.
type span struct{ from, to time.Time }

// hands are the times in which a process held a valid token of a credential:
// surely, and at the most.
type hands struct{ surely, perhaps []span }

// key tells whose hands.
type key struct{ process, credential string }

// holdings works out who held what.
//
// A token comes into a process's hands when its answer has gone out to it whole,
// or, with share, when the upstream first gets it from that process. It leaves
// them expiry_margin before its end, when it is revoked, or with the process.
// Its end counts from the moment at which its request came to the proxy, so that
// Caddy's own end, which counts from the sending, is never later.
func (b *book) holdings() map[key]*hands {
	tokens := make(map[string]*ask)
	from := make(map[key]map[string]time.Time)
	came := func(k key, token string, at time.Time) {
		if from[k] == nil {
			from[k] = make(map[string]time.Time)
		}
		if before, is := from[k][token]; !is || at.Before(before) {
			from[k][token] = at
		}
	}
	for _, a := range b.asks {
		if a.token != "" {
			tokens[a.token] = a
		}
		if !a.delivered.IsZero() {
			came(key{a.process, a.credential}, a.token, a.delivered)
		}
	}
	for _, s := range b.samples {
		if s.outcome == good && tokens[s.token] != nil {
			came(key{s.process, s.credential}, s.token, s.ended)
		}
	}
	ends := make(map[string]time.Time)
	for _, l := range b.lives {
		ends[l.process] = l.to
	}
	all := make(map[key]*hands)
	for k, held := range from {
		h := new(hands)
		for token, since := range held {
			a := tokens[token]
			until := a.arrived.Add(a.life - margin(a.life))
			for _, end := range []time.Time{b.revoked[token], ends[k.process]} {
				if !end.IsZero() && end.Before(until) {
					until = end
				}
			}
			h.perhaps = append(h.perhaps, span{since, until})
			h.surely = append(h.surely, span{since.Add(tolerance), until.Add(-tolerance)})
		}
		all[k] = h
	}
	return all
}

// union joins spans that overlap, and drops the empty ones.
func union(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var out []span
	for _, s := range spans {
		last := len(out) - 1
		switch {
		case !s.from.Before(s.to):
		case last >= 0 && !s.from.After(out[last].to):
			if s.to.After(out[last].to) {
				out[last].to = s.to
			}
		default:
			out = append(out, s)
		}
	}
	return out
}

// verdict is what is made of a failed request.
type verdict int

const (
	justified verdict = iota
	unclear           // what was noted, on a machine that was busy, does not tell
	unjustified
	verdicts
)

// fails judges a request that a process turned away for want of a token. It is
// unjustified if a token was surely held when the request came, or when it was
// turned away.
func (h *hands) fails(came, answered time.Time) verdict {
	switch {
	case h == nil:
		return justified
	case within(h.surely, came), within(h.surely, answered):
		return unjustified
	case within(h.perhaps, came), within(h.perhaps, answered):
		return unclear
	}
	return justified
}

func within(spans []span, at time.Time) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return !at.Before(s.from) && at.Before(s.to) })
}
