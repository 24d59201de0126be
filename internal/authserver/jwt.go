package authserver

import (
	"crypto"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// What a JWT may be signed with: by a key pair, or by a secret.
var (
	asymmetric = []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
	symmetric = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
)

// clockSkew is how far the clocks of others may be from this one.
const clockSkew = 30 * time.Second

// PublicKeys is a set of public keys for a Config, of RSA, ECDSA or Ed25519.
func PublicKeys(keys ...crypto.PublicKey) jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key})
	}
	return set
}

// secretKey is a secret as a key: go-jose wants one as long as the hash, and
// HMAC itself appends zeros to a shorter one (RFC 2104 §2).
func secretKey(secret string, alg jose.SignatureAlgorithm) jose.JSONWebKey {
	size := map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64}[alg]
	return jose.JSONWebKey{Key: append([]byte(secret), make([]byte, max(0, size-len(secret)))...)}
}

// claims are what a JWT says.
type claims struct {
	jwt.Claims
	all    map[string]any
	header jose.Header
}

// peekJWT reads a JWT and checks no signature.
func peekJWT(text string, algorithms []jose.SignatureAlgorithm) (*claims, error) {
	token, err := jwt.ParseSigned(text, algorithms)
	if err != nil {
		return nil, errors.New("it is no JWT, or signed in a way that is not taken here")
	}
	c := &claims{header: token.Headers[0]}
	if err := token.UnsafeClaimsWithoutVerification(&c.Claims, &c.all); err != nil {
		return nil, errors.New("its claims cannot be read")
	}
	return c, nil
}

// readJWT reads a JWT that one of the keys has signed. A kid, where it and a key
// have one, tells which.
func readJWT(text string, algorithms []jose.SignatureAlgorithm, keys []jose.JSONWebKey) (*claims, error) {
	c, err := peekJWT(text, algorithms)
	if err != nil {
		return nil, err
	}
	token, err := jwt.ParseSigned(text, algorithms)
	if err != nil {
		return nil, err
	}
	signed := slices.ContainsFunc(keys, func(key jose.JSONWebKey) bool {
		if c.header.KeyID != "" && key.KeyID != "" && c.header.KeyID != key.KeyID {
			return false
		}
		return token.Claims(key.Key) == nil
	})
	if !signed {
		return nil, errors.New("its signature is not that of a known key")
	}
	return c, nil
}

// judge looks at what RFC 7523 §3 asks of an assertion, but for whom it is of:
// it is meant for one of the audiences, has an end, and has not come to it.
func (c *claims) judge(audiences []string, now time.Time, late time.Duration) error {
	switch {
	case !slices.ContainsFunc(audiences, c.Audience.Contains):
		return errors.New("its audience is another server")
	case c.Expiry == nil:
		return errors.New("it has no exp")
	case !now.Before(c.Expiry.Time().Add(late)):
		return errors.New("it has expired")
	case c.NotBefore != nil && now.Add(clockSkew).Before(c.NotBefore.Time()):
		return errors.New("its nbf is yet to come")
	case c.IssuedAt != nil && now.Add(clockSkew).Before(c.IssuedAt.Time()):
		return errors.New("its iat is yet to come")
	}
	return nil
}
