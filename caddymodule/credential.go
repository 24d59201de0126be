package caddymodule

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// Credential says how an access token is obtained from an authorization
// server, and when it is renewed.
//
// Values that are sent, URLs, paths, the client id and secrets may hold the
// placeholders {env.*} and {file.*}, which are resolved at each token request:
// a secret that is rotated in its file is used without a reload.
type Credential struct {
	// TokenURL is the token endpoint (RFC 6749 §3.2): https, or http to a
	// loopback host. Required.
	TokenURL string `json:"token_url,omitempty"`

	// GrantRaw is what is asked for. Default: client_credentials.
	GrantRaw json.RawMessage `json:"grant,omitempty" caddy:"namespace=upstream_auth.grants inline_key=type"`

	// ClientID is the client's identifier at the server. Required.
	ClientID string `json:"client_id,omitempty"`

	// ClientAuthRaw is how the client proves who it is. It is never guessed by
	// trying; required for the grant client_credentials.
	ClientAuthRaw json.RawMessage `json:"client_auth,omitempty" caddy:"namespace=upstream_auth.client_auth inline_key=method"`

	// Scopes are asked for (RFC 6749 §3.3). A scope that the server leaves out
	// of its answer is warned about.
	Scopes []string `json:"scopes,omitempty"`

	// Audience is the parameter "audience", which many servers know.
	Audience string `json:"audience,omitempty"`

	// Resource are the URIs of the APIs that the token is for (RFC 8707).
	Resource []string `json:"resource,omitempty"`

	// Param are further parameters of the token request.
	Param map[string][]string `json:"param,omitempty"`

	// RefreshAt is the percentage of its lifetime after which a token is
	// renewed in the background, less a jitter of up to 10% of the lifetime.
	// From 10 to 95. Default: 75.
	RefreshAt *float64 `json:"refresh_at,omitempty"`

	// ExpiryMargin is the last part of its life in which a token counts as
	// expired, never more than a tenth of the lifetime. Default: 10s.
	ExpiryMargin caddy.Duration `json:"expiry_margin,omitempty"`

	// DefaultLifetime sets the renewal of a token that came without a usable
	// lifetime. While the server then fails, such a token is used for up to
	// 24h. Default: 5m.
	DefaultLifetime caddy.Duration `json:"default_lifetime,omitempty"`

	// Timeout ends one token request. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Request is the shape of the token request, for a server with its own words.
	Request *RequestShape `json:"request,omitempty"`

	// Response is the shape of the answer, likewise.
	Response *ResponseShape `json:"response,omitempty"`

	// TLS is the connection to the authorization server.
	TLS *TLS `json:"tls,omitempty"`

	// Proxy is the URL of the proxy to the authorization server: http, https,
	// socks5 or socks5h. Default: the environment's (HTTPS_PROXY, NO_PROXY).
	Proxy string `json:"proxy,omitempty"`

	// InsecureTokenURL allows a token_url that is http to another host than a
	// loopback one: the secret and the token then travel in the clear.
	InsecureTokenURL bool `json:"insecure_token_url,omitempty"`

	grant     grants.Grant
	grantName string
	method    clientauth.Method
}

// RequestShape is what differs from RFC 6749 in a server's token request.
type RequestShape struct {
	// Method is POST (the default) or GET.
	Method string `json:"method,omitempty"`
	// Body says where the parameters travel: form (the default), json, or
	// query, which GET implies.
	Body string `json:"body,omitempty"`
	// GrantType takes the place of the grant's own grant_type.
	GrantType string `json:"grant_type,omitempty"`
	// Rename gives a parameter the name that the server uses: client_id to appid.
	Rename map[string]string `json:"rename,omitempty"`
	// Header are further header fields.
	Header map[string]string `json:"header,omitempty"`
}

