package authserver

import (
	"crypto/sha256"
	"encoding/base64"
	"time"
)

const (
	// codeLifetime is short: RFC 6749 §4.1.2 has ten minutes at most.
	codeLifetime = time.Minute
	// codeMemory is how long a code that comes again ends what it brought.
	codeMemory = time.Hour
	// a verifier's length (RFC 7636 §4.1)
	minVerifier, maxVerifier = 43, 128
)

// loginCode is an authorization code.
type loginCode struct {
	rights    rights
	redirect  string
	challenge string
	nonce     string
	expires   time.Time
	chain     *chain // what it brought; nil until it comes
}

// newCode keeps a code, and returns its text.
func (t *tokens) newCode(c loginCode) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	c.expires = now.Add(codeLifetime)
	text := random()
	t.codes.put(text, &c, now.Add(codeMemory), now)
	return text
}

// authorizationCode is RFC 6749 §4.1.3.
func (s *Server) authorizationCode(a asker) (given, *refusal) {
	code := a.Form.Get("code")
	if code == "" {
		return given{}, refuse("invalid_request", "code is missing")
	}
	return s.tokens.redeem(code, a.Form.Get("redirect_uri"), a.Form.Get("code_verifier"), a.terms)
}

// redeem spends a code, whether it brings something or not.
func (t *tokens) redeem(code, redirect, verifier string, on terms) (given, *refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	c, held := t.codes.get(code, now)
	switch {
	case !held:
		return given{}, refuse("invalid_grant", "the code is unknown")
	case c.chain != nil:
		c.chain.end(ErrReused, now) // RFC 6749 §4.1.2
		return given{}, refuse("invalid_grant", "the code was used before")
	}
	c.chain = &chain{rights: c.rights}
	switch {
	case !now.Before(c.expires):
		return given{}, refuse("invalid_grant", "the code has expired")
	case redirect != c.redirect:
		return given{}, refuse("invalid_grant", "redirect_uri is not that of the login")
	case !verifies(verifier, c.challenge):
		return given{}, refuse("invalid_grant", "code_verifier does not fit the code_challenge")
	}
	g := t.begin(c.chain, on, now)
	g.nonce = c.nonce
	return g, nil
}

// begin gives the first tokens of a chain. The lock is held.
func (t *tokens) begin(c *chain, on terms, now time.Time) given {
	g := given{token: t.addTo(c, c.rights, on, now), left: t.config.Lifetime, fresh: true, user: true}
	if t.config.RefreshTokens && !t.config.NoRefreshToken {
		g.refresh = t.start(c).text
	}
	if on.public {
		c.bound = on
	}
	return g
}

// verifies is RFC 7636 §4.6. No challenge needs no verifier.
func verifies(verifier, challenge string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= minVerifier && len(verifier) <= maxVerifier && equal(base64.RawURLEncoding.EncodeToString(sum[:]), challenge)
}
