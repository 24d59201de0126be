package grants

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(ClientCredentials{})
}

// ClientCredentials is the client credentials grant (RFC 6749 §4.4): the
// client asks for a token in its own name. It has no options.
type ClientCredentials struct{}

// CaddyModule returns the Caddy module information.
func (ClientCredentials) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".client_credentials",
		New: func() caddy.Module { return new(ClientCredentials) },
	}
}

// GrantType implements Grant.
func (ClientCredentials) GrantType() string { return "client_credentials" }

// Parameters implements Grant.
func (ClientCredentials) Parameters() []string { return nil }

// Prepare implements Grant.
func (ClientCredentials) Prepare(context.Context, *Request) error { return nil }

// RequiresClientAuth implements ClientAuthenticated (RFC 6749 §4.4.2).
func (ClientCredentials) RequiresClientAuth() bool { return true }

// UnmarshalCaddyfile reads:
//
//	grant client_credentials
func (ClientCredentials) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the grant's name
	if d.NextArg() {
		return d.Errf("grant client_credentials takes no argument, but has '%s'", d.Val())
	}
	if d.NextBlock(0) {
		return d.Errf("grant client_credentials has no options, but has '%s'", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ Grant                 = (*ClientCredentials)(nil)
	_ ClientAuthenticated   = (*ClientCredentials)(nil)
	_ caddyfile.Unmarshaler = (*ClientCredentials)(nil)
)
