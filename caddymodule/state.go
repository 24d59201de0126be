package caddymodule

import (
	"errors"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// state is how a credential stands, in one word. Whether it has a valid token
// is another question.
type state string

const (
	stateStarting state = "starting" // no token request has ended yet
	stateOK       state = "ok"
	// a valid token is held
	stateFailing  state = "failing"  // and the last token request failed
	stateRejected state = "rejected" // and an upstream refuses it
	// no valid token is held
	stateExpired     state = "expired"     // and no token request has failed: the next one is under way or due
	stateUnavailable state = "unavailable" // and the last token request failed
	// a person has to do something; a valid token may be held
	stateLogin   state = "login_required"      // there is no refresh token that the server takes
	stateStorage state = "storage_unavailable" // Caddy's storage fails, or what it holds cannot be read
)

// stateOf is how a credential with one token stands.
func stateOf(s token.Snapshot, c *token.ChainState) state {
	f := s.Failure
	is := func(err error) bool { return f != nil && errors.Is(f, err) }
	switch {
	case is(token.ErrLoginRequired), is(token.ErrEnded):
		return stateLogin
	case is(token.ErrStorage), is(token.ErrUnreadable):
		return stateStorage
	case f != nil && s.Held:
		return stateFailing
	case f != nil:
		return stateUnavailable
	case c != nil && !c.Usable:
		return stateLogin
	case !s.Held && s.Obtained.IsZero():
		return stateStarting
	case !s.Held:
		return stateExpired
	case s.Suspect:
		return stateRejected
	}
	return stateOK
}

// stateOfTable is how a template stands. What is wrong with one value is not
// the credential's matter.
func stateOfTable(s token.TableSnapshot) state {
	f := s.Failure
	switch {
	case f != nil && errors.Is(f, token.ErrStorage):
		return stateStorage
	case f != nil && s.Tokens > 0:
		return stateFailing
	case f != nil:
		return stateUnavailable
	}
	return stateOK
}

// standing remembers since when a credential stands as it does. It outlives
// configs.
type standing struct {
	mu    sync.Mutex
	state state
	since time.Time
	noted uint64 // how often
}

// now notes how it stands.
func (s *standing) now(st state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted++
	s.set(st)
}

func (s *standing) set(st state) {
	if s.state != st {
		s.state, s.since = st, time.Now()
	}
}

// look is to be taken before a snapshot, and handed to seen.
func (s *standing) look() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noted
}

// seen tells since when it stands as a snapshot shows. One that something has
// happened since is of the past, and changes nothing.
func (s *standing) seen(st state, look uint64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noted == look {
		s.set(st)
	}
	return s.since
}
