package grants

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
)

func init() {
	caddy.RegisterModule(AuthorizationCode{})
}

// AuthorizationCode is the authorization code grant with PKCE (RFC 6749 §4.1,
// RFC 7636), or the device grant (RFC 8628): a person logs in once, with the
// command caddy upstream-auth login, and the refresh token that this brings is
// kept in Caddy's storage and spent from then on.
type AuthorizationCode struct {
	// AuthorizationURL is the authorization endpoint. Default: what the
	// issuer's metadata says; required for a login without an issuer.
	AuthorizationURL string `json:"authorization_url,omitempty"`

	// DeviceAuthorizationURL is the device authorization endpoint, for login
	// --device. Default: what the issuer's metadata says.
	DeviceAuthorizationURL string `json:"device_authorization_url,omitempty"`

	// RedirectURI is where the browser brings the code: a loopback address, on
	// which login listens, as it is registered at the server. Required for a
	// login but with --device.
	RedirectURI string `json:"redirect_uri,omitempty"`

	// Grace is how long after an answer was lost the server takes the same
	// refresh token again, as in the grant refresh_token. Default: 0.
	Grace caddy.Duration `json:"retry_grace,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (AuthorizationCode) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".authorization_code",
		New: func() caddy.Module { return new(AuthorizationCode) },
	}
}

// Validate checks the options.
func (g *AuthorizationCode) Validate() error {
	for _, o := range []struct{ option, value string }{
		{"authorization_url", g.AuthorizationURL}, {"device_authorization_url", g.DeviceAuthorizationURL},
	} {
		u, err := url.Parse(o.value)
		if o.value != "" && !strings.Contains(o.value, "{") && (err != nil || u.Hostname() == "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https") {
			return guest.Mistakef(o.option, "is not the URL of an endpoint: expected https://host/path")
		}
	}
	if g.RedirectURI != "" && !strings.Contains(g.RedirectURI, "{") {
		if err := CheckRedirectURI(g.RedirectURI); err != nil {
			return &guest.Mistake{Option: "redirect_uri", Err: err}
		}
	}
	return graceMistake(g.Grace)
}

// CheckRedirectURI refuses an address that a login cannot listen on: the code
// must not leave this machine (RFC 8252 §7.3).
func CheckRedirectURI(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return fmt.Errorf("'%s' is not one to listen on: expected http://127.0.0.1:8400/callback, as it is registered at the server", uri)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("'%s' is not a loopback address: expected http://127.0.0.1:8400/callback, as it is registered at the server", uri)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return fmt.Errorf("'%s' has a port that is none: expected http://127.0.0.1:8400/callback, as it is registered at the server", uri)
	}
	if u.Port() == "" {
		return fmt.Errorf("'%s' names no port: expected http://127.0.0.1:8400/callback, as it is registered at the server", uri)
	}
	return nil
}

// GrantType implements Grant: after the login it is a refresh.
func (*AuthorizationCode) GrantType() string { return "refresh_token" }

// Parameters implements Grant: those of the refresh and of the login.
func (*AuthorizationCode) Parameters() []string {
	return []string{
		"refresh_token", "code", "redirect_uri", "code_verifier", "code_challenge", "code_challenge_method",
		"response_type", "state", "nonce", "device_code",
	}
}

// InitialRefreshToken implements Refreshing: it comes with the login.
func (*AuthorizationCode) InitialRefreshToken() string { return "" }

// RetryGrace implements Refreshing.
func (g *AuthorizationCode) RetryGrace() time.Duration { return time.Duration(g.Grace) }

// Prepare implements Grant.
func (*AuthorizationCode) Prepare(_ context.Context, r *Request) error {
	r.Params.Set("refresh_token", r.RefreshToken)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	grant authorization_code {
//		authorization_url <url>
//		device_authorization_url <url>
//		redirect_uri <url>
//		retry_grace <duration>
//	}
func (g *AuthorizationCode) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the grant's name
	if err := guest.NoArgument(d, "grant authorization_code"); err != nil {
		return err
	}
	return guest.Block(d, "grant authorization_code", guest.Options{
		"authorization_url":        guest.Text(&g.AuthorizationURL),
		"device_authorization_url": guest.Text(&g.DeviceAuthorizationURL),
		"redirect_uri":             guest.Text(&g.RedirectURI),
		"retry_grace":              guest.Duration(&g.Grace, checkGrace),
	}, g.Validate)
}

// Interface guards
var (
	_ Grant                 = (*AuthorizationCode)(nil)
	_ Refreshing            = (*AuthorizationCode)(nil)
	_ caddy.Validator       = (*AuthorizationCode)(nil)
	_ caddyfile.Unmarshaler = (*AuthorizationCode)(nil)
)
