package caddymodule

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
)

func (c *Credential) checkServer() error {
	switch {
	case c.TokenURL == "" && c.Issuer == "":
		return optionErrorf("token_url", "is missing: write the server's token endpoint, token_url https://…, or issuer https://… to find it")
	case c.TokenURL != "" && c.Issuer != "":
		return optionErrorf("issuer", "stands beside token_url: expected one of the two")
	case c.TokenURL != "":
		return c.checkURL("token_url", c.TokenURL, c.allowedURL)
	}
	return c.checkURL("issuer", c.Issuer, c.allowedIssuer)
}

// checkURL checks a configured URL, as far as it is known when it is loaded.
func (c *Credential) checkURL(option, value string, allowed func(string) error) error {
	if err := checkPlaceholders(value); err != nil {
		return &optionError{option, err}
	}
	if hasPlaceholder(value) {
		return nil // checked at the token request
	}
	if err := allowed(value); err != nil {
		return &optionError{option, err}
	}
	return nil
}

// allowedIssuer tells whether a server may be asked for its metadata (RFC 8414
// §2).
func (c *Credential) allowedIssuer(raw string) error {
	if err := c.allowedURL(raw); err != nil {
		return err
	}
	if strings.ContainsAny(raw, "?#") {
		return errors.New("holds a query (?) or a fragment (#), which an issuer never has (RFC 8414 §2)")
	}
	if strings.Contains(raw, "/.well-known/") {
		return errors.New("is the address of the metadata: write what stands there as \"issuer\", mostly the part before /.well-known/")
	}
	return nil
}

// allowedURL tells whether a secret may be sent to a URL.
func (c *Credential) allowedURL(raw string) error {
	u, err := url.Parse(raw) // which may hold a secret, so no message repeats it
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("is not the URL of a server: expected https://host/path")
	}
	switch {
	case u.User != nil:
		return errors.New("holds a user: write client_id and client_auth instead")
	case u.Fragment != "":
		return errors.New("holds a fragment (#), which RFC 6749 §3.2 forbids")
	case u.Scheme == "https" || c.InsecureTokenURL:
		return nil
	case !isLoopback(u.Hostname()):
		return fmt.Errorf("is http to %s, which is no loopback host, so the secret would travel in the clear: write https, or insecure_token_url to allow it", u.Host)
	case c.Proxy != "":
		return errors.New("is http through a proxy, so the secret would travel in the clear: write https, or insecure_token_url to allow it")
	}
	return nil
}

// isLoopback tells whether a host is this machine. Of names it is localhost
// alone: others below it are asked of DNS, which may answer anything.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// checkLogin looks at the endpoints of a login: where no issuer's metadata names
// them, they have to be configured.
func (c *Credential) checkLogin() error {
	g, ok := c.grant.(*grants.AuthorizationCode)
	if !ok {
		return nil
	}
	if c.Issuer == "" && g.AuthorizationURL == "" && g.DeviceAuthorizationURL == "" {
		return optionErrorf("grant", "authorization_code cannot tell where to log in: write authorization_url https://…, or device_authorization_url https://…, into its block, or issuer in place of token_url to find both")
	}
	for _, o := range []struct{ option, value string }{
		{"authorization_url", g.AuthorizationURL}, {"device_authorization_url", g.DeviceAuthorizationURL},
	} {
		if o.value == "" {
			continue
		}
		if err := c.checkURL("grant "+o.option, o.value, c.allowedURL); err != nil {
			return err
		}
	}
	return nil
}
