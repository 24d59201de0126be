package main

import (
	"fmt"
	"time"
)

// aftermath is how long behind an event what came of it is put down to it.
const aftermath = 5 * time.Second

// longestOutage is how long an outage may last for Caddy after it is over for
// the server: one step of the backoff at its longest, and what a 429 asks for,
// with the half that is put on top.
const longestOutage = time.Minute + retryAfter*1500*time.Millisecond + aftermath

// judged is a failed request, and what it was put down to.
type judged struct {
	sample
	verdict verdict
	why     string
	kind    string // of the fault
}

// findings are what a run shows.
type findings struct {
	*book
	hands     map[key]*hands
	failures  []judged
	expired   []refusal // surely sent with an expired token
	strange   []refusal // with no token, another's, or a body that was changed
	overtaken int       // sent with one that ended on the way
	outages   []outage
}

// judge makes findings of a book that is complete.
func (b *book) judge(ttl time.Duration, share bool) *findings {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &findings{book: b, hands: b.holdings()}
	by := make(map[int]sample)
	for _, s := range b.samples {
		by[s.number] = s
	}
	f.judgeEnds(by)
	judge401 := newRejections(b, ttl, share)
	for _, s := range b.samples {
		j := judged{sample: s, kind: b.putDown(s)}
		switch s.outcome {
		case good:
			continue
		case ours:
			j.verdict = f.hands[key{s.process, s.credential}].fails(s.from, s.at)
			j.why = "no token"
		case unauthorized:
			j.verdict, j.why = judge401.judge(s)
		case refused:
			j.verdict, j.why = b.during(s, true, caddyRestarted), "nobody listens"
		case theirs:
			j.verdict, j.why = b.during(s, true, upstreamKilled, caddyRestarted), "the upstream"
		case broken:
			j.verdict, j.why = b.during(s, false, caddyRestarted, caddyReloaded, upstreamKilled), "broken off"
		case late:
			j.verdict, j.why = unclear, "no answer"
		default:
			j.verdict, j.why = unjustified, "odd"
		}
		if j.verdict == unjustified && b.noisy(s.began, s.ended) {
			j.verdict = unclear
		}
		f.failures = append(f.failures, j)
	}
	f.outages = b.outages()
	return f
}

// judgeEnds looks for requests that reached the upstream with an expired token,
// or with one that nobody had been given. One that the client began before the
// token's end may have been overtaken by it on its way, which is told apart.
func (f *findings) judgeEnds(by map[int]sample) {
	given := make(map[string]*ask)
	for _, a := range f.asks {
		if a.token != "" {
			given[a.token] = a
		}
	}
	for _, r := range f.refusals {
		a, at, exp := given[r.Token], time.Unix(0, r.At), time.Unix(r.Exp, 0)
		if a == nil || r.Verdict == verdictBody {
			f.strange = append(f.strange, r)
			continue
		}
		if r.Exp == 0 { // the upstream never heard of its end, which is known to a second
			exp = a.arrived.Add(a.life)
			if at.Before(exp.Add(-time.Second)) {
				if _, revoked := f.revoked[r.Token]; r.Verdict == verdictInactive && !revoked {
					f.strange = append(f.strange, r)
				}
				continue
			}
		} else if r.Verdict != verdictExpired {
			// where the machine was slow, it may have been judged after its end
			if _, revoked := f.revoked[r.Token]; !revoked && !f.noisy(at, exp) {
				f.strange = append(f.strange, r)
			}
			continue
		}
		if s, is := by[r.Number]; is && s.began.Before(exp) {
			f.overtaken++
			continue
		}
		f.expired = append(f.expired, r)
	}
}

// during tells whether one of these things can explain a failure. Where there is
// doubt that they are the whole of it, that is so with those that must not
// happen.
func (b *book) during(s sample, certain bool, kinds ...string) verdict {
	for _, w := range b.windows {
		for _, kind := range kinds {
			if w.kind == kind && s.began.Before(w.end().Add(aftermath)) && s.ended.After(w.from) {
				return justified
			}
		}
	}
	if certain {
		return unjustified
	}
	return unclear
}

// end is when it was over; for one that is not, never.
func (w *window) end() time.Time {
	if w.to.IsZero() {
		return w.from.Add(time.Hour)
	}
	return w.to
}

// putDown is the kind of fault that a request falls to: one that lasts while it
// is sent, those of the processes first, or else, for one that failed, the last
// that is over.
func (b *book) putDown(s sample) string {
	best, kind := time.Time{}, calm
	for _, w := range b.windows {
		if !w.touches(s.credential) || s.began.Before(w.from) {
			continue
		}
		if s.began.Before(w.end()) {
			if w.lane == 0 {
				return w.kind
			}
			best, kind = w.end(), w.kind
			continue
		}
		over := w.end()
		if s.outcome != good && over.After(best) && s.began.Before(over.Add(longestOutage)) {
			best, kind = over, w.kind
		}
	}
	return kind
}

// outage is a time in which a process of an instance had no token for a
// credential, as the clients saw it.
type outage struct {
	instance   int
	credential string
	kind       string
	from, to   time.Time     // of the first failure, of the first good answer
	after      time.Duration // that, since all was well with the server
	ended      bool
	noisy      bool // so that its length means nothing
}

// outages finds them. All is well when the last fault of the credential is over,
// and the operator has logged in anew where that was needed.
func (b *book) outages() []outage {
	type line struct {
		instance   int
		credential string
	}
	open := make(map[line]*outage)
	var all []outage
	for _, s := range b.inOrder() {
		l := line{s.instance, s.credential}
		o := open[l]
		switch {
		case s.outcome == ours && o == nil:
			open[l] = &outage{instance: s.instance, credential: s.credential, kind: b.putDown(s), from: s.ended}
		case s.outcome == good && o != nil && s.began.After(o.from):
			o.to, o.ended = s.ended, true
			o.after = o.to.Sub(b.wellBefore(o))
			o.noisy = b.noisy(o.from, o.to)
			all = append(all, *o)
			delete(open, l)
		}
	}
	for _, o := range open {
		all = append(all, *o)
	}
	return all
}

// wellBefore is when nothing stood in the way of a token any more.
func (b *book) wellBefore(o *outage) time.Time {
	well := o.from
	later := func(t time.Time) {
		if t.After(well) && t.Before(o.to) {
			well = t
		}
	}
	for _, w := range b.windows {
		if w.touches(o.credential) && w.from.Before(o.to) {
			if w.end().After(o.to) {
				later(w.from) // it recovered in spite of it
			} else {
				later(w.to)
			}
		}
	}
	if o.credential == refreshing {
		for _, l := range b.logins {
			later(l.at)
		}
	}
	return well
}

func (o outage) String() string {
	return fmt.Sprintf("%s at %d, %s", o.credential, o.instance, o.kind)
}
