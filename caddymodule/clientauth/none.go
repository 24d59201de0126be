package clientauth

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(None{})
}

// None is the method of a public client, or of one that the server knows by
// other means: it names itself and proves nothing (RFC 6749 §2.1).
type None struct{}

// CaddyModule returns the Caddy module information.
func (None) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".none",
		New: func() caddy.Module { return new(None) },
	}
}

// Parameters implements Method.
func (None) Parameters() []string { return []string{"client_id"} }

// RegisteredNames implements Registered.
func (None) RegisteredNames() []string { return []string{"none"} }

// Authenticate implements Method.
func (None) Authenticate(_ context.Context, r *Request) error {
	if r.ClientID != "" { // else the grant names the client
		r.Params.Set("client_id", r.ClientID)
	}
	return nil
}

// UnmarshalCaddyfile reads:
//
//	client_auth none
func (None) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method's name
	if d.NextArg() {
		// not its value: it may be a secret
		return d.Err("client_auth none takes no secret: remove the argument, or name a method that sends it")
	}
	if d.NextBlock(0) {
		return d.Errf("client_auth none has no options, but has '%s'", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ Method                = (*None)(nil)
	_ Registered            = (*None)(nil)
	_ caddyfile.Unmarshaler = (*None)(nil)
)
