package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
)

// optionError is a mistake in one option of a block, which may be one in a
// block of its own ("tls cert") or one of several ("param tenant"). The
// Caddyfile parser adds where it stands; provisioning adds the credential.
type optionError struct {
	option string
	err    error
}

func (e *optionError) Error() string { return e.option + ": " + e.err.Error() }
func (e *optionError) Unwrap() error { return e.err }

func optionErrorf(option, format string, args ...any) *optionError {
	return &optionError{option, fmt.Errorf(format, args...)}
}

// validName is what checkName says. It is no regular expression: one would be
// compiled at each start.
func validName(name string) bool {
	other := func(c rune) bool { return !isAlphanumeric(c) && c != '_' && c != '.' && c != '-' }
	return name != "" && len(name) <= 64 && isAlphanumeric(rune(name[0])) && !strings.ContainsFunc(name, other)
}

func isAlphanumeric(c rune) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

// inlinePrefix begins the names of credentials that are written in place.
const inlinePrefix = "inline-"

func checkName(name string) error {
	if !validName(name) {
		return fmt.Errorf("'%s' is not a credential's name: expected 1 to 64 letters, digits, '_', '.' or '-', a letter or digit first", name)
	}
	if strings.HasPrefix(name, inlinePrefix) {
		return fmt.Errorf("the credential name '%s' begins with %s, which is kept for those written in place", name, inlinePrefix)
	}
	return nil
}

// check tells what is wrong with a credential whose guest modules are loaded,
// as an *optionError. It reads no file and resolves nothing.
func (c *Credential) check() error {
	for _, check := range []func() error{
		c.checkServer, c.checkClient, c.checkLogin, c.checkParams, c.checkPolicy, c.checkRejectedOn, c.Request.check, c.checkOwnHeader, c.Response.check, c.checkConnection,
		c.DPoP.check, c.checkTemplate, c.checkShare, c.checkTokenFile,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Credential) checkClient() error {
	if c.ClientID == "" && !c.namesClient() {
		return optionErrorf("client_id", "is missing")
	}
	if err := checkPlaceholders(c.ClientID); err != nil {
		return &optionError{"client_id", err}
	}
	if c.method != nil {
		return nil
	}
	if g, ok := c.grant.(grants.ClientAuthenticated); ok && g.RequiresClientAuth() {
		return optionErrorf("client_auth", "is missing: the grant %s needs one; expected %s", c.grantName, knownModules(clientauth.Namespace))
	}
	c.method = clientauth.None{}
	return nil
}

// namesClient tells whether the grant or the client authentication says who the
// client is.
func (c *Credential) namesClient() bool {
	if m, ok := c.method.(clientauth.Identifying); ok && m.ClientIDOptional() {
		return true
	}
	switch c.method.(type) {
	case nil, clientauth.None, *clientauth.None:
	default:
		return false // it proves the client that client_id names
	}
	g, ok := c.grant.(grants.Identifying)
	return ok && g.ClientIDOptional()
}

// checkInline refuses, for a credential that is written in place, what needs a
// name.
func (c *Credential) checkInline() error {
	if c.TokenFile != nil {
		return optionErrorf("token_file", "belongs to a credential with a name, since equal ones that are written in place are one: define it in the global options")
	}
	if !c.refreshing() {
		return nil
	}
	return optionErrorf("grant", "%s keeps a refresh token under its credential's name, so it cannot be written in place: define the credential in the global options", c.grantName)
}

// checkTemplate looks at what is of use for a template alone, and at what a
// template cannot do.
func (c *Credential) checkTemplate() error {
	if g, ok := c.grant.(grants.Exchanging); ok && g.FromRequest() {
		c.template.exchanges, c.template.audience = true, g.SubjectAudience()
	}
	ofTemplate := map[string]bool{"max_tokens": c.MaxTokens != 0, "max_new": c.MaxNew != 0, "idle_timeout": c.IdleTimeout != 0}
	for _, option := range sorted(ofTemplate) {
		if ofTemplate[option] && !c.template.is() {
			return optionErrorf(option, "is for a credential with placeholders of a request, or with subject_token request; this one has a single token")
		}
	}
	switch {
	case c.MaxTokens != 0 && (c.MaxTokens < 1 || c.MaxTokens > 1_000_000):
		return optionErrorf("max_tokens", "%d is out of range: expected 1 to 1000000", c.MaxTokens)
	case c.MaxNew != 0 && !(c.MaxNew >= 0.1 && c.MaxNew <= 1000):
		return optionErrorf("max_new", "%g is out of range: expected 0.1 to 1000 a second", c.MaxNew)
	case c.template.is() && c.refreshing():
		return optionErrorf("grant", "the grant %s keeps one refresh token, so its credential can hold no placeholder of a request", c.grantName)
	case c.RefreshScopes && (!c.refreshing() || len(c.Scopes) == 0):
		return optionErrorf("refresh_scopes", "is for a grant with a refresh token, beside scopes")
	}
	if c.IdleTimeout != 0 {
		return checkDuration("idle_timeout", c.IdleTimeout)
	}
	return nil
}

func (c *Credential) checkParams() error {
	if err := c.template.take(c.Audience); err != nil {
		return &optionError{"audience", err}
	}
	for _, s := range c.Scopes {
		err := c.template.takeScope(s)
		if err == nil && !hasPlaceholder(s) {
			err = checkScope(s)
		}
		if err != nil {
			return &optionError{"scopes", err}
		}
	}
	for _, r := range c.Resource {
		if err := c.template.take(r); err != nil {
			return &optionError{"resource " + r, err}
		}
		if u, err := url.Parse(r); !hasPlaceholder(r) && (err != nil || !u.IsAbs() || u.Fragment != "") {
			return optionErrorf("resource "+r, "expected an absolute URI without a fragment (RFC 8707 §2)")
		}
	}
	for _, name := range sorted(c.Param) {
		if err := c.checkParam(name, c.Param[name]); err != nil {
			return &optionError{"param " + name, err}
		}
	}
	return nil
}

// checkScope refuses what is no scope-token of RFC 6749 §3.3.
func checkScope(s string) error {
	ok := s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e || r == '"' || r == '\\' }) < 0
	if strings.Contains(s, " ") {
		return fmt.Errorf("'%s' holds a blank: write the scopes without quotes", s)
	}
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
		return errors.New("expected a name")
	}
	if err := checkLiteral(name); err != nil {
		return err
	}
	if option, ok := ownParams[name]; ok {
		return fmt.Errorf("is set by %s", option)
	}
	if slices.Contains(c.grant.Parameters(), name) {
		return fmt.Errorf("is set by the grant %s", c.grantName)
	}
	if slices.Contains(c.method.Parameters(), name) {
		return errors.New("is set by client_id and client_auth")
	}
	for _, v := range values {
		if err := c.template.take(v); err != nil {
			return err
		}
	}
	return nil
}

