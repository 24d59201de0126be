package token

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// entry is one value of a table. It has a token, or its first request is under
// way; and it is small, for there may be many.
type entry struct {
	alarm
	table *Table
	held  held         // the newest token, until it has expired
	used  atomic.Int64 // the instant at which it was used last, to markEvery

	// under the table's lock
	key       Key
	requester Requester
	fetch     *fetch     // the next request, nil if there is nothing to say of it
	next      instant    // when it is due; never, once the entry is removed
	suspicion *suspicion // nil while upstreams take its tokens
	beside    *entry     // in the same chain, under the shard's lock
}

// markEvery is how often a use is written down at most.
const markEvery = time.Second

// fetch is a token request of an entry, from the wish for one to its end.
type fetch struct {
	entry    *entry
	first    bool
	rejected bool // an upstream caused it
	cause    context.Context
	stage    stage
	probe    bool           // of a server that failed
	failures int            // in a row, of this value, before
	failure  *oauth.Failure // the last of them
	floor    instant        // its Retry-After
	waiters  int
	cancel   context.CancelCauseFunc

	done  chan struct{} // closed when it has ended; nil while nobody waits
	token *Token
	err   error
}

type stage uint8

const (
	wanted stage = iota // and will be made when it is due
	queued              // it is due
	begun
)

// token is what is held, and marks its use.
func (e *entry) token(at instant) *Token {
	t := e.held.p.Load()
	if t == nil || at >= t.until {
		return nil
	}
	if at.sub(instant(e.used.Load())) >= markEvery {
		e.used.Store(int64(at))
	}
	return t
}

func (e *entry) idle(at instant) bool {
	return (e.fetch == nil || e.fetch.waiters == 0) && at.sub(instant(e.used.Load())) >= e.table.limits.Idle
}

// hold replaces the token, nil for none.
func (e *entry) hold(t *Token) {
	old := e.newest()
	if s := e.suspicion; s != nil {
		s.withheld, s.token = false, nil
	}
	if e.held.p.Store(t); (old == nil) != (t == nil) {
		if t != nil {
			e.table.tokens++
		} else {
			e.table.tokens--
		}
	}
}

// join adds one who waits to the request under way, or to the next.
func (e *entry) join() *fetch {
	if e.fetch == nil {
		e.fetch = &fetch{entry: e}
	}
	if e.fetch.done == nil {
		e.fetch.done = make(chan struct{})
	}
	e.fetch.waiters++
	return e.fetch
}

// settle ends the request and wakes all who wait.
func (f *fetch) settle(t *Token, err error) {
	if f.entry.fetch == f {
		f.entry.fetch = nil
	}
	f.token, f.err = t, err
	if f.done != nil {
		close(f.done)
	}
}

// wake does what is due. The scheduler calls it.
func (e *entry) wake() {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	at := now()
	e.catchUp(at)
	if at >= e.next && e.resting() {
		e.acceptedSoFar()
		if !e.queue(at) {
			return
		}
		t.dispatch(at)
	}
	e.fulfil(at)
	e.reschedule()
}

// queue has the entry wait for its turn, unless it is given up.
func (e *entry) queue(at instant) bool {
	t := e.table
	switch {
	case e.idle(at):
		t.remove(e)
		return false
	case e.newest() == nil && t.outage.active(at):
		t.turnAway(e)
		return false
	case e.fetch == nil:
		e.fetch = &fetch{entry: e}
	}
	e.fetch.stage = queued
	t.due.push(e.fetch)
	return true
}

// reschedule plans the next moment at which something is to be done.
func (e *entry) reschedule() {
	at := never
	if e.resting() {
		at = e.next
		if s := e.suspicion; s != nil && s.wish > 0 {
			at = min(at, s.wish)
		}
	}
	if t := e.newest(); t != nil {
		at = min(at, t.until)
	}
	if at != never {
		e.table.scheduler.set(e, at)
	}
}

// catchUp drops a token that is no longer used. The value keeps its place only
// if another token is on its way.
func (e *entry) catchUp(at instant) {
	tok := e.newest()
	if tok == nil || at < tok.until {
		return
	}
	t := e.table
	unused := e.idle(at)
	failure, failures := e.failing()
	if t.limits.OnDemand {
		e.acceptedSoFar()
		unused = unused || e.resting()
	} else if !unused {
		t.observer.Expired(e.snapshot(failure, failures))
	}
	e.hold(nil)
	if (unused || failure != nil) && !e.asking() {
		t.remove(e)
		if e.fetch != nil { // nobody waits but for another token: there was one until now
			e.fetch.settle(nil, failure)
		}
	}
}

// failing is what keeps the next token from coming, nil for nothing.
func (e *entry) failing() (*oauth.Failure, int) {
	o := &e.table.outage
	if o.failure == nil && e.fetch != nil {
		return e.fetch.failure, e.fetch.failures
	}
	return o.failure, o.failures
}

func (e *entry) gone() bool { return e.next == never }

// resting tells whether nothing is done before the entry is due.
func (e *entry) resting() bool { return e.fetch == nil || e.fetch.stage == wanted }

// asking tells whether a request is under way.
func (e *entry) asking() bool { return e.fetch != nil && e.fetch.stage == begun }

// clockMoved is Source.clockMoved for one value.
func (e *entry) clockMoved(slept time.Duration) {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.newest() == nil {
		return
	}
	if slept > 0 {
		e.amend(e.newest().earlier(slept))
	}
	if !t.limits.OnDemand && (e.fetch == nil || slept > 0) {
		e.next = min(e.next, now())
	}
	e.reschedule()
}

// snapshot is what an Observer is told of one value.
func (e *entry) snapshot(failure *oauth.Failure, failures int) Snapshot {
	snap := Snapshot{Next: e.next.wall(), Failure: failure, Failures: failures}
	snap.Suspect = e.suspicion != nil && e.suspicion.suspect
	if tok := e.newest(); tok != nil {
		snap.Obtained = tok.sent.add(tok.took).wall()
		snap.tell(tok, true)
	}
	return snap
}
