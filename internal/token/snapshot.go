package token

import (
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Snapshot is what a source knows of itself at one moment. It holds no token.
type Snapshot struct {
	// Held tells whether a valid token is held, Expires when it stops being
	// used (zero if none is held).
	Held    bool
	Expires time.Time
	// Sent is when the newest token's request was sent, from where its life
	// counts; Stops when it stops being used, and Ends when the server says that
	// it ends, be that over or not; Due when it was to be renewed, as planned
	// when it came. Zero if none has come.
	Sent, Stops, Ends, Due time.Time
	// Requesting tells whether a token request is under way.
	Requesting bool
	// Obtained is when the last token request succeeded, zero if none did.
	Obtained time.Time
	// Lifetime is what the newest token had when its request was sent.
	Lifetime time.Duration
	// Assumed tells that the server gave no usable lifetime.
	Assumed bool
	// Next is when the next token request is due, or the one under way was made;
	// zero before Start.
	Next time.Time
	// Failures counts the failures since the last success, Failure is the last.
	Failures int
	Failure  *oauth.Failure
	// Suspect tells that an upstream has refused the token held.
	Suspect bool
	// Scopes are those that the server says it granted, nil if it says nothing;
	// Missing are those that were asked for and are not among them.
	Scopes, Missing []string
}

// Snapshot tells the state of the source. It never waits for the network.
func (s *Source) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

func (s *Source) snapshot() Snapshot {
	snap := Snapshot{Failures: s.failures, Failure: s.failure, Obtained: s.obtained, Suspect: s.suspect, Requesting: s.inFlight != nil}
	if s.started {
		snap.Next = s.next.wall()
	}
	if s.last != nil {
		snap.tell(s.last, !s.closed)
		snap.Due = s.due.wall()
	}
	return snap
}

// tell adds what is known of the newest token. usable is false once it is not
// given out any more, however long it lives.
func (s *Snapshot) tell(t *Token, usable bool) {
	s.Lifetime, s.Assumed = t.end.sub(t.sent), t.assumed
	s.Sent, s.Stops, s.Ends = t.sent.wall(), t.until.wall(), t.end.wall()
	if t.granted != nil {
		s.Scopes, s.Missing = t.granted.scopes, t.granted.missing
	}
	if usable && t.valid() {
		s.Held, s.Expires = true, t.until.wall()
	}
}