// durationRanges are the limits of the options that are durations.
var durationRanges = map[string][2]time.Duration{
	"expiry_margin":    {time.Millisecond, time.Hour},
	"default_lifetime": {time.Second, 24 * time.Hour},
	"timeout":          {100 * time.Millisecond, 10 * time.Minute},
	"idle_timeout":     {time.Second, 24 * time.Hour},
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
	if err := checkOneOf("request method", s.Method, http.MethodGet, http.MethodPost); err != nil {
		return err
	}
	if err := checkOneOf("request body", s.Body, "form", "json", "query"); err != nil {
		return err
	}
	if s.Method == http.MethodGet && s.Body != "" && s.Body != "query" {
		return optionErrorf("request body", "is %s, but a GET has no body: expected query", s.Body)
	}
	if err := checkPlaceholders(s.GrantType); err != nil {
		return &optionError{"request grant_type", err}
	}
	seen := make(map[string]bool)
	for _, from := range sorted(s.Rename) {
		if from == "" || s.Rename[from] == "" {
			return optionErrorf("request rename "+from, "expected two names")
		}
		if err := checkLiteral(from + s.Rename[from]); err != nil {
			return &optionError{"request rename " + from, err}
		}
		if seen[s.Rename[from]] {
			return optionErrorf("request rename "+from, "gives a name that another parameter has")
		}
		seen[s.Rename[from]] = true
	}
	clear(seen)
	for _, name := range sorted(s.Header) {
		if err := s.checkHeader(name, seen); err != nil {
			return &optionError{"request header " + name, err}
		}
	}
	return nil
}

// checkOwnHeader refuses a field that the client authentication sets itself.
func (c *Credential) checkOwnHeader() error {
	m, ok := c.method.(clientauth.HeaderSetter)
	if !ok || c.Request == nil {
		return nil
	}
	for _, name := range sorted(c.Request.Header) {
		if slices.Contains(m.HeaderFields(), http.CanonicalHeaderKey(name)) {
			return optionErrorf("request header "+name, "is set by client_auth")
		}
	}
	return nil
}

func (s *RequestShape) checkHeader(name string, seen map[string]bool) error {
	canonical := http.CanonicalHeaderKey(name)
	if seen[canonical] {
		return errors.New("is given twice")
	}
	seen[canonical] = true
	if err := checkFieldName(name); err != nil {
		return err
	}
	if !httpguts.ValidHeaderFieldValue(s.Header[name]) {
		return errors.New("holds a control character")
	}
	return checkPlaceholders(s.Header[name])
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
		return fmt.Errorf("'%s' belongs to the connection and is not to be set", name)
	}
	return nil
}

func (s *ResponseShape) check() error {
	if s == nil {
		return nil
	}
	paths := map[string]string{
		"access_token": s.AccessToken, "refresh_token": s.RefreshToken, "expires_in": s.ExpiresIn,
		"token_type": s.TokenType, "error": s.Error, "error_description": s.ErrorDescription,
	}
	for _, option := range sorted(paths) {
		if err := checkLiteral(paths[option]); err != nil {
			return &optionError{"response " + option, err}
		}
	}
	return checkOneOf("response expires_unit", s.ExpiresUnit, "s", "ms")
}

// checkKeys looks at encryption keys as they are written. What is behind a
// placeholder is looked at when the config is loaded.
func checkKeys(keys []string) error {
	for _, key := range keys {
		if err := checkSecretPlaceholders(key); err != nil {
			return fmt.Errorf("encryption_key: %w", err)
		}
	}
	if slices.ContainsFunc(keys, hasPlaceholder) {
		return nil
	}
	if _, err := store.ParseKeys(keys); err != nil {
		return fmt.Errorf("encryption_key: %w", err)
	}
	return nil
}
