package caddymodule

import (
	"net/url"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
)

// facts are what the configuration alone tells of a credential to one who has to
// mend it.
func (c *Credential) facts(name string) advice.Facts {
	k := advice.Facts{
		Credential: name, Grant: c.grantName, Scopes: c.Scopes, Timeout: c.policy().Timeout,
		Endpoint: withoutQuery(c.TokenURL), Issuer: withoutQuery(c.Issuer),
	}
	if m, ok := c.method.(caddy.Module); ok {
		k.Method = m.CaddyModule().ID.Name()
	}
	if m, ok := c.method.(*clientauth.ClientSecretBasic); ok {
		if k.Encoding = m.Encoding; k.Encoding == "" {
			k.Encoding = "form"
		}
	}
	if c.refreshing() {
		k.Login = "write a new one into the grant refresh_token"
		if _, ok := c.grant.(*grants.AuthorizationCode); ok {
			k.Login = "run: caddy upstream-auth login " + name
		}
	}
	return k
}

// withoutQuery is a configured URL as it may be shown, "" for one that a
// placeholder is part of.
func withoutQuery(configured string) string {
	u, err := url.Parse(configured)
	if err != nil || hasPlaceholder(configured) {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// serverOf is what a credential's server is called.
func serverOf(k *advice.Facts) string {
	if k.Issuer != "" {
		return k.Issuer
	}
	return k.Endpoint
}
