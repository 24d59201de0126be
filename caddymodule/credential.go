package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

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

// optionError is a mistake in one option of a block. The Caddyfile parser adds
// where the option stands; provisioning adds the credential.
type optionError struct {
	option string
	err    error
}

func (e *optionError) Error() string { return e.option + ": " + e.err.Error() }
func (e *optionError) Unwrap() error { return e.err }

func optionErrorf(option, format string, args ...any) *optionError {
	return &optionError{option, fmt.Errorf(format, args...)}
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// inlinePrefix begins the names of credentials that are written in place.
const inlinePrefix = "inline-"

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("'%s' is not a credential's name: expected 1 to 64 letters, digits, '_', '.' or '-', a letter or digit first", name)
	}
	if strings.HasPrefix(name, inlinePrefix) {
		return fmt.Errorf("the credential name '%s' begins with %s, which is kept for those written in place", name, inlinePrefix)
	}
	return nil
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
	if err := json.Unmarshal(raw, &values); err != nil {
		return &optionError{option, err}
	}
	name, _ := values[key].(string)
	if _, err := caddy.GetModule(namespace + "." + name); name == "" || err != nil {
		return &optionError{option, unknownModule(name, namespace)}
	}
	for _, name := range sorted(values) {
		if s, ok := values[name].(string); ok {
			if err := checkPlaceholders(s); err != nil {
				return optionErrorf(option, "%s: %w", name, err)
			}
		}
	}
	return nil
}

func unknownModule(name, namespace string) error {
	var known []string
	for _, info := range caddy.GetModules(namespace) {
		known = append(known, info.ID.Name())
	}
	return fmt.Errorf("'%s' is unknown; known: %s", name, strings.Join(known, ", "))
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check tells what is wrong with a credential whose guest modules are loaded,
// as an *optionError. It reads no file and resolves nothing.
func (c *Credential) check() error {
	for _, check := range []func() error{
		c.checkTokenURL, c.checkClient, c.checkParams, c.checkPolicy, c.Request.check, c.Response.check, c.checkConnection,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Credential) checkTokenURL() error {
	if c.TokenURL == "" {
		return optionErrorf("token_url", "is missing: write the server's token endpoint, token_url https://…")
	}
	if err := checkPlaceholders(c.TokenURL); err != nil {
		return &optionError{"token_url", err}
	}
	if hasPlaceholder(c.TokenURL) {
		return nil // checked at the token request
	}
	if err := c.allowedTokenURL(c.TokenURL); err != nil {
		return &optionError{"token_url", err}
	}
	return nil
}

// allowedTokenURL tells whether a secret may be sent to a URL.
func (c *Credential) allowedTokenURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("is not a URL")
	}
	switch {
	case u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("expected https://host/path, not '%s'", u.Redacted())
	case u.User != nil:
		return errors.New("holds a user: write client_id and client_auth instead")
	case u.Fragment != "":
		return errors.New("holds a fragment (#), which RFC 6749 §3.2 forbids")
	case u.Scheme == "https" || c.InsecureTokenURL:
		return nil
	case !isLoopback(u.Hostname()):
		return fmt.Errorf("'%s' is http to another host than a loopback one, so the secret would travel in the clear: write https, or insecure_token_url to allow it", u.Redacted())
	case c.Proxy != "":
		return errors.New("is http through a proxy, so the secret would travel in the clear: write https, or insecure_token_url to allow it")
	}
	return nil
}

// isLoopback tells whether a host is this machine (RFC 6761 §6.3 for names).
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (c *Credential) checkClient() error {
	if c.ClientID == "" {
		return optionErrorf("client_id", "is missing")
	}
	if err := checkPlaceholders(c.ClientID); err != nil {
		return &optionError{"client_id", err}
	}
	if c.method != nil {
		return nil
	}
	if g, ok := c.grant.(grants.ClientAuthenticated); ok && g.RequiresClientAuth() {
		return optionErrorf("client_auth", "is missing: the grant %s needs one (%w)", c.grantName, unknownModule("", clientauth.Namespace))
	}
	c.method = clientauth.None{}
	return nil
}

func (c *Credential) checkParams() error {
	values := map[string][]string{"scopes": c.Scopes, "audience": {c.Audience}, "resource": c.Resource}
	for _, option := range sorted(values) {
		for _, v := range values[option] {
			if err := checkPlaceholders(v); err != nil {
				return &optionError{option, err}
			}
		}
	}
	for _, s := range c.Scopes {
		if err := checkScope(s); err != nil && !hasPlaceholder(s) {
			return &optionError{"scopes", err}
		}
	}
	for _, r := range c.Resource {
		if u, err := url.Parse(r); !hasPlaceholder(r) && (err != nil || !u.IsAbs() || u.Fragment != "") {
			return optionErrorf("resource", "'%s' is not an absolute URI without a fragment (RFC 8707 §2)", r)
		}
	}
	for _, name := range sorted(c.Param) {
		if err := c.checkParam(name, c.Param[name]); err != nil {
			return &optionError{"param", err}
		}
	}
	return nil
}

