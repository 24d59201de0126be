package token

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// dispatch makes the requests that may be made now. The lines take turns, so
// that none has to wait for all of another.
func (t *Table) dispatch(at instant) {
	for t.inFlight < t.limits.InFlight && t.outage.allows(at) {
		f := t.first()
		if f == nil {
			break
		}
		t.begin(f, at)
	}
	if t.outage.active(at) {
		t.scheduler.set(t, min(t.outage.until, t.outage.look))
	}
}

// first takes out whose turn it is, nil if nobody waits.
func (t *Table) first() *fetch {
	lines := [...]*line{&t.newcomers, &t.due, &t.rejected}
	for range lines {
		l := lines[t.turn]
		t.turn = (t.turn + 1) % len(lines)
		if f := l.pop(); f != nil {
			return f
		}
	}
	return nil
}

// begin makes a request.
func (t *Table) begin(f *fetch, at instant) {
	switch e := f.entry; {
	case f.first:
		t.rate.take(at)
	case f.rejected:
		t.again.take(at)
		e.suspicion.space(at)
	}
	t.inFlight++
	f.stage = begun
	f.probe = t.outage.failures > 0
	t.outage.probing = f.probe
	ctx, cancel := context.WithCancelCause(context.Background())
	f.cancel = cancel
	go t.run(ctx, f, f.entry.requester, f.entry.occasion(f, at))
}

// run makes one request, in a context of its own.
func (t *Table) run(ctx context.Context, f *fetch, r Requester, on Occasion) {
	defer f.cancel(nil)
	res, sent, arrived, err := t.scheduler.ask(ctx, r, on)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	if t.closed {
		t.handOver(f, res, err, sent, arrived)
		return
	}
	if f.probe {
		t.outage.probing = false
	}
	t.finish(f, res, err, sent, arrived)
	t.dispatch(now())
}

// handOver is Source.handOver for one value.
func (t *Table) handOver(f *fetch, res *oauth.Response, err error, sent, arrived instant) {
	if err != nil {
		f.settle(nil, err)
		return
	}
	tok, _ := t.policy.take(res, nil, sent, arrived, t.random)
	if !tok.valid() {
		f.settle(nil, &oauth.Failure{Kind: oauth.Unreachable, Err: errTooSlow})
		return
	}
	f.settle(tok, nil)
}

// reason is what caused the request.
func (f *fetch) reason() Reason {
	switch {
	case f.first:
		return Demand
	case f.rejected:
		return Rejected
	}
	return Scheduled
}

// occasion is what is known of the value when its request is begun.
func (e *entry) occasion(f *fetch, at instant) Occasion {
	on := Occasion{Reason: f.reason(), Cause: f.cause, Limit: e.table.policy.Timeout, Held: e.current(at)}
	if s := e.suspicion; s != nil {
		on.Suspect, s.spared = s.suspect, false
	}
	return on
}

// finish takes in what came of a request.
func (t *Table) finish(f *fetch, res *oauth.Response, err error, sent, arrived instant) {
	e := f.entry
	attempt := Attempt{Reason: f.reason(), Took: arrived.sub(sent), Bearer: true}
	if err == nil {
		attempt.Bearer = res.Bearer
		attempt.Same, err = e.succeed(res, sent, arrived)
	}
	if err == nil {
		t.obtained = time.Now()
		t.outage.over(sent)
		attempt.Snapshot = e.snapshot(nil, 0)
	} else {
		failure := asFailure(err)
		err = failure
		attempt.Snapshot = e.fail(failure, sent, arrived)
	}
	t.observer.Attempted(attempt)
	e.giveBack()
	tok := e.held.p.Load()
	if err != nil && tok.valid() {
		err = nil // who waited for another one gets this
	}
	f.settle(tok, err)
	e.reschedule()
}

// succeed publishes what came, unless it is of no use.
func (e *entry) succeed(res *oauth.Response, sent, arrived instant) (same bool, err error) {
	t := e.table
	before := e.newest()
	tok, due := t.policy.take(res, before, sent, arrived, t.random)
	same = before != nil && before.Value == tok.Value
	if t.limits.OnDemand {
		tok.until = min(tok.until, tok.end) // an assumed end counts as well
		due = tok.until
	}
	if arrived >= tok.until {
		return same, &oauth.Failure{Kind: oauth.Unreachable, Err: errTooSlow}
	}
	tok.granted = t.shared(tok.granted)
	e.hold(tok)
	e.next = due
	e.trust(same)
	e.giveUpRequester()
	return same, nil
}

// giveUpRequester drops what may hold the client's own token.
func (e *entry) giveUpRequester() {
	if e.table.limits.OnDemand {
		e.requester = nil
	}
}

// shared has the tokens of one credential, which are mostly granted the same,
// share what is known of that.
func (t *Table) shared(g *granted) *granted {
	if g != nil && t.granted != nil && slices.Equal(g.scopes, t.granted.scopes) && slices.Equal(g.missing, t.granted.missing) {
		return t.granted
	}
	t.granted = g
	return g
}

// glitch is how long a failure of one value is remembered that cost the server
// nothing, or that may have come from something in between.
const glitch = time.Second

// fail notes a failure. A value without a token loses its place.
func (e *entry) fail(failure *oauth.Failure, sent, at instant) Snapshot {
	t := e.table
	held, failures := e.newest(), e.fetch.failures+1
	if t.concernsAll(failure) {
		t.suffer(failure, e.requester, sent, at)
		e.next, failures = t.outage.until, t.outage.failures
	} else {
		floor := at.add(retryAfter(failure.RetryAfter, t.random))
		e.next = max(at.add(t.pause(failure, failures, held != nil)), floor)
		if held != nil {
			e.fetch = &fetch{entry: e, failures: failures, failure: failure, floor: floor}
		} else {
			t.refused.add(memo[*oauth.Failure]{e.key, e.next, failure}, at)
		}
		if answered(failure) {
			t.outage.over(sent)
		}
	}
	if t.limits.OnDemand && held != nil {
		e.next = held.until // it is not tried again without a client's own
		e.giveUpRequester()
	}
	snap := e.snapshot(failure, failures)
	if held == nil {
		t.remove(e)
	}
	return snap
}

// pause is for how long one value is not asked for again.
func (t *Table) pause(failure *oauth.Failure, failures int, held bool) time.Duration {
	switch {
	case held:
		return backoff(failure.Kind, failures, true, t.random)
	case answered(failure):
		return t.limits.Remember
	}
	return glitch
}

// answered tells whether the server has said no, to a client that it knows.
func answered(f *oauth.Failure) bool { return f.Kind == oauth.Refused && f.Status != 0 }

// concernsAll tells whether a failure is not about one value: then all that
// have no token wait for the server, or for the one who can mend the secret.
func (t *Table) concernsAll(f *oauth.Failure) bool {
	if t.limits.OnDemand && errors.Is(f, errTooSlow) {
		return false // as short as the client's own
	}
	return f.Kind == oauth.Unreachable || refusesClient(f)
}

// refusesClient tells whether a server refuses whoever asks (RFC 6749 §5.2);
// some say so by the status alone.
func refusesClient(f *oauth.Failure) bool {
	return f.Code == "invalid_client" || f.Status == http.StatusUnauthorized && f.Code == ""
}
