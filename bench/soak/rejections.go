package main

import (
	"slices"
	"time"
)

// rejections judges the 401s that reached a client.
//
// One is justified if its token had been revoked, and
//   - through the handler: the request had begun before the first 401 for that
//     token was back at a client, which is what is in flight; or
//   - there was no way to another token at that time: a token request failed or
//     was held up, a Retry-After stood in the way, or the credential had had a
//     token refused before, which spaces its refreshes.
//
// The transport sends a request again with the new token, so that there what is
// in flight is no excuse.
type rejections struct {
	book  *book
	ttl   time.Duration
	share bool
	first map[key]time.Time // the upstream's first 401, by process and token
	back  map[key]time.Time // the first that came through the handler
	asks  map[string][]*ask // by credential
	past  map[string][]time.Time
}

const inFlight = "401: in flight"

// holdUp is how long behind a failed token request the next may have to wait for
// what that one brought about: its backoff, or a Retry-After.
const holdUp = 15 * time.Second

func newRejections(b *book, ttl time.Duration, share bool) *rejections {
	r := &rejections{book: b, ttl: ttl, share: share, first: make(map[key]time.Time), back: make(map[key]time.Time), asks: make(map[string][]*ask), past: make(map[string][]time.Time)}
	for _, one := range b.refusals {
		k, at := key{one.Process, one.Token}, time.Unix(0, one.At)
		if before, is := r.first[k]; one.Verdict == verdictInactive && (!is || at.Before(before)) {
			r.first[k] = at
		}
	}
	for _, s := range b.samples {
		k := key{s.process, s.token}
		if before, is := r.back[k]; s.outcome == unauthorized && s.way == "handler" && (!is || s.ended.Before(before)) {
			r.back[k] = s.ended
		}
	}
	for _, a := range b.asks {
		r.asks[a.credential] = append(r.asks[a.credential], a)
		if at, is := b.revoked[a.token]; is {
			r.past[a.credential] = append(r.past[a.credential], at)
		}
	}
	return r
}

func (r *rejections) judge(s sample) (verdict, string) {
	revoked, is := r.book.revoked[s.token]
	switch {
	case !is && r.expiredOnTheWay(s):
		return unclear, "401: the token ended on the way"
	case !is:
		return unjustified, "401: no token was revoked"
	case s.ended.Before(revoked):
		return unjustified, "401: the token was revoked later"
	}
	k := key{s.process, s.token}
	first, is := r.first[k]
	if !is {
		return unclear, "401: the upstream does not know it"
	}
	switch back := r.back[k]; {
	case s.way == "handler" && !s.began.After(back):
		return justified, inFlight
	case r.heldUp(s, first):
		return justified, "401: no other token to be had"
	case s.way != "handler":
		return unjustified, "401: not sent again with another token"
	case s.began.Before(back.Add(tolerance)):
		return unclear, "401: hardly in flight"
	}
	return unjustified, "401: not in flight, and there was another token to be had"
}

// heldUp tells whether something stood between the process and another token,
// from the first 401 to the end of the request.
func (r *rejections) heldUp(s sample, first time.Time) bool {
	from := first.Add(-holdUp)
	for _, a := range r.asks[s.credential] {
		ended := a.ended
		if ended.IsZero() {
			ended = s.ended
		}
		mine := a.process == s.process || r.share
		failed := a.delivered.IsZero() || ended.Sub(a.arrived) > tolerance
		if mine && failed && a.arrived.Before(s.ended) && ended.After(from) {
			return true
		}
		if mine && a.token == s.token && a.delivered.Add(tolerance).After(first) {
			return true // too soon after the one that was refused
		}
	}
	for _, w := range r.book.windows {
		switch w.kind {
		case serverKilled, caddyRestarted, caddyReloaded:
			// the token request may not even have come to the proxy
			if s.ended.After(w.from) && w.end().After(first) {
				return true
			}
		}
	}
	return slices.ContainsFunc(r.past[s.credential], func(at time.Time) bool {
		return at.Before(r.book.revoked[s.token]) && at.Add(3*r.ttl).After(first)
	})
}

func (r *rejections) expiredOnTheWay(s sample) bool {
	return slices.ContainsFunc(r.book.refusals, func(one refusal) bool {
		return one.Number == s.number && one.Verdict == verdictExpired
	})
}

// inOrder are the samples as their answers came.
func (b *book) inOrder() []sample {
	all := slices.Clone(b.samples)
	slices.SortFunc(all, func(a, b sample) int { return a.ended.Compare(b.ended) })
	return all
}
