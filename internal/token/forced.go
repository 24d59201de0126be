package token

import (
	"context"
	"fmt"
	"time"
)

// forcedGap lies between two requests that an operator wishes for.
const forcedGap = 5 * time.Second

// TooSoon is why another token is not asked for yet.
type TooSoon struct {
	// Wait is how long it will not be.
	Wait time.Duration
	// Server tells that the server asked for that (Retry-After).
	Server bool
}

func (e *TooSoon) Error() string {
	wait := (e.Wait + time.Second - 1).Truncate(time.Second) // never 0s
	if e.Server {
		return fmt.Sprintf("the server asked not to be asked before %s have passed (Retry-After)", wait)
	}
	return fmt.Sprintf("another token was wished for a moment ago; it can be in %s", wait)
}

// Refresh asks for another token at once, or joins the request that is under
// way: the channel is closed when it has ended, and the Snapshot then tells what
// came of it. The token held stays in use meanwhile. It is done once in 5s at
// most, and never while the server wants to be left alone: then the error is a
// *TooSoon. ctx is what causes it; its end does not end the request.
func (s *Source) Refresh(ctx context.Context) (ended <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.started {
		return nil, ErrClosed
	}
	if s.inFlight == nil {
		t := now()
		mayAt := s.forced.add(forcedGap)
		if wait := max(mayAt, s.floor).sub(t); wait > 0 {
			return nil, &TooSoon{Wait: wait, Server: s.floor > mayAt}
		}
		s.forced = t
		s.request(ctx, Forced)
	}
	return s.settled, nil
}
