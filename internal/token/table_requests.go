package token

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// dispatch makes the requests that may be made now. First ones and renewals
// take turns, so that neither has to wait for all of the others.
func (t *Table) dispatch(at instant) {
	for t.inFlight < t.limits.InFlight && t.outage.allows(at) {
		lines := [2]*line{&t.newcomers, &t.due}
		if t.renewal {
			lines[0], lines[1] = lines[1], lines[0]
		}
		f := lines[0].pop()
		if f == nil {
			f = lines[1].pop()
		}
		if f == nil {
			break
		}
		t.renewal = f.first
		t.begin(f, at)
	}
	if t.outage.active(at) {
		t.scheduler.set(t, min(t.outage.until, t.outage.look))
	}
}

// begin makes a request.
func (t *Table) begin(f *fetch, at instant) {
	if f.first {
		t.rate.take(at)
	}
	t.inFlight++
	f.stage = begun
	f.probe = t.outage.failures > 0
	t.outage.probing = f.probe
	ctx, cancel := context.WithCancelCause(context.Background())
	f.cancel = cancel
	go t.run(ctx, f, f.entry.requester)
}

// run makes one request, in a context of its own.
func (t *Table) run(ctx context.Context, f *fetch, r Requester) {
	defer f.cancel(nil)
	res, sent, arrived, err := t.scheduler.ask(ctx, r, Occasion{Reason: f.reason(), Limit: t.policy.Timeout, Held: f.entry.held.load()})

	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	if t.closed {
		return
	}
	if f.probe {
		t.outage.probing = false
	}
	t.finish(f, res, err, sent, arrived)
	t.dispatch(now())
}

// reason is what caused the request.
func (f *fetch) reason() Reason {
	if f.first {
		return Demand
	}
	return Scheduled
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
	f.settle(e.held.p.Load(), err)
	e.reschedule()
}

// succeed publishes what came, unless it is of no use.
func (e *entry) succeed(res *oauth.Response, sent, arrived instant) (same bool, err error) {
	t := e.table
	before := e.held.p.Load()
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
	if t.limits.OnDemand {
		e.requester = nil // it may hold the client's own token
	}
	return same, nil
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
	held, failures := e.held.p.Load() != nil, e.fetch.failures+1
	if t.concernsAll(failure) {
		t.suffer(failure, e.requester, sent, at)
		e.next, failures = t.outage.until, t.outage.failures
	} else {
		e.next = at.add(max(t.pause(failure, failures, held), retryAfter(failure.RetryAfter, t.random)))
		if held {
			e.fetch = &fetch{entry: e, failures: failures, failure: failure}
		} else {
			t.refused.add(refusal{e.key, e.next, failure}, at)
		}
		if answered(failure) {
			t.outage.over(sent)
		}
	}
	snap := e.snapshot(failure, failures)
	if !held {
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
