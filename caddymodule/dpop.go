package caddymodule

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

// DPoP binds the access token to a key (RFC 9449): each token request, and each
// request to the upstream, then carries a proof that is signed with it. Whoever
// takes the token alone can do nothing with it.
//
// It is for the transport alone, for the handler does not know the upstream's
// URL, which stands in the proof.
type DPoP struct {
	// KeyFile is the path of the private key, in PEM or as a JWK: EC, RSA or
	// Ed25519. It is read again at each token request; a new one is used from
	// the token on that is bound to it. Required.
	KeyFile string `json:"key_file,omitempty"`
}

func (d *DPoP) check() error {
	if d == nil {
		return nil
	}
	if d.KeyFile == "" {
		return optionErrorf("dpop", "needs key_file, the path of a private key")
	}
	if err := checkPlaceholders(d.KeyFile); err != nil {
		return &optionError{"dpop key_file", err}
	}
	if err := signing.CheckPath(d.KeyFile); err != nil {
		return &optionError{"dpop key_file", err}
	}
	return nil
}

// bind reads the key that the next token is to be bound to.
func (d *DPoP) bind(b *binding, r *resolver, supported []string) error {
	key, err := signing.LoadKey(d.KeyFile, r.resolve, r.secretFile)
	if err == nil {
		b.key = key
		b.alg, err = key.Algorithm("", supported)
	}
	if err != nil {
		return fmt.Errorf("dpop key_file: %w", err)
	}
	return nil
}

// proving is a way to the authorization server that proves the key.
func (b *binding) proving(way http.RoundTripper) http.RoundTripper {
	return provenWay{b, way}
}

type provenWay struct {
	*binding
	way http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (p provenWay) RoundTrip(req *http.Request) (*http.Response, error) {
	attempt := req.Clone(req.Context())
	if _, err := p.prove(attempt.Header, req.Method, req.URL, ""); err != nil {
		return nil, errors.New("the DPoP proof cannot be signed")
	}
	res, err := p.way.RoundTrip(attempt)
	if err == nil {
		p.nonces.Learn(req.URL, res.Header) // RFC 9449 §8.2
	}
	return res, err
}