// checkScope refuses what is no scope-token of RFC 6749 §3.3.
func checkScope(s string) error {
	ok := s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e || r == '"' || r == '\\' }) < 0
	if !ok {
		return fmt.Errorf("'%s' is not a scope: expected visible ASCII without quotes and backslashes (RFC 6749 §3.3)", s)
	}
	return nil
}

// ownParams are the parameters with an option of their own.
var ownParams = map[string]string{
	"grant_type": "request { grant_type }", "scope": "scopes", "audience": "audience", "resource": "resource",
}

func (c *Credential) checkParam(name string, values []string) error {
	if name == "" {
		return errors.New("a parameter has no name")
	}
	if option, ok := ownParams[name]; ok {
		return fmt.Errorf("'%s' is set by %s", name, option)
	}
	if slices.Contains(c.grant.Parameters(), name) {
		return fmt.Errorf("'%s' is set by the grant %s", name, c.grantName)
	}
	if slices.Contains(c.method.Parameters(), name) {
		return fmt.Errorf("'%s' is set by client_id and client_auth", name)
	}
	for _, v := range values {
		if err := checkPlaceholders(v); err != nil {
			return fmt.Errorf("'%s': %w", name, err)
		}
	}
	return nil
}

// durationRanges are the limits of the options that are durations.
var durationRanges = map[string][2]time.Duration{
	"expiry_margin":    {time.Millisecond, time.Hour},
	"default_lifetime": {time.Second, 24 * time.Hour},
	"timeout":          {100 * time.Millisecond, 10 * time.Minute},
	"wait":             {0, 10 * time.Minute},
}

func checkDuration(option string, d caddy.Duration) error {
	limits := durationRanges[option]
	if v := time.Duration(d); v < limits[0] || v > limits[1] {
		return optionErrorf(option, "%s is out of range: expected %s to %s", v, limits[0], limits[1])
	}
	return nil
}

func (c *Credential) checkPolicy() error {
	if c.RefreshAt != nil && !(*c.RefreshAt >= 10 && *c.RefreshAt <= 95) {
		return optionErrorf("refresh_at", "%g%% is out of range: expected 10%% to 95%%", *c.RefreshAt)
	}
	set := map[string]caddy.Duration{"expiry_margin": c.ExpiryMargin, "default_lifetime": c.DefaultLifetime, "timeout": c.Timeout}
	for _, option := range sorted(set) {
		if set[option] == 0 {
			continue // the default
		}
		if err := checkDuration(option, set[option]); err != nil {
			return err
		}
	}
	return nil
}

func (s *RequestShape) check() error {
	if s == nil {
		return nil
	}
	switch {
	case s.Method != "" && s.Method != http.MethodGet && s.Method != http.MethodPost:
		return optionErrorf("request", "method is '%s', expected GET or POST", s.Method)
	case s.Body != "" && s.Body != "form" && s.Body != "json" && s.Body != "query":
		return optionErrorf("request", "body is '%s', expected form, json or query", s.Body)
	case s.Method == http.MethodGet && s.Body != "" && s.Body != "query":
		return optionErrorf("request", "a GET has no body: expected body query, not %s", s.Body)
	}
	if err := checkPlaceholders(s.GrantType); err != nil {
		return optionErrorf("request", "grant_type: %w", err)
	}
	for from, to := range s.Rename {
		if from == "" || to == "" {
			return optionErrorf("request", "rename needs two names")
		}
	}
	for _, name := range sorted(s.Header) {
		if err := checkFieldName(name); err != nil {
			return optionErrorf("request", "header: %w", err)
		}
		if err := checkPlaceholders(s.Header[name]); err != nil {
			return optionErrorf("request", "header %s: %w", name, err)
		}
	}
	return nil
}

// connectionFields belong to a connection (RFC 9110 §7.6.1) or its framing,
// and are not for a user to set.
var connectionFields = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "Content-Length", "Alt-Svc",
}

func checkFieldName(name string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return fmt.Errorf("'%s' is not the name of a header field", name)
	}
	if slices.Contains(connectionFields, http.CanonicalHeaderKey(name)) {
		return fmt.Errorf("'%s' belongs to the connection and cannot carry a token or value", name)
	}
	return nil
}

func (s *ResponseShape) check() error {
	if s == nil || s.ExpiresUnit == "" || s.ExpiresUnit == "s" || s.ExpiresUnit == "ms" {
		return nil
	}
	return optionErrorf("response", "expires_unit is '%s', expected s or ms", s.ExpiresUnit)
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
