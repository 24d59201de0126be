package token

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Reason is what caused a token request.
type Reason string

// The reasons for a token request.
const (
	Start     Reason = "start"     // the first one
	Scheduled Reason = "scheduled" // the token held is due, or an earlier request failed
	Demand    Reason = "demand"    // a request came and no token was held
	Rejected  Reason = "rejected"  // an upstream refused the token held
	Forced    Reason = "forced"    // an operator wished for it
)

// Occasion is what is known when a token request is to be made.
type Occasion struct {
	Reason Reason
	// Cause is the context of what caused the request, for the values in it
	// alone; nil where nobody did.
	Cause context.Context
	// Limit is how long the token request may take. What else is done for it,
	// in a storage, has limits of its own.
	Limit time.Duration
	// Held is the token in use meanwhile, nil if there is none that is valid.
	// Suspect tells that an upstream has refused it.
	Held    *Token
	Suspect bool
	// Waited is closed once a request waits for a token; nil where it is not
	// known.
	Waited <-chan struct{}
	// Lease, where a lock is held, tells whether it still counts. It is asked
	// just before a request is written.
	Lease func(context.Context) error
}

// Requester makes one token request. Its error is an *oauth.Failure, or is
// taken for one that was refused: a request that could not be made.
type Requester interface {
	Request(ctx context.Context, on Occasion) (*oauth.Response, error)
	// Stale tells whether what the last request was made from has changed
	// since, a file or a stored refresh token: then a failed one is worth
	// repeating at once.
	Stale() bool
}

// Observer is told what happens to a source, or to the values of a table. The
// calls for one source, and those for all values of one table, come one at a
// time, in order. They must not block, nor call the source or table.
type Observer interface {
	Attempted(Attempt)
	// Expired is told that the token in use has ended and no new one has come.
	Expired(Snapshot)
	// Rejected is told that an upstream refuses the token in use, once for each
	// token; again, if that one had come in place of one that was refused.
	Rejected(s Snapshot, again bool)
}

// Attempt is one token request that has ended.
type Attempt struct {
	Snapshot
	Reason Reason
	Took   time.Duration
	// Same is true if the server handed out the token that was held already,
	// Adopted if no server was asked: another process had.
	Same, Adopted bool
	// Bearer is false if the new token is outside RFC 6750's b64token.
	Bearer bool
}

// ErrClosed is returned to those who wait for a token of a credential that is
// no longer configured.
var ErrClosed = errors.New("the credential is no longer configured")

// Source holds the access token of one credential and keeps it fresh.
type Source struct {
	held held
	alarm
	policy    Policy
	scheduler *Scheduler
	observer  Observer
	random    random

	mu        sync.Mutex
	requester Requester
	started   bool
	closed    bool
	inFlight  context.CancelCauseFunc // ends the request under way; nil if there is none
	settled   chan struct{}           // closed when a request ends, then replaced
	waited    chan struct{}           // closed when somebody waits for it, then nil
	waiting   int                     // callers, also while none is under way
	vain      time.Duration           // the longest that somebody has waited since the last success
	last      *Token                  // the newest token, even if it has expired
	due       instant                 // when that was to be renewed, as planned when it came
	lapsed    bool                    // its expiry has been told
	looking   bool                    // at the files
	failures  int                     // in a row
	failure   *oauth.Failure          // the last one, nil after a success
	next      instant                 // when the next request is due
	planned   instant                 // what that was before a refusal
	cause     Reason                  // of that
	rejection
	floor    instant   // the server's Retry-After: none before this
	forced   instant   // when an operator last wished for another token
	obtained time.Time // of the last success
}

// NewSource returns a source at rest: it makes no request and starts no
// goroutine before Start.
func NewSource(policy Policy, scheduler *Scheduler, observer Observer) *Source {
	return &Source{
		policy:    policy,
		scheduler: scheduler,
		observer:  observer,
		random:    defaultRandom,
		settled:   make(chan struct{}),
		cause:     Scheduled,
	}
}

// Use has the next requests made by r. A request under way is left alone.
func (s *Source) Use(r Requester) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requester = r
}

// Start makes the first request. On a source that was started before it does
// nothing: its token and its schedule stand.
func (s *Source) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.closed {
		return
	}
	s.started = true
	s.request(nobody, Start)
}

// Token is the token held, nil if there is none that is valid. It costs one
// atomic load and one comparison with the clock.
func (s *Source) Token() *Token { return s.held.load() }

// current is the newest token, while it is valid.
func (s *Source) current() *Token {
	if s.closed || !s.last.valid() {
		return nil
	}
	return s.last
}

// nobody causes what is done on schedule.
var nobody context.Context

