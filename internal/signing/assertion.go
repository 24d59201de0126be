package signing

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// TypeJWT is the typ of a JWT that is nothing more special (RFC 7519 §5.1).
const TypeJWT = "JWT"

// AssertionLifetime is the default of Assertion.Lifetime.
const AssertionLifetime = time.Minute

const (
	clockSkew = 5 * time.Second // the clock of the server may be behind
	maxSpan   = time.Hour       // Google, for one, takes nothing longer from iat to exp
)

// Assertion is what a JWT says that is sent as an assertion (RFC 7523 §3).
type Assertion struct {
	// Issuer, Subject and Audience are iss, sub and aud. An empty one is left
	// out.
	Issuer, Subject, Audience string
	// Lifetime is how long the JWT can be used from now on, one hour at most.
	// Default: one minute.
	Lifetime time.Duration
	// Claims are further ones; CheckClaim tells their names.
	Claims map[string]string
}

// JWTClaims are the claims, with a jti of their own at each call.
func (a *Assertion) JWTClaims(now time.Time) map[string]any {
	claims := make(map[string]any, len(a.Claims)+6)
	for name, value := range a.Claims {
		claims[name] = value
	}
	for name, value := range map[string]string{"iss": a.Issuer, "sub": a.Subject, "aud": a.Audience} {
		if value != "" {
			claims[name] = value
		}
	}
	lifetime := a.Lifetime
	if lifetime == 0 {
		lifetime = AssertionLifetime
	}
	expires := now.Add(lifetime)
	issued := now.Add(-clockSkew)
	if earliest := expires.Add(-maxSpan); issued.Before(earliest) {
		issued = earliest
	}
	maps.Copy(claims, map[string]any{"jti": NewID(), "iat": issued.Unix(), "exp": expires.Unix()})
	return claims
}

// NewID is a jti: 128 random bits at least, which nobody has used.
func NewID() string { return rand.Text() }

// CheckClaim refuses the name of a claim that Assertion sets itself.
func CheckClaim(name string) error {
	if strings.Contains(name, "{") {
		return errors.New("is a name, which takes no placeholder")
	}
	switch name {
	case "":
		return errors.New("is a claim without a name")
	case "iss":
		return errors.New("is set by issuer")
	case "sub":
		return errors.New("is set by subject")
	case "aud":
		return errors.New("is set by audience")
	case "exp":
		return errors.New("is set by lifetime")
	case "iat", "nbf", "jti":
		return errors.New("is not to be set: each JWT has its own time and identifier")
	}
	return nil
}

// Audience is the aud of an assertion. configured is the option audience:
// "issuer", "token_endpoint", or the value itself, in which resolve replaces the
// placeholders; "" is the issuer where there is one, else the token endpoint.
func Audience(configured, issuer, tokenURL string, resolve func(string) (string, error)) (string, error) {
	switch {
	case configured == "token_endpoint", configured == "" && issuer == "":
		return tokenURL, nil
	case configured == "":
		return issuer, nil
	case configured != "issuer":
		audience, err := resolve(configured)
		if err != nil {
			return "", fmt.Errorf("audience: %w", err)
		}
		return audience, nil
	case issuer == "":
		return "", errors.New("audience is issuer, but the credential has a token_url and no issuer: write issuer in its place, or audience token_endpoint")
	}
	return issuer, nil
}
