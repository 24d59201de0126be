package token

import (
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// outage is a failure of the credential itself, whatever the value. While it
// lasts one request at a time is made, after a pause that grows.
type outage struct {
	failures  int            // in a row, 0 when there is none
	failure   *oauth.Failure // the last one
	failed    instant        // when that came
	until     instant        // none is made before
	floor     instant        // the server's Retry-After: no changed file ends the pause before
	probing   bool           // one is under way
	requester Requester      // made the last one
	look      instant        // when its files are looked at next
	looking   bool
}

// active tells whether no request may be made.
func (o *outage) active(at instant) bool { return o.failures > 0 && at < o.until }

func (o *outage) allows(at instant) bool {
	return o.failures == 0 || at >= o.until && !o.probing
}

// over ends the outage, if the request that got an answer was sent after it
// had begun.
func (o *outage) over(sent instant) {
	if sent > o.failed {
		*o = outage{looking: o.looking}
	}
}

// suffer notes a failure that concerns all values. Those that came of requests
// that were under way together are one.
func (t *Table) suffer(failure *oauth.Failure, r Requester, sent, at instant) {
	o := &t.outage
	if o.failures == 0 {
		o.look = at.add(filePoll)
	}
	if o.failures == 0 || sent > o.failed {
		o.failures++
		o.failed = at
		o.until = at.add(backoff(failure.Kind, o.failures, false, t.random))
	}
	o.failure, o.requester = failure, r
	if failure.RetryAfter > 0 {
		o.floor = max(o.floor, at.add(retryAfter(failure.RetryAfter, t.random)))
	}
	o.until = max(o.until, o.floor)

	for f := t.newcomers.pop(); f != nil; f = t.newcomers.pop() {
		t.turnAway(f.entry)
	}
	kept := line{}
	for f := t.due.pop(); f != nil; f = t.due.pop() {
		if f.entry.newest() == nil {
			t.turnAway(f.entry)
			continue
		}
		kept.push(f)
	}
	t.due = kept
	for f := t.rejected.pop(); f != nil; f = t.rejected.pop() {
		if f.entry.newest() == nil {
			t.turnAway(f.entry)
			continue
		}
		f.entry.putOff()
	}
}

// turnAway has those who wait for a value share the failure of another.
func (t *Table) turnAway(e *entry) {
	t.remove(e)
	if e.fetch != nil {
		e.fetch.settle(nil, t.outage.failure)
	}
}

// wake ends a pause, or looks whether a changed file does. The scheduler calls
// it.
func (t *Table) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := now()
	o := &t.outage
	if o.active(at) && at >= o.look {
		o.look = at.add(filePoll)
		if !o.looking {
			o.looking = true
			go t.lookAtFiles(o.requester)
		}
	}
	t.dispatch(at)
}

// lookAtFiles runs apart: a file system may hang.
func (t *Table) lookAtFiles(r Requester) {
	stale := r.Stale()
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &t.outage
	o.looking = false
	if at := now(); stale && o.active(at) {
		o.until = max(at, o.floor)
		t.dispatch(at)
	}
}

// clockMoved takes the time of a suspension off the pause.
func (t *Table) clockMoved(slept time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &t.outage
	o.until, o.floor = o.until.add(-slept), o.floor.add(-slept)
	t.dispatch(now())
}
