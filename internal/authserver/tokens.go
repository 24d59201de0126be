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
	// ErrReused is what ChainEnd says of a chain whose refresh token, or code,
	// came a second time.
	ErrReused = errors.New("what may be used once was used twice")
)

const (
	// forgetAfter is how long after its end a token is still told from one that
	// was never issued.
	forgetAfter = 10 * time.Minute
	// minSweep is how many tokens are held before the ended ones are looked for.
	minSweep = 1024
)

// tokens are all that was issued, under one lock: what a request ends and what
// it brings is one step. Reading is cheap: an upstream looks at each request's
// token here.
type tokens struct {
	config  *Config
	dialect *dialect
	signer  func() *signer

	mu      sync.RWMutex
	byText  map[string]*token
	last    *token // that belongs to no chain
	serial  int    // calls of Issue
	issued  int    // distinct tokens
	sweepAt int
	chains
	codes     shelf[*loginCode]
	devices   shelf[*deviceLogin] // by device code
	userCodes shelf[*deviceLogin]
}

// token is one access token. Only revoked changes, under the lock of tokens.
type token struct {
	rights
	terms
	n       int
	text    string
	expires time.Time
	revoked bool
}

// rights are what an access token stands for.
type rights struct {
	scope   string
	subject string // "" for the client itself
}

// terms are what the request for an access token adds, and a login does not
// know.
type terms struct {
	issuer string // by the Host that was asked, if the token says it
	key    string // the thumbprint of the key that it is bound to, "" for none
	cert   string // likewise that of a certificate
	public bool   // the client has proven nothing
}

// confirmation is what a token says of that to which it is bound (RFC 7800).
func (on terms) confirmation() map[string]any {
	cnf := map[string]any{}
	if on.key != "" {
		cnf["jkt"] = on.key // RFC 9449 §6.1
	}
	if on.cert != "" {
		cnf["x5t#S256"] = on.cert // RFC 8705 §3.1
	}
	return cnf
}

func newTokens(config *Config, d *dialect, signer func() *signer) tokens {
	return tokens{
		config:    config,
		dialect:   d,
		signer:    signer,
		byText:    map[string]*token{},
		sweepAt:   minSweep,
		chains:    newChains(),
		codes:     newShelf[*loginCode](),
		devices:   newShelf[*deviceLogin](),
		userCodes: newShelf[*deviceLogin](),
	}
}

// issue returns a token that belongs to no chain, and what is left of its life;
// fresh is false if it was running already.
func (t *tokens) issue(r rights, on terms) (tok *token, left time.Duration, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if running := t.last; t.config.RunningToken && running != nil && !running.revoked && running.rights == r && running.terms == on {
		if left := running.expires.Sub(now); left > 0 {
			return running, left, false
		}
	}
	t.last = t.add(r, on, now)
	return t.last, t.config.Lifetime, true
}

// add makes a new token. The lock is held.
func (t *tokens) add(r rights, on terms, now time.Time) *token {
	if t.config.OneAtATime {
		t.revokeAll(now)
	}
	t.sweep(now)
	t.serial++
	tok := &token{n: t.serial, text: t.text(r, on, now), rights: r, terms: on, expires: now.Add(t.config.Lifetime)}
	if t.byText[tok.text] == nil {
		t.issued++
	}
	t.byText[tok.text] = tok
	return tok
}

// text makes the text of the token that is number t.serial.
func (t *tokens) text(r rights, on terms, now time.Time) string {
	if t.config.JWT {
		return t.accessJWT(r, on, now)
	}
	return t.config.Issue(t.serial)
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

// verify returns a token, if it is known, and what is left of its life, if it
// is valid.
func (t *tokens) verify(text string) (tok *token, left time.Duration, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	tok = t.byText[text]
	if tok == nil {
		return nil, 0, ErrUnknown
	}
	if tok.revoked {
		return tok, 0, ErrRevoked
	}
	left = time.Until(tok.expires)
	if left <= 0 {
		return tok, 0, ErrExpired
	}
	return tok, left, nil
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

func randomToken(int) string { return "at-" + random() }

// random is 256 random bits, in base64url.
func random() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b[:])
}
