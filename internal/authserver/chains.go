package authserver

import (
	"slices"
	"strings"
	"time"
)

// maxSpent is how many spent refresh tokens of a chain are told from those that
// were never issued.
const maxSpent = 1000

// chain is what came of one login: the refresh tokens that followed one another,
// and the access tokens that they brought.
type chain struct {
	rights rights
	bound  terms    // of a public client: what its refresh tokens are bound to
	ended  error    // ErrReused or ErrRevoked; nil while it lives
	access []*token // but for those that have expired
	spent  []*refreshToken
}

// refreshToken is one refresh token. It is spent if it has a successor.
type refreshToken struct {
	text      string
	chain     *chain
	successor *refreshToken
	spentAt   time.Time
}

// chains are the refresh tokens of all logins. The lock is that of tokens.
type chains struct {
	refreshTokens map[string]*refreshToken
	rotations     int
}

func newChains() chains { return chains{refreshTokens: map[string]*refreshToken{}} }

// start adds a refresh token to a chain.
func (c *chains) start(of *chain) *refreshToken {
	r := &refreshToken{text: "rt-" + random(), chain: of}
	c.refreshTokens[r.text] = r
	return r
}

// rotate spends a refresh token, and returns its successor.
func (c *chains) rotate(r *refreshToken, now time.Time) *refreshToken {
	c.rotations++
	r.successor, r.spentAt = c.start(r.chain), now
	r.chain.spent = append(r.chain.spent, r)
	if len(r.chain.spent) > maxSpent {
		delete(c.refreshTokens, r.chain.spent[0].text)
		r.chain.spent[0] = nil // let it go before append moves the rest
		r.chain.spent = r.chain.spent[1:]
	}
	return r.successor
}

// end ends a chain and its access tokens. The first end is the one to tell of.
func (c *chain) end(why error, now time.Time) {
	if c.ended == nil {
		c.ended = why
	}
	c.endAccess(now)
}

func (c *chain) endAccess(now time.Time) {
	for _, tok := range c.access {
		tok.revoke(now)
	}
	c.access = nil
}

// addTo makes an access token that belongs to a chain. The lock is held.
func (t *tokens) addTo(c *chain, r rights, on terms, now time.Time) *token {
	tok := t.add(r, on, now)
	c.access = slices.DeleteFunc(c.access, func(old *token) bool { return !now.Before(old.expires) })
	c.access = append(c.access, tok)
	return tok
}

// IssueRefreshToken starts a chain, as a login that nobody saw. Its scope is
// all of the server's, unless another is given.
func (s *Server) IssueRefreshToken(scope ...string) string {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	return s.tokens.start(&chain{rights: rights{scope: s.scopeOfLogin(scope), subject: s.config.Subject}}).text
}

// scopeOfLogin is the scope of a chain that no request asked for.
func (s *Server) scopeOfLogin(scope []string) string {
	switch {
	case len(scope) > 0:
		return strings.Join(scope, " ")
	case s.dialect.scope != "":
		return s.dialect.scope
	default:
		return strings.Join(s.config.Scopes, " ")
	}
}

// RevokeChain ends a refresh token with all that came before and after it, as
// an administrator would.
func (s *Server) RevokeChain(refreshToken string) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	if r := s.tokens.refreshTokens[refreshToken]; r != nil {
		r.chain.end(ErrRevoked, time.Now())
	}
}

// ChainAlive tells whether the chain that a refresh token belongs to can go on,
// be it with a later token than this one.
func (s *Server) ChainAlive(refreshToken string) bool { return s.ChainEnd(refreshToken) == nil }

// ChainEnd is why the chain that a refresh token belongs to cannot go on:
// ErrReused, ErrRevoked, or ErrUnknown for a token that was never issued. It is
// nil while the chain lives.
func (s *Server) ChainEnd(refreshToken string) error {
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	if r := s.tokens.refreshTokens[refreshToken]; r != nil {
		return r.chain.ended
	}
	return ErrUnknown
}

// Rotations is how often a refresh token gave way to another.
func (s *Server) Rotations() int {
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	return s.tokens.rotations
}