// ResponseShape is where in a server's answer the values are, as dotted paths
// (data.access_token).
type ResponseShape struct {
	AccessToken      string `json:"access_token,omitempty"`
	RefreshToken     string `json:"refresh_token,omitempty"`
	ExpiresIn        string `json:"expires_in,omitempty"`
	TokenType        string `json:"token_type,omitempty"`
	Error            string `json:"error,omitempty"`
	ErrorDescription string `json:"error_description,omitempty"`
	// ExpiresUnit is what expires_in counts: s (the default) or ms.
	ExpiresUnit string `json:"expires_unit,omitempty"`
}

// load loads the guest modules. The raw configuration is gone afterwards.
func (c *Credential) load(ctx caddy.Context) error {
	if c.GrantRaw == nil {
		c.GrantRaw = json.RawMessage(`{"type":"client_credentials"}`)
	}
	if err := knownModule(c.GrantRaw, "grant", "type", grants.Namespace); err != nil {
		return err
	}
	mod, err := ctx.LoadModule(c, "GrantRaw")
	if err != nil {
		return &optionError{"grant", err}
	}
	var ok bool
	if c.grant, ok = mod.(grants.Grant); !ok {
		return optionErrorf("grant", "module %T is not a grants.Grant", mod)
	}
	c.grantName = mod.(caddy.Module).CaddyModule().ID.Name()

	if c.ClientAuthRaw == nil {
		return nil
	}
	if err := knownModule(c.ClientAuthRaw, "client_auth", "method", clientauth.Namespace); err != nil {
		return err
	}
	mod, err = ctx.LoadModule(c, "ClientAuthRaw")
	if err != nil {
		return &optionError{"client_auth", err}
	}
	if c.method, ok = mod.(clientauth.Method); !ok {
		return optionErrorf("client_auth", "module %T is not a clientauth.Method", mod)
	}
	return nil
}

// knownModule looks into a guest module's raw configuration: its name has to
// be a known one, and no value in it may hold a placeholder of a request.
func knownModule(raw json.RawMessage, option, key, namespace string) error {
	var values map[string]any
	err := json.Unmarshal(raw, &values)
	name, _ := values[key].(string)
	if err != nil || name == "" {
		return optionErrorf(option, "expected an object with a %s, one of %s", key, knownModules(namespace))
	}
	if _, err := caddy.GetModule(namespace + "." + name); err != nil {
		return unknownGuest(option, name, namespace)
	}
	for _, name := range sorted(values) {
		if s, ok := values[name].(string); ok {
			if err := checkSecretPlaceholders(s); err != nil {
				return optionErrorf(option, "%s: %w", name, err)
			}
		}
	}
	return nil
}

// unknownGuest refuses the name of a guest module. A secret that stands where
// the name was forgotten is not repeated.
func unknownGuest(option, name, namespace string) error {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return optionErrorf(option, "the first argument is unknown, expected %s", knownModules(namespace))
	}
	return optionErrorf(option, "'%s' is unknown, expected %s", name, knownModules(namespace))
}

// knownModules lists the guest modules of a namespace.
func knownModules(namespace string) string {
	var known []string
	for _, info := range caddy.GetModules(namespace) {
		known = append(known, info.ID.Name())
	}
	return strings.Join(known, ", ")
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// policy is the credential's schedule with its defaults.
func (c *Credential) policy() token.Policy {
	p := token.Policy{
		RefreshAt:       token.DefaultRefreshAt,
		ExpiryMargin:    token.DefaultExpiryMargin,
		DefaultLifetime: token.DefaultLifetime,
		Timeout:         token.DefaultTimeout,
	}
	if c.RefreshAt != nil {
		p.RefreshAt = *c.RefreshAt
	}
	for to, from := range map[*time.Duration]caddy.Duration{
		&p.ExpiryMargin: c.ExpiryMargin, &p.DefaultLifetime: c.DefaultLifetime, &p.Timeout: c.Timeout,
	} {
		if from != 0 {
			*to = time.Duration(from)
		}
	}
	return p
}
