package clientauth

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func init() {
	caddy.RegisterModule(ClientSecretJWT{})
}

// ClientSecretJWT proves the client by a JWT that is signed with its secret,
// which itself stays here (RFC 7523 §2.2, OpenID Connect Core §9). Each attempt
// has a JWT of its own, which lives for 60s.
type ClientSecretJWT struct {
	// Secret is the client secret. Placeholders are resolved at each token
	// request. Required.
	Secret string `json:"secret,omitempty"`

	// Alg is what the JWT is signed with: HS256, HS384 or HS512. Default:
	// HS256, or the first of these that the issuer's metadata names.
	Alg string `json:"alg,omitempty"`

	// Audience is whom the JWT is for (aud): "issuer", "token_endpoint", or the
	// value itself, which may hold placeholders. Default: issuer where one is
	// configured, else token_endpoint.
	Audience string `json:"audience,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (ClientSecretJWT) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".client_secret_jwt",
		New: func() caddy.Module { return new(ClientSecretJWT) },
	}
}

// Validate checks the options.
func (m *ClientSecretJWT) Validate() error {
	if err := m.check(); err != nil {
		return fmt.Errorf("client_secret_jwt: %w", err)
	}
	return nil
}

func (m *ClientSecretJWT) check() error {
	if m.Secret == "" {
		return errNoSecret
	}
	if err := signing.CheckHMACAlgorithm(m.Alg); err != nil {
		return &guest.Mistake{Option: "alg", Err: err}
	}
	return nil
}

// Parameters implements Method.
func (*ClientSecretJWT) Parameters() []string { return assertionParameters() }

// RegisteredNames implements Registered.
func (*ClientSecretJWT) RegisteredNames() []string { return []string{"client_secret_jwt"} }

// ConfiguredSecret implements SecretHolder.
func (m *ClientSecretJWT) ConfiguredSecret() string { return m.Secret }

// Authenticate implements Method.
func (m *ClientSecretJWT) Authenticate(_ context.Context, r *Request) error {
	secret, err := r.Secret(m.Secret)
	if err != nil {
		return fmt.Errorf("client secret: %w", err)
	}
	alg, err := signing.HMACAlgorithm(m.Alg, r.Algorithms)
	if err != nil {
		return fmt.Errorf("client_secret_jwt: %w", err)
	}
	claims, err := clientClaims(r, m.Audience)
	if err != nil {
		return fmt.Errorf("client_secret_jwt: %w", err)
	}
	assertion, err := signing.SignHMAC(secret, alg, claims)
	if err != nil {
		return fmt.Errorf("client_secret_jwt: %w", err)
	}
	return send(r, assertion)
}

// UnmarshalCaddyfile reads:
//
//	client_auth client_secret_jwt <secret> {
//		alg HS256|HS384|HS512
//		audience issuer|token_endpoint|<value>
//	}
func (m *ClientSecretJWT) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := unmarshalSecret(d, &m.Secret); err != nil {
		return err
	}
	return guest.Block(d, "client_secret_jwt", guest.Options{
		"alg":      guest.Text(&m.Alg),
		"audience": guest.Text(&m.Audience),
	}, m.Validate)
}

// Interface guards
var (
	_ Method                = (*ClientSecretJWT)(nil)
	_ SecretHolder          = (*ClientSecretJWT)(nil)
	_ Registered            = (*ClientSecretJWT)(nil)
	_ caddy.Validator       = (*ClientSecretJWT)(nil)
	_ caddyfile.Unmarshaler = (*ClientSecretJWT)(nil)
)
