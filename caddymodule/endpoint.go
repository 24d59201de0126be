package caddymodule

import (
	"context"
	"fmt"
	"net/http"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// endpoint is where a token request goes, and what is known of the server.
type endpoint struct {
	tokenURL, issuer           string
	algorithms, dpopAlgorithms []string
	metadata                   *oauth.Metadata // nil without an issuer
}

// find resolves the server: a configured endpoint, or an issuer's.
func (q *requester) find(ctx context.Context, r *resolver, way http.RoundTripper) (*endpoint, error) {
	c := q.credential
	if c.Issuer == "" {
		tokenURL, err := r.resolve(c.TokenURL)
		if err != nil {
			return nil, fmt.Errorf("token_url: %w", err)
		}
		if err := c.allowedURL(tokenURL); err != nil {
			return nil, fmt.Errorf("token_url %w", err)
		}
		return &endpoint{tokenURL: tokenURL}, nil
	}
	issuer, err := r.resolve(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err := c.allowedIssuer(issuer); err != nil {
		return nil, fmt.Errorf("issuer %w", err)
	}
	m, err := q.server.get(ctx, issuer, func(ctx context.Context) (*oauth.Metadata, error) {
		return oauth.Discover(ctx, way, issuer, c.allowedURL)
	})
	if err != nil {
		return nil, err
	}
	// servers with public clients often leave "none" out of their list
	if registered, ok := c.method.(clientauth.Registered); ok && !isNone(c.method) {
		if err := m.SupportsMethod(registered.RegisteredNames()...); err != nil {
			return nil, fmt.Errorf("client_auth: %w", err)
		}
	}
	return &endpoint{
		tokenURL: c.alias(m.TokenEndpoint, m.MTLS.TokenEndpoint), issuer: issuer, metadata: m,
		algorithms: m.TokenEndpointAuthAlgorithms, dpopAlgorithms: m.DPoPAlgorithms,
	}, nil
}

func isNone(m clientauth.Method) bool {
	switch m.(type) {
	case clientauth.None, *clientauth.None:
		return true
	}
	return false
}
