package clientauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionParameters are those that an assertion is sent with. client_id is
// optional (RFC 7521 §4.2), but many servers want it.
func assertionParameters() []string {
	return []string{"client_id", "client_assertion_type", "client_assertion"}
}

var errNoClientID = errors.New("client_id is missing, which this method sends")

// clientClaims are the claims of a client's own assertion (RFC 7523 §3, OpenID
// Connect Core §9).
func clientClaims(r *Request, audience string) (map[string]any, error) {
	if r.ClientID == "" {
		return nil, errNoClientID
	}
	aud, err := signing.Audience(audience, r.Issuer, r.TokenURL, r.Resolve)
	if err != nil {
		return nil, err
	}
	a := signing.Assertion{Issuer: r.ClientID, Subject: r.ClientID, Audience: aud}
	return a.JWTClaims(time.Now()), nil
}

// send adds an assertion to a request. It is masked; a JWT holds no braces, so
// nothing in it is replaced.
func send(r *Request, assertion string) error {
	assertion, err := r.Secret(assertion)
	if err != nil {
		return fmt.Errorf("client assertion: %w", err)
	}
	if r.ClientID != "" {
		r.Params.Set("client_id", r.ClientID)
	}
	r.Params.Set("client_assertion_type", assertionType)
	r.Params.Set("client_assertion", assertion)
	return nil
}
