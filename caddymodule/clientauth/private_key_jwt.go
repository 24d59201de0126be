package clientauth

import (
	"cmp"
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func init() {
	caddy.RegisterModule(PrivateKeyJWT{})
}

// PrivateKeyJWT proves the client by a JWT that is signed with its private key
// (RFC 7523 §2.2, OpenID Connect Core §9). Each attempt has a JWT of its own,
// which lives for 60s.
type PrivateKeyJWT struct {
	// KeyFile is the path of the private key: RSA of 2048 bits or more, EC on
	// P-256, P-384 or P-521, or Ed25519; in PEM (PKCS#8, PKCS#1, SEC 1) or as a
	// JWK. It is read at each token request, and its path may hold
	// placeholders. Required.
	KeyFile string `json:"key_file,omitempty"`

	// KeyID is the kid by which the server knows the key, which may hold
	// placeholders. Default: that of the JWK, if it has one.
	KeyID string `json:"key_id,omitempty"`

	// Alg is what the JWT is signed with. Default: what fits the key (RS256;
	// ES256, ES384 or ES512 by the curve; EdDSA), or the first that fits and
	// that the issuer's metadata names.
	Alg string `json:"alg,omitempty"`

	// Audience is whom the JWT is for (aud): "issuer", "token_endpoint", or the
	// value itself, which may hold placeholders. Default: issuer where one is
	// configured, else token_endpoint.
	Audience string `json:"audience,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (PrivateKeyJWT) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".private_key_jwt",
		New: func() caddy.Module { return new(PrivateKeyJWT) },
	}
}

// Validate checks the options. It reads no file.
func (m *PrivateKeyJWT) Validate() error {
	if err := m.check(); err != nil {
		return fmt.Errorf("private_key_jwt: %w", err)
	}
	return nil
}

func (m *PrivateKeyJWT) check() error {
	if m.KeyFile == "" {
		return guest.Mistakef("key_file", "is missing: write the path of the client's private key")
	}
	if err := signing.CheckPath(m.KeyFile); err != nil {
		return &guest.Mistake{Option: "key_file", Err: err}
	}
	if err := signing.CheckAlgorithm(m.Alg); err != nil {
		return &guest.Mistake{Option: "alg", Err: err}
	}
	return nil
}

// Parameters implements Method.
func (*PrivateKeyJWT) Parameters() []string { return assertionParameters() }

// RegisteredNames implements Registered.
func (*PrivateKeyJWT) RegisteredNames() []string { return []string{"private_key_jwt"} }

// Authenticate implements Method.
func (m *PrivateKeyJWT) Authenticate(_ context.Context, r *Request) error {
	assertion, err := m.sign(r)
	if err != nil {
		return fmt.Errorf("private_key_jwt: %w", err)
	}
	return send(r, assertion)
}

func (m *PrivateKeyJWT) sign(r *Request) (string, error) {
	key, err := signing.LoadKey(m.KeyFile, r.Resolve, r.ReadFile)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	kid, err := r.Resolve(m.KeyID)
	if err != nil {
		return "", fmt.Errorf("key_id: %w", err)
	}
	alg, err := key.Algorithm(m.Alg, r.Algorithms)
	if err != nil {
		return "", err
	}
	claims, err := clientClaims(r, m.Audience)
	if err != nil {
		return "", err
	}
	return key.Sign(claims, signing.Options{Algorithm: alg, KeyID: cmp.Or(kid, key.KeyID()), Type: signing.TypeJWT})
}

// UnmarshalCaddyfile reads:
//
//	client_auth private_key_jwt {
//		key_file <path>
//		key_id <kid>
//		alg <alg>
//		audience issuer|token_endpoint|<value>
//	}
func (m *PrivateKeyJWT) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method's name
	if err := guest.NoArgument(d, "client_auth private_key_jwt"); err != nil {
		return err
	}
	return guest.Block(d, "private_key_jwt", guest.Options{
		"key_file": guest.Text(&m.KeyFile),
		"key_id":   guest.Text(&m.KeyID),
		"alg":      guest.Text(&m.Alg),
		"audience": guest.Text(&m.Audience),
	}, m.Validate)
}

// Interface guards
var (
	_ Method                = (*PrivateKeyJWT)(nil)
	_ Registered            = (*PrivateKeyJWT)(nil)
	_ caddy.Validator       = (*PrivateKeyJWT)(nil)
	_ caddyfile.Unmarshaler = (*PrivateKeyJWT)(nil)
)
