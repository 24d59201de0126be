package token

import (
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Close ends the source: nothing is asked for any more. Requests that are being
// drained keep the token held, and a token request that some of them wait for
// goes on for them, for 4s at most: whatever ends with the source waits for it.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.giveBack()
	s.closed = true
	s.scheduler.remove(s)
	if cancel := s.inFlight; cancel != nil {
		time.AfterFunc(drainWait, func() { cancel(ErrClosed) })
	}
	s.cancelForNobody()
}

// drainWait is how long a closed source's token request goes on.
const drainWait = 4 * time.Second

// cancelForNobody ends the token request of a closed source that nobody waits
// for. Called with the lock.
func (s *Source) cancelForNobody() {
	if s.closed && s.inFlight != nil && s.waiting == 0 {
		s.inFlight(ErrClosed)
	}
}

// handOver gives what came to those who still wait at a closed source, and tells
// nobody else of it.
func (s *Source) handOver(res *oauth.Response, err error, sent, arrived instant) {
	if err == nil && s.waiting > 0 {
		if t, _ := s.policy.take(res, s.last, sent, arrived, s.random); t.valid() {
			s.held.p.Store(t)
		}
	}
	s.announce()
}
