package token

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// errPending is why a caller's wait ended while the first request was under way.
var errPending = errors.New("the first answer is still awaited")

// Wait returns a valid token, waiting for one at most that long. It waits
// through a first failure to reach the server, unless the next request is due
// too late for it, and fails at once from the second in a row on, after any other
// failure, and where another has waited as long in vain: a server that hangs is
// not waited for by everybody. The error is an *oauth.Failure, ErrClosed, or the
// context's. Leaving does not end the request under way for the others.
func (s *Source) Wait(ctx context.Context, most time.Duration) (*Token, error) {
	var timeout <-chan time.Time
	deadline := now().add(most)
	for {
		t, settled, err := s.poll(ctx, deadline, most)
		if t != nil || err != nil {
			return t, err
		}
		if timeout == nil {
			timer := time.NewTimer(most)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-settled:
			s.left()
		case <-ctx.Done():
			s.left()
			return nil, ctx.Err()
		case <-timeout:
			s.left()
			return s.outwait(most)
		}
	}
}

// poll is one look at the state by a caller that has no token and waits until
// a deadline. It starts a request if none is under way and none is being held
// back, as by a Retry-After.
func (s *Source) poll(ctx context.Context, deadline instant, most time.Duration) (*Token, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.held.load(); t != nil {
		return t, nil, nil
	}
	switch {
	case s.closed && s.inFlight == nil:
		return nil, nil, ErrClosed
	case s.closed:
		s.stays()
		return nil, s.settled, nil
	case s.withheld:
		s.stays()
		return nil, s.settled, nil
	case s.vain > 0 && most <= s.vain:
		return nil, nil, s.pending()
	case s.failure != nil && (s.failures > 1 || s.failure.Kind != oauth.Unreachable):
		return nil, nil, s.failure
	case s.failure != nil && s.inFlight == nil && s.next > deadline:
		return nil, nil, s.failure // nothing can come before the caller gives up
	}
	if s.started && now() >= s.next {
		s.request(ctx, Demand)
	}
	s.stays()
	return nil, s.settled, nil
}

// stays notes a caller that waits, until it has left. Called with the lock.
func (s *Source) stays() {
	s.waiting++
	s.hurry()
}

func (s *Source) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	s.cancelForNobody()
}

// hurry tells the request under way that somebody waits for it. Called with the
// lock.
func (s *Source) hurry() {
	if s.inFlight != nil && s.waited != nil {
		close(s.waited)
		s.waited = nil
	}
}

// outwait is for a caller whose patience has ended. A token that an upstream
// refused is better than none, and from now on for all others, too.
func (s *Source) outwait(most time.Duration) (*Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spared = true
	s.giveBack()
	if t := s.held.load(); t != nil {
		return t, nil
	}
	s.vain = max(s.vain, most)
	return nil, s.pending()
}

func (s *Source) pending() *oauth.Failure {
	if s.failure != nil {
		return s.failure
	}
	return &oauth.Failure{Kind: oauth.Unreachable, Err: errPending}
}
