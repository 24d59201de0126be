package token

import (
	"context"
	"time"
)

// Between the refreshes that an upstream's refusals cause.
const (
	firstSpacing = time.Second
	mostSpacing  = 5 * time.Minute
)

// rejection is what a source knows of an upstream that refuses its token. An
// upstream may refuse whatever it is given, on one path or on all: that must
// not churn tokens.
type rejection struct {
	suspect  bool          // the newest token was refused
	withheld bool          // and is kept from new requests, while a refresh is under way
	spacing  time.Duration // behind the last refresh so caused; 0 while tokens are accepted
	spaced   instant       // none so caused before
	// spared: who waited for the request under way has lost patience, and the
	// token is not withheld once more while that one lasts.
	spared bool
}

// Reject notes that an upstream refused a token, and asks for another one.
// invalid tells that it named the token itself as the reason (RFC 6750 §3.1):
// then new requests wait for the answer, as long as they would without a token.
// All refusals of one token are one, and those of an earlier one are none. ctx is
// that of the refused request.
//
// It is true if a token request is under way; false where the token is another
// by now, or where the last request so caused was made too recently.
func (s *Source) Reject(ctx context.Context, t *Token, invalid bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.current()
	if held == nil || held.Value != t.Value {
		return false
	}
	if !s.suspect {
		s.suspect = true
		s.observer.Rejected(s.snapshot(), s.spacing > 0)
	}
	if s.inFlight == nil {
		at := max(s.spaced, s.floor, held.sent.add(held.took+successGap))
		if now() < at {
			if at < s.next {
				s.next, s.cause = at, Rejected
				s.reschedule()
			}
			return false
		}
		s.request(ctx, Rejected)
	}
	if invalid && s.inFlight != nil && !s.spared {
		s.withheld = true
		s.held.p.Store(nil)
	}
	return s.inFlight != nil
}

// Other is a token that is really another than one that was refused: the one
// held, or else the one that the request under way brings. It is nil where none
// is under way, where it brings none or the same, and where it takes too long.
func (s *Source) Other(ctx context.Context, t *Token, most time.Duration) *Token {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		s.mu.Lock()
		held, underWay, settled := s.current(), s.inFlight != nil, s.settled
		if held == nil || held.Value == t.Value {
			s.hurry()
		}
		s.mu.Unlock()
		switch {
		case held != nil && held.Value != t.Value:
			return held
		case !underWay:
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		}
	}
}

// space has the next refresh so caused wait, twice as long each time.
func (r *rejection) space(at instant) {
	r.spacing = min(max(2*r.spacing, firstSpacing), mostSpacing)
	r.spaced = at.add(r.spacing)
}

// acceptedSoFar ends the spacing once a token has lived to its due point
// unrefused.
func (s *Source) acceptedSoFar() {
	if s.cause == Scheduled && s.failure == nil && !s.suspect {
		s.spacing, s.spaced = 0, 0
	}
}

// giveBack has a token that is still the best there is be used again.
func (s *Source) giveBack() {
	if !s.withheld {
		return
	}
	s.withheld = false
	s.held.p.Store(s.current())
}

// spacedOut is why no request was made: the instances that share the token have
// asked for another one too recently.
type spacedOut struct{ wait time.Duration }

func (o *spacedOut) Error() string {
	return "another token was asked for too recently, for the same reason"
}

// putOff ends a request that was not made.
func (s *Source) putOff(o *spacedOut) {
	s.next = s.planned
	if at := now().add(o.wait); at < s.next {
		s.next, s.cause = at, Rejected
	}
	s.giveBack()
	s.reschedule()
	s.announce()
}
