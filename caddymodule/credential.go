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
	// Issuer is the server's issuer identifier: its token endpoint, and what it
	// supports, are read from its metadata (RFC 8414, OpenID Connect
	// Discovery), whose issuer has to be exactly this one. The last metadata
	// that was read serves while the server is away. Either this or TokenURL.
	Issuer string `json:"issuer,omitempty"`

	// TokenURL is the token endpoint (RFC 6749 §3.2): https, or http to a
	// loopback host. Either this or Issuer.
	TokenURL string `json:"token_url,omitempty"`

	// GrantRaw is what is asked for. Default: client_credentials.
	GrantRaw json.RawMessage `json:"grant,omitempty" caddy:"namespace=upstream_auth.grants inline_key=type"`

	// ClientID is the client's identifier at the server. Required, but for the
	// grant jwt_bearer and the client authentication jwt_file, which name the
	// client themselves.
	ClientID string `json:"client_id,omitempty"`

	// ClientAuthRaw is how the client proves who it is. It is never guessed by
	// trying; required for the grant client_credentials.
	ClientAuthRaw json.RawMessage `json:"client_auth,omitempty" caddy:"namespace=upstream_auth.client_auth inline_key=method"`

	// Scopes are asked for (RFC 6749 §3.3). A scope that the server leaves out
	// of its answer is warned about. Default: none, so that the server chooses.
	Scopes []string `json:"scopes,omitempty"`

	// RefreshScopes sends the scopes with a refresh, too, for servers that want
	// them. Default: a refresh asks for what was granted (RFC 6749 §6).
	RefreshScopes bool `json:"refresh_scopes,omitempty"`

	// Audience is the parameter "audience", which many servers know. Default:
	// none.
	Audience string `json:"audience,omitempty"`

	// Resource are the URIs of the APIs that the token is for (RFC 8707).
	// Default: none.
	Resource []string `json:"resource,omitempty"`

	// Param are further parameters of the token request. Default: none.
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

	// Timeout ends one token request. Default: 10s, and 60s for a grant that
	// spends a refresh token: an answer that is not waited for may be lost.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// RejectedOn are the statuses of an upstream's answers that mean that it
	// refuses the token: another one is then asked for. From 400 to 599.
	// Default: 401.
	RejectedOn []int `json:"rejected_on,omitempty"`

	// Request is the shape of the token request, for a server with its own words.
	// Default: that of RFC 6749.
	Request *RequestShape `json:"request,omitempty"`

	// Response is the shape of the answer, likewise. Default: that of RFC 6749
	// §5.1.
	Response *ResponseShape `json:"response,omitempty"`

	// TLS is the connection to the authorization server. Default: the system's
	// certificates are trusted, and none is shown.
	TLS *TLS `json:"tls,omitempty"`

	// Proxy is the URL of the proxy to the authorization server: http, https,
	// socks5 or socks5h. Default: the environment's (HTTPS_PROXY, NO_PROXY).
	Proxy string `json:"proxy,omitempty"`

	// InsecureTokenURL allows a token_url, or an issuer and its endpoints, that
	// are http to another host than a loopback one: the secret and the token
	// then travel in the clear. Default: false.
	InsecureTokenURL bool `json:"insecure_token_url,omitempty"`

	// Share has the token shared by the instances that use the same Caddy
	// storage, and outlive a restart. Default: each instance has its own.
	Share *Share `json:"share,omitempty"`

	// DPoP binds the tokens to a key (RFC 9449). For the transport alone.
	// Default: they are not bound.
	DPoP *DPoP `json:"dpop,omitempty"`

	// TokenFile is a file that holds the token, for other programs. It is no part
	// of what makes the token: one that is added or dropped asks for none.
	// Default: none is written.
	TokenFile *TokenFile `json:"token_file,omitempty"`

	// MaxTokens is how many tokens a template may hold at once, one for each
	// distinct value that requests bring. When all are in use, further values
	// get 503. From 1 to 1000000. Default: 1000.
	MaxTokens int `json:"max_tokens,omitempty"`

	// MaxNew is how many tokens for new values a template asks for in a second.
	// From 0.1 to 1000. Default: 10.
	MaxNew float64 `json:"max_new,omitempty"`

	// IdleTimeout is how long a template keeps the token of a value that no
	// request brings any more. Default: 10m.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	grant     grants.Grant
	grantName string
	method    clientauth.Method
	template  template
	// guestFiles are those that are named in the guest modules' options.
	guestFiles []string
}

