package authserver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"sync"
	"time"
)

// What Verify says of a token that is not valid.
var (
	ErrUnknown = errors.New("the token was never issued, or ended long ago")
	ErrExpired = errors.New("the token has expired")
	ErrRevoked = errors.New("the token was revoked")
)

const (
	// forgetAfter is how long after its end a token is still told from one that
	// was never issued.
	forgetAfter = 10 * time.Minute
	// minSweep is how many tokens are held before the ended ones are looked for.
	minSweep = 1024
)

// tokens are the access tokens issued. Reading is cheap: an upstream looks at
// each request's token here.
type tokens struct {
	config *Config

	mu      sync.RWMutex
	byText  map[string]*token
	last    *token
	serial  int // calls of Issue
	issued  int // distinct tokens
	sweepAt int
}

// token is one access token. Only revoked changes, under the lock of tokens.
type token struct {
	n       int
	text    string
	scope   string
	expires time.Time
	revoked bool
}

func newTokens(config *Config) tokens {
	return tokens{config: config, byText: map[string]*token{}, sweepAt: minSweep}
}

// issue returns a token for scope and what is left of its life; fresh is false
// if it was running already.
func (t *tokens) issue(scope string) (tok *token, left time.Duration, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if running := t.last; t.config.RunningToken && running != nil && !running.revoked && running.scope == scope {
		if left := running.expires.Sub(now); left > 0 {
			return running, left, false
		}
	}
	if t.config.OneAtATime {
		t.revokeAll(now)
	}
	t.sweep(now)
	t.serial++
	tok = &token{n: t.serial, text: t.config.Issue(t.serial), scope: scope, expires: now.Add(t.config.Lifetime)}
	if t.byText[tok.text] == nil {
		t.issued++
	}
	t.byText[tok.text] = tok
	t.last = tok
	return tok, t.config.Lifetime, true
}

// sweep forgets the tokens that ended long ago, so that a server that runs for
// days does not grow. It waits until their number has doubled: a constant cost
// for each token issued.
func (t *tokens) sweep(now time.Time) {
	if len(t.byText) < t.sweepAt {
		return
	}
	for text, tok := range t.byText {
		if now.Sub(tok.expires) > forgetAfter {
			delete(t.byText, text)
		}
	}
	t.sweepAt = max(minSweep, 2*len(t.byText))
}

// verify returns the number of a valid token, and what is left of its life.
func (t *tokens) verify(text string) (n int, left time.Duration, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	tok := t.byText[text]
	if tok == nil {
		return 0, 0, ErrUnknown
	}
	if tok.revoked {
		return tok.n, 0, ErrRevoked
	}
	left = time.Until(tok.expires)
	if left <= 0 {
		return tok.n, 0, ErrExpired
	}
	return tok.n, left, nil
}

func (t *tokens) revokeAll(now time.Time) {
	for _, tok := range t.byText {
		tok.revoke(now)
	}
}

// revoke leaves alone what has expired: the first end is the one to tell of.
func (tok *token) revoke(now time.Time) {
	if now.Before(tok.expires) {
		tok.revoked = true
	}
}

// Verify tells how much of a token's life is left, by this server's clock, or
// why the token is not valid: ErrUnknown, ErrExpired or ErrRevoked.
func (s *Server) Verify(text string) (left time.Duration, err error) {
	_, left, err = s.tokens.verify(text)
	return left, err
}

// Revoke ends a token at once, as an administrator or a new login would.
func (s *Server) Revoke(text string) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	if tok := s.tokens.byText[text]; tok != nil {
		tok.revoke(time.Now())
	}
}

// RevokeAll ends all tokens at once.
func (s *Server) RevokeAll() {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	s.tokens.revokeAll(time.Now())
}

// Issued is the number of distinct tokens issued.
func (s *Server) Issued() int {
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	return s.tokens.issued
}

func randomToken(int) string {
	var b [32]byte
	rand.Read(b[:]) // never fails, since Go 1.24
	return "at-" + base64.RawURLEncoding.EncodeToString(b[:])
}
