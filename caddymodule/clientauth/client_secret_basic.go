package clientauth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(ClientSecretBasic{})
}

// ClientSecretBasic sends the client's id and secret by HTTP Basic (RFC 6749
// §2.3.1).
type ClientSecretBasic struct {
	// Secret is the client secret. Placeholders are resolved at each token
	// request. Required.
	Secret string `json:"secret,omitempty"`

	// Encoding is what is done to id and secret before they are joined:
	// "form" (the default) encodes both as the RFC demands; "raw" leaves them
	// as they are, for servers that skip the decoding. It matters where one of
	// them holds another character than letters, digits, "-", ".", "_".
	Encoding string `json:"encoding,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (ClientSecretBasic) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".client_secret_basic",
		New: func() caddy.Module { return new(ClientSecretBasic) },
	}
}

// Validate checks the options.
func (m *ClientSecretBasic) Validate() error {
	if m.Secret == "" {
		return fmt.Errorf("client_secret_basic: %w", errNoSecret)
	}
	switch m.Encoding {
	case "", "form", "raw":
		return nil
	}
	return fmt.Errorf("client_secret_basic: encoding is '%s', expected form or raw", m.Encoding)
}

// Parameters implements Method.
func (*ClientSecretBasic) Parameters() []string { return []string{"client_id", "client_secret"} }

// RegisteredNames implements Registered.
func (*ClientSecretBasic) RegisteredNames() []string { return []string{"client_secret_basic"} }

// HeaderFields implements HeaderSetter.
func (*ClientSecretBasic) HeaderFields() []string { return []string{"Authorization"} }

// ConfiguredSecret implements SecretHolder.
func (m *ClientSecretBasic) ConfiguredSecret() string { return m.Secret }

// Authenticate implements Method.
func (m *ClientSecretBasic) Authenticate(_ context.Context, r *Request) error {
	secret, err := r.Secret(m.Secret)
	if err != nil {
		return fmt.Errorf("client secret: %w", err)
	}
	id := r.ClientID
	if m.Encoding != "raw" {
		id, secret = url.QueryEscape(id), url.QueryEscape(secret)
	}
	// masked too; base64 holds no braces, so nothing in it is replaced
	pair := base64.StdEncoding.EncodeToString([]byte(id + ":" + secret))
	if pair, err = r.Secret(pair); err != nil {
		return err
	}
	r.Header.Set("Authorization", "Basic "+pair)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	client_auth client_secret_basic <secret> {
//		encoding form|raw
//	}
func (m *ClientSecretBasic) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := unmarshalSecret(d, &m.Secret); err != nil {
		return err
	}
	for d.NextBlock(0) {
		if d.Val() != "encoding" {
			return d.Errf("unrecognized option '%s' of client_secret_basic; known: encoding", d.Val())
		}
		if m.Encoding != "" {
			return d.Err("encoding is given twice")
		}
		if !d.AllArgs(&m.Encoding) || (m.Encoding != "form" && m.Encoding != "raw") {
			return d.Errf("encoding takes one argument, form or raw, not '%s'", d.Val())
		}
	}
	return nil
}

// Interface guards
var (
	_ Method                = (*ClientSecretBasic)(nil)
	_ HeaderSetter          = (*ClientSecretBasic)(nil)
	_ SecretHolder          = (*ClientSecretBasic)(nil)
	_ Registered            = (*ClientSecretBasic)(nil)
	_ caddy.Validator       = (*ClientSecretBasic)(nil)
	_ caddyfile.Unmarshaler = (*ClientSecretBasic)(nil)
)
