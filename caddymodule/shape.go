package caddymodule

import (
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// params are those that the credential sets itself.
func (c *Credential) params(r *resolver) (url.Values, error) {
	params := url.Values{"grant_type": {c.grant.GrantType()}}
	configured := maps.Clone(c.Param)
	if configured == nil {
		configured = make(map[string][]string)
	}
	// RFC 6749 §6: a refresh without a scope asks for what was granted
	if _, refreshing := c.grant.(grants.Refreshing); len(c.Scopes) > 0 && (!refreshing || c.RefreshScopes) {
		configured["scope"] = []string{strings.Join(c.Scopes, " ")}
	}
	if c.Audience != "" {
		configured["audience"] = []string{c.Audience}
	}
	configured["resource"] = c.Resource
	for name, values := range configured {
		for _, value := range values {
			resolve := r.resolve
			if _, own := ownParams[name]; !own && hasPlaceholder(value) {
				resolve = r.secret // it may be one: a server with its own words has its own secrets
			}
			v, err := resolve(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			params.Add(name, v)
		}
	}
	return params, nil
}

// apply gives a request the server's own shape.
func (s *RequestShape) apply(req *oauth.Request, r *resolver) error {
	if s == nil {
		return nil
	}
	req.Method, req.Encoding, req.Rename = s.Method, oauth.Encoding(s.Body), s.Rename
	if s.GrantType != "" {
		v, err := r.resolve(s.GrantType)
		if err != nil {
			return fmt.Errorf("grant_type: %w", err)
		}
		req.Params.Set("grant_type", v)
	}
	for name, value := range s.Header {
		resolve := r.resolve
		if hasPlaceholder(value) {
			resolve = r.secret
		}
		v, err := resolve(value)
		if err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
		req.Header.Set(name, v)
	}
	return nil
}

func (s *ResponseShape) fields() oauth.Fields {
	if s == nil {
		return oauth.Fields{}
	}
	f := oauth.Fields{
		AccessToken: s.AccessToken, RefreshToken: s.RefreshToken, ExpiresIn: s.ExpiresIn, TokenType: s.TokenType,
		Error: s.Error, ErrorDescription: s.ErrorDescription,
	}
	if s.ExpiresUnit == "ms" {
		f.ExpiresUnit = time.Millisecond
	}
	return f
}
