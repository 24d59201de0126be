package authserver

import (
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// googleAudience is what an assertion has to call the server.
	googleAudience = "https://oauth2.googleapis.com/token"
	// googleLifetime is the longest that an assertion may live.
	googleLifetime = time.Hour
)

// googleSubject reads what a service account has signed.
func googleSubject(s *Server, r Request, text string) (rights, *refusal) {
	fail := func(why string) (rights, *refusal) { return rights{}, refuse("invalid_grant", why) }
	c, err := readJWT(text, []jose.SignatureAlgorithm{jose.RS256}, s.config.AssertionKeys.Keys)
	now := time.Now()
	switch {
	case err != nil:
		return fail("Invalid JWT Signature.")
	case c.Issuer == "" || c.Issuer != s.config.ClientID:
		return fail("Invalid grant: account not found")
	case !slices.ContainsFunc(s.audiences(r), c.Audience.Contains):
		return fail("Invalid JWT: Failed audience check.")
	case c.Expiry == nil || c.IssuedAt == nil,
		c.Expiry.Time().Sub(c.IssuedAt.Time()) > googleLifetime,
		!now.Before(c.Expiry.Time()), now.Add(clockSkew).Before(c.IssuedAt.Time()):
		return fail("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.")
	}
	scope := c.text("scope")
	if scope == "" {
		return rights{}, refuse("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
	}
	subject := c.Subject // of a user that the account stands in for
	if subject == "" {
		subject = c.Issuer
	}
	return rights{scope: scope, subject: subject}, nil
}
