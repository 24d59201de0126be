package token

import "time"

// Newest is the newest token while it is valid, also while it is kept from new
// requests because an upstream has refused it: it is still the best there is.
func (s *Source) Newest() *Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current()
}

// Left is how long the token is still used, 0 once that is over.
func (t *Token) Left() time.Duration { return max(0, t.until.sub(now())) }

// Assumed tells that the server gave no usable lifetime, and Promised is how
// long the one that is assumed in its place still runs: the token may be used
// for longer, but it is not known to be good for that.
func (t *Token) Assumed() bool { return t.assumed }

// Promised is how long the token's lifetime, given or assumed, still runs.
func (t *Token) Promised() time.Duration { return max(0, t.end.sub(now())) }

// Scopes are those that the server says it granted, nil if it says nothing.
func (t *Token) Scopes() []string {
	if t.granted == nil {
		return nil
	}
	return t.granted.scopes
}
