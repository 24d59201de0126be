package grants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
)

func init() {
	caddy.RegisterModule(RefreshToken{})
}

// RefreshToken spends a refresh token that was obtained elsewhere (RFC 6749
// §6). One that the server gives in its place is kept in Caddy's storage and
// spent next; the configured one is taken once, and again only if it is another.
type RefreshToken struct {
	// RefreshToken is the one to begin with. Placeholders are resolved at each
	// token request. Required.
	RefreshToken string `json:"refresh_token,omitempty"`

	// RetryGrace is how long after an answer was lost the server takes the same
	// refresh token again. Without it a refresh token whose answer was lost
	// rests while the access token is valid, for servers that detect a reuse
	// end the login. From 0 to 1h. Default: 0.
	Grace caddy.Duration `json:"retry_grace,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (RefreshToken) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".refresh_token",
		New: func() caddy.Module { return new(RefreshToken) },
	}
}

var errNoRefreshToken = errors.New("the refresh token to begin with is required: write {file./path/to/token} or {env.NAME}")

// Validate checks the options.
func (g *RefreshToken) Validate() error {
	if g.RefreshToken == "" {
		return fmt.Errorf("refresh_token: %w", errNoRefreshToken)
	}
	return graceMistake(g.Grace)
}

// maxGrace is more than any server forgives.
const maxGrace = time.Hour

func checkGrace(d caddy.Duration) error {
	if d < 0 || time.Duration(d) > maxGrace {
		return fmt.Errorf("%s is out of range: expected 0s to %s", time.Duration(d), maxGrace)
	}
	return nil
}

func graceMistake(d caddy.Duration) error {
	if err := checkGrace(d); err != nil {
		return &guest.Mistake{Option: "retry_grace", Err: err}
	}
	return nil
}

// GrantType implements Grant.
func (*RefreshToken) GrantType() string { return "refresh_token" }

// Parameters implements Grant.
func (*RefreshToken) Parameters() []string { return []string{"refresh_token"} }

// InitialRefreshToken implements Refreshing.
func (g *RefreshToken) InitialRefreshToken() string { return g.RefreshToken }

// ConfiguredSecrets implements SecretHolder.
func (g *RefreshToken) ConfiguredSecrets() []string { return []string{g.RefreshToken} }

// RetryGrace implements Refreshing.
func (g *RefreshToken) RetryGrace() time.Duration { return time.Duration(g.Grace) }

// Prepare implements Grant.
func (*RefreshToken) Prepare(_ context.Context, r *Request) error {
	r.Params.Set("refresh_token", r.RefreshToken)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	grant refresh_token <initial> {
//		retry_grace <duration>
//	}
func (g *RefreshToken) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the grant's name
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("grant refresh_token: %w", errNoRefreshToken)
	}
	g.RefreshToken = d.Val()
	if d.NextArg() {
		return d.Err("grant refresh_token takes one argument, the refresh token to begin with; there is a second one")
	}
	return guest.Block(d, "grant refresh_token", guest.Options{
		"retry_grace": guest.Duration(&g.Grace, checkGrace),
	}, g.Validate)
}

// Interface guards
var (
	_ Grant                 = (*RefreshToken)(nil)
	_ Refreshing            = (*RefreshToken)(nil)
	_ SecretHolder          = (*RefreshToken)(nil)
	_ caddy.Validator       = (*RefreshToken)(nil)
	_ caddyfile.Unmarshaler = (*RefreshToken)(nil)
)