// request starts a token request unless one is under way. Called with the lock.
func (s *Source) request(cause context.Context, reason Reason) {
	if s.inFlight != nil || s.closed || s.requester == nil {
		return
	}
	if reason == Rejected {
		s.space(now())
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.waited, s.spared = make(chan struct{}), false
	s.inFlight, s.next, s.cause = cancel, now(), Scheduled
	go s.run(ctx, cancel, s.requester, Occasion{Reason: reason, Cause: cause, Limit: s.policy.Timeout, Held: s.current(), Suspect: s.suspect, Waited: s.waited})
	if s.waiting > 0 {
		s.hurry()
	}
	s.reschedule()
}

// run makes one request. Its context is its own: a caller that leaves takes
// nothing from the others.
func (s *Source) run(ctx context.Context, cancel context.CancelCauseFunc, r Requester, on Occasion) {
	defer cancel(nil)
	res, sent, arrived, err := s.scheduler.ask(ctx, r, on)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight = nil
	if s.closed {
		s.handOver(res, err, sent, arrived)
		return
	}
	attempt := Attempt{Reason: on.Reason, Took: arrived.sub(sent), Bearer: true}
	if wait, ok := errors.AsType[*spacedOut](err); ok {
		s.putOff(wait)
		return
	}
	if err == nil {
		attempt.Bearer, attempt.Adopted = res.Bearer, res.Adopted
		if res.Adopted {
			attempt.Took = res.Took
		}
		attempt.Same, err = s.succeed(res, sent, arrived)
	}
	if err != nil {
		s.fail(err, arrived)
	}
	s.giveBack()
	s.reschedule()
	attempt.Snapshot = s.snapshot()
	s.observer.Attempted(attempt)
	s.announce()
}

// succeed publishes what came, unless it is of no use.
func (s *Source) succeed(res *oauth.Response, sent, arrived instant) (same bool, err error) {
	t, due := s.policy.take(res, s.last, sent, arrived, s.random)
	same = s.last != nil && s.last.Value == t.Value
	if arrived >= t.until {
		// One that is handed out to its very end is worth asking for after it.
		s.floor = max(s.floor, min(t.end.add(rounding), arrived.add(rounding)))
		return same, &oauth.Failure{Kind: oauth.Unreachable, Err: errTooSlow}
	}

	s.held.p.Store(t)
	s.last, s.lapsed = t, false
	s.suspect, s.withheld = s.suspect && same, false
	s.failures, s.failure, s.floor, s.vain = 0, nil, 0, 0
	s.next, s.planned, s.due = due, due, due
	s.obtained = time.Now()
	return same, nil
}

var errTooSlow = errors.New("the token had expired when it arrived")

// fail notes a failure and when the next request may be made.
func (s *Source) fail(err error, at instant) {
	f := asFailure(err)
	s.failures++
	s.failure = f
	if f.RetryAfter > 0 {
		s.floor = at.add(retryAfter(f.RetryAfter, s.random))
	}
	t := s.current()
	s.next = max(at.add(backoff(f.Kind, s.failures, t != nil, s.random)), s.floor)
	if t == nil && errors.Is(f, ErrStorage) { // the server is not asked
		s.next = min(s.next, max(at.add(storageWait), s.floor))
	}
	if t != nil {
		s.next = max(min(s.next, t.lastChance(at, s.random)), s.floor)
	}
	if t != nil && errors.Is(f, errResting) {
		s.next = max(s.next, t.until)
	}
	s.planned = s.next
}

// asFailure takes an error for a request that could not be made.
func asFailure(err error) *oauth.Failure {
	if f, ok := errors.AsType[*oauth.Failure](err); ok {
		return f
	}
	return asRefused(err)
}

// announce wakes all who wait.
func (s *Source) announce() {
	close(s.settled)
	s.settled = make(chan struct{})
}

// reschedule plans the next moment at which something is to be done. Called
// with the lock.
func (s *Source) reschedule() {
	if s.closed {
		return
	}
	at := never
	if s.inFlight == nil {
		at = s.next
		if s.failure != nil {
			at = min(at, now().add(filePoll))
		}
	}
	if s.last != nil && !s.lapsed {
		at = min(at, s.last.until)
	}
	if at != never {
		s.scheduler.set(s, at)
	}
}

// wake does what is due. The scheduler calls it.
func (s *Source) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	t := now()
	if s.last != nil && !s.lapsed && t >= s.last.until {
		s.lapse(t)
	}
	if s.inFlight == nil {
		switch {
		case t >= s.next:
			s.acceptedSoFar()
			s.request(nobody, s.cause)
		case s.failure != nil && !s.looking:
			s.looking = true
			go s.lookAtFiles(s.requester)
		}
	}
	s.reschedule()
}

// lapse drops a token that is no longer used.
func (s *Source) lapse(t instant) {
	s.lapsed, s.withheld = true, false
	s.held.p.CompareAndSwap(s.last, nil)
	if s.failure != nil {
		// requests are turned away from now on: do not sit out a long step
		sooner := t.add(backoff(s.failure.Kind, s.failures, false, s.random))
		s.next = max(min(s.next, sooner), s.floor)
	}
	s.observer.Expired(s.snapshot())
}

// lookAtFiles runs apart: a file system may hang.
func (s *Source) lookAtFiles(r Requester) {
	stale := r.Stale()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = false
	if !stale {
		return
	}
	if s.failure != nil && s.inFlight == nil {
		s.next = min(s.next, max(now(), s.floor))
		s.reschedule()
	}
}

// clockMoved takes the time of a suspension off what is held, and makes the
// token due: after one, and after the wall clock was set, nothing is certain.
func (s *Source) clockMoved(slept time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.last == nil {
		return
	}
	if slept > 0 {
		t := s.last.earlier(slept)
		s.held.p.CompareAndSwap(s.last, t)
		s.last = t
	}
	s.floor, s.due = s.floor.add(-slept), s.due.add(-slept)
	if s.failure == nil || slept > 0 {
		s.next = min(s.next, max(now(), s.floor))
	}
	s.reschedule()
}
