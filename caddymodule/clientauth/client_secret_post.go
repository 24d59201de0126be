package clientauth

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(ClientSecretPost{})
}

// ClientSecretPost sends the client's id and secret as parameters of the
// request (RFC 6749 §2.3.1).
type ClientSecretPost struct {
	// Secret is the client secret. Placeholders are resolved at each token
	// request. Required.
	Secret string `json:"secret,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (ClientSecretPost) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".client_secret_post",
		New: func() caddy.Module { return new(ClientSecretPost) },
	}
}

// Validate checks the options.
func (m *ClientSecretPost) Validate() error {
	if m.Secret == "" {
		return fmt.Errorf("client_secret_post: %w", errNoSecret)
	}
	return nil
}

// Parameters implements Method.
func (*ClientSecretPost) Parameters() []string { return []string{"client_id", "client_secret"} }

// RegisteredNames implements Registered.
func (*ClientSecretPost) RegisteredNames() []string { return []string{"client_secret_post"} }

// ConfiguredSecret implements SecretHolder.
func (m *ClientSecretPost) ConfiguredSecret() string { return m.Secret }

// Authenticate implements Method.
func (m *ClientSecretPost) Authenticate(_ context.Context, r *Request) error {
	secret, err := r.Secret(m.Secret)
	if err != nil {
		return fmt.Errorf("client secret: %w", err)
	}
	r.Params.Set("client_id", r.ClientID)
	r.Params.Set("client_secret", secret)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	client_auth client_secret_post <secret>
func (m *ClientSecretPost) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := unmarshalSecret(d, &m.Secret); err != nil {
		return err
	}
	if d.NextBlock(0) {
		return d.Errf("client_auth client_secret_post has no options, but has '%s'", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ Method                = (*ClientSecretPost)(nil)
	_ SecretHolder          = (*ClientSecretPost)(nil)
	_ Registered            = (*ClientSecretPost)(nil)
	_ caddy.Validator       = (*ClientSecretPost)(nil)
	_ caddyfile.Unmarshaler = (*ClientSecretPost)(nil)
)
