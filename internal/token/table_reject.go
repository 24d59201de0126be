package token

import (
	"context"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// suspicion is what a table knows of an upstream that refuses the tokens of one
// value. Few values have one.
type suspicion struct {
	rejection
	token *Token // the one that is withheld
	// wish is when another token is asked for because of it, 0 for not at all;
	// the value is due when it is, whatever comes of that.
	wish instant
}

// Reject is Source.Reject for one value. The token requests so caused have a
// line and a rate of their own: neither new values nor renewals have to wait for
// all of them, however many values an upstream refuses.
//
// requester is as that of Wait, and is called where the entry has kept none.
func (t *Table) Reject(ctx context.Context, key Key, tok *Token, invalid bool, requester func() Requester) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(&key)
	if e == nil {
		return false
	}
	at := now()
	held := e.current(at)
	if held == nil || held.Value != tok.Value {
		return false
	}
	s := e.suspect()
	if e.resting() {
		if wait := e.forbidden(at); at < wait {
			e.wish(wait)
			return false
		}
		if !t.mayAskAgain(at) {
			return false // the next refusal may have more luck
		}
		if e.requester == nil {
			e.requester = requester()
		}
		e.askAgain()
		e.fetch.cause = ctx
		t.dispatch(at)
	}
	if invalid && e.asking() && !s.spared {
		s.withheld, s.token = true, held
		e.held.p.Store(nil)
	}
	return e.underWay(at)
}

// Other is Source.Other for one value.
func (t *Table) Other(ctx context.Context, key Key, tok *Token, most time.Duration) *Token {
	other, f := t.other(key, tok)
	if f == nil {
		return other
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-f.done:
		if f.token != nil && f.token.Value != tok.Value {
			return f.token
		}
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	t.leave(f)
	return nil
}

// other is another token, or the request that may bring one.
func (t *Table) other(key Key, tok *Token) (*Token, *fetch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(&key)
	if e == nil {
		return nil, nil
	}
	at := now()
	switch held := e.current(at); {
	case held != nil && held.Value != tok.Value:
		return held, nil
	case !e.underWay(at):
		return nil, nil
	}
	return nil, e.join()
}

// outwait is Source.outwait for one value.
func (t *Table) outwait(e *entry) (*Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.giveBack() {
		e.suspicion.spared = true
	}
	if tok := e.held.load(); tok != nil {
		return tok, nil
	}
	return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: errPending}
}

// newest is the token held, be it withheld or at its end.
func (e *entry) newest() *Token {
	if s := e.suspicion; s != nil && s.withheld {
		return s.token
	}
	return e.held.p.Load()
}

// current is the newest token, while it is valid.
func (e *entry) current(at instant) *Token {
	if tok := e.newest(); tok != nil && at < tok.until {
		return tok
	}
	return nil
}

// suspect notes that the token is refused, and tells so once.
func (e *entry) suspect() *suspicion {
	if e.suspicion == nil {
		e.suspicion = new(suspicion)
	}
	s := e.suspicion
	if !s.suspect {
		s.suspect = true
		e.table.observer.Rejected(e.snapshot(e.failing()), s.spacing > 0)
	}
	return s
}

// forbidden is until when no refusal causes a request.
func (e *entry) forbidden(at instant) instant {
	tok := e.newest()
	until := max(e.suspicion.spaced, tok.sent.add(tok.took+successGap))
	if e.fetch != nil {
		until = max(until, e.fetch.floor)
	}
	if o := &e.table.outage; o.active(at) {
		until = max(until, o.until)
	}
	return until
}

// mayAskAgain tells whether there is a permit for one more refused value. That
// each value's requests are spaced is not enough: who has many values may have
// the tokens of all refused.
func (t *Table) mayAskAgain(at instant) bool {
	return t.again.free(at) > t.rejected.length()
}

// wish has another token asked for later: not on demand, for that takes what a
// client brings.
func (e *entry) wish(at instant) {
	if s := e.suspicion; !e.table.limits.OnDemand && at < e.next {
		s.wish = at
		e.reschedule()
	}
}

// fulfil asks for another token, if that was wished for.
func (e *entry) fulfil(at instant) {
	s := e.suspicion
	if s == nil || s.wish == 0 || at < s.wish || !e.resting() {
		return
	}
	s.wish = 0
	if e.idle(at) {
		return
	}
	if wait := e.forbidden(at); at < wait {
		e.wish(wait)
	} else if e.table.mayAskAgain(at) {
		e.askAgain()
		e.table.dispatch(at)
	}
}

// askAgain puts the request for another token in its line.
func (e *entry) askAgain() {
	if e.fetch == nil {
		e.fetch = &fetch{entry: e}
	}
	e.fetch.stage, e.fetch.rejected = queued, true
	e.table.rejected.push(e.fetch)
	e.suspicion.wish = 0
}

// putOff takes that out of the line, in an outage.
func (e *entry) putOff() {
	f := e.fetch
	e.fetch = nil
	if f.failure != nil {
		e.fetch = &fetch{entry: e, failures: f.failures, failure: f.failure, floor: f.floor}
	}
	f.settle(e.newest(), nil)
	e.giveUpRequester()
	e.wish(e.table.outage.until)
}

// underWay tells whether a token request is, or only waits for its turn.
func (e *entry) underWay(at instant) bool {
	return e.asking() || e.fetch != nil && e.fetch.stage == queued && !e.table.outage.active(at)
}

// trust is for a token that has come: another one is not suspect.
func (e *entry) trust(same bool) {
	if s := e.suspicion; s != nil {
		s.suspect, s.wish = s.suspect && same, 0
	}
}

// acceptedSoFar ends the spacing once a token has lived to its due point, or one
// that has none to its end, unrefused.
func (e *entry) acceptedSoFar() {
	if s := e.suspicion; s != nil && !s.suspect {
		e.suspicion = nil
	}
}

// amend replaces what is known of the newest token.
func (e *entry) amend(tok *Token) {
	if s := e.suspicion; s != nil && s.withheld {
		s.token = tok
		return
	}
	e.hold(tok)
}

// giveBack has a token that was withheld be used again.
func (e *entry) giveBack() bool {
	s := e.suspicion
	if s == nil || !s.withheld {
		return false
	}
	e.held.p.Store(s.token)
	s.withheld, s.token = false, nil
	return true
}

// remember keeps the spacing of a value that loses its place, for as long as a
// value keeps its place unused. Otherwise one with short tokens, or with a
// failure now and then, would never be spaced out.
func (e *entry) remember(at instant) {
	t, s := e.table, e.suspicion
	e.suspicion = nil
	if s == nil || s.spacing == 0 || t.closed {
		return
	}
	kept := rejection{spacing: s.spacing, spaced: s.spaced}
	t.spacings.add(memo[rejection]{e.key, max(at, s.spaced).add(t.limits.Idle), kept}, at)
}

// recall is for a value that comes back.
func (e *entry) recall(at instant) {
	if known := e.table.spacings.take(e.key, at); known.spacing > 0 {
		e.suspicion = &suspicion{rejection: known}
	}
}