// RequestShape is what differs from RFC 6749 in a server's token request.
type RequestShape struct {
	// Method is POST (the default) or GET.
	Method string `json:"method,omitempty"`
	// Body says where the parameters travel: form (the default), json, or
	// query, which GET implies.
	Body string `json:"body,omitempty"`
	// GrantType takes the place of the grant's own grant_type. Default: the
	// grant's own.
	GrantType string `json:"grant_type,omitempty"`
	// Rename gives a parameter the name that the server uses: client_id to appid.
	// Default: they keep their names.
	Rename map[string]string `json:"rename,omitempty"`
	// Header are further header fields. Default: none.
	Header map[string]string `json:"header,omitempty"`
}

// ResponseShape is where in a server's answer the values are, as dotted paths
// (data.access_token).
type ResponseShape struct {
	// AccessToken is where the token is. Default: access_token.
	AccessToken string `json:"access_token,omitempty"`
	// RefreshToken is where a refresh token is. Default: refresh_token.
	RefreshToken string `json:"refresh_token,omitempty"`
	// ExpiresIn is where the token's lifetime is. Default: expires_in.
	ExpiresIn string `json:"expires_in,omitempty"`
	// TokenType is where the token's type is. Default: token_type.
	TokenType string `json:"token_type,omitempty"`
	// Error is where an error's code is. Default: error.
	Error string `json:"error,omitempty"`
	// ErrorDescription is where the words for it are. Default:
	// error_description.
	ErrorDescription string `json:"error_description,omitempty"`
	// ExpiresUnit is what expires_in counts: s (the default) or ms.
	ExpiresUnit string `json:"expires_unit,omitempty"`
}

// load loads the guest modules. The raw configuration is gone afterwards.
func (c *Credential) load(ctx caddy.Context) error {
	if c.GrantRaw == nil {
		c.GrantRaw = json.RawMessage(`{"type":"client_credentials"}`)
	}
	raw := c.GrantRaw // gone once it is loaded
	if err := knownModule(raw, "grant", "type", grants.Namespace); err != nil {
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
	if err := c.checkGuest(raw, "grant", c.grant); err != nil {
		return err
	}
	c.grantName = mod.(caddy.Module).CaddyModule().ID.Name()

	if c.ClientAuthRaw == nil {
		return nil
	}
	raw = c.ClientAuthRaw
	if err := knownModule(raw, "client_auth", "method", clientauth.Namespace); err != nil {
		return err
	}
	if err := c.checkGuest(raw, "client_auth", nil); err != nil {
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
// be a known one.
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
	return nil
}

// checkGuest looks at the placeholders in a guest module's options: those of a
// request are allowed only where the module says so, and make the credential a
// template.
func (c *Credential) checkGuest(raw json.RawMessage, option string, guest any) error {
	var values map[string]any
	if err := json.Unmarshal(raw, &values); err != nil {
		return &optionError{option, err}
	}
	for _, s := range stringsIn(values) {
		c.guestFiles = append(c.guestFiles, filesIn(s)...)
	}
	var templated []string
	if t, ok := guest.(grants.Templated); ok {
		templated = t.TemplateOptions()
	}
	for _, name := range sorted(values) {
		check := checkSecretPlaceholders
		if slices.Contains(templated, name) {
			check = c.template.take
		}
		for _, s := range stringsIn(values[name]) {
			if err := check(s); err != nil {
				return optionErrorf(option, "%s: %w", name, err)
			}
		}
	}
	return nil
}

// stringsIn lists the strings in a JSON value.
func stringsIn(v any) []string {
	var out []string
	switch v := v.(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, e := range v {
			out = append(out, stringsIn(e)...)
		}
	case map[string]any:
		for _, name := range sorted(v) {
			out = append(out, stringsIn(v[name])...)
		}
	}
	return out
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

// refreshTimeout ends a token request that spends a refresh token.
const refreshTimeout = time.Minute

// refreshing tells whether the credential keeps a refresh token.
func (c *Credential) refreshing() bool {
	_, ok := c.grant.(grants.Refreshing)
	return ok
}

// policy is the credential's schedule with its defaults.
func (c *Credential) policy() token.Policy {
	p := token.Policy{
		RefreshAt:       token.DefaultRefreshAt,
		ExpiryMargin:    token.DefaultExpiryMargin,
		DefaultLifetime: token.DefaultLifetime,
		Timeout:         token.DefaultTimeout,
	}
	if c.refreshing() {
		p.Timeout = refreshTimeout
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
