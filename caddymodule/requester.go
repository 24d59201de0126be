package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// requester makes the token requests of one credential: it asks the grant and
// the client authentication for their parts, resolved anew each time.
type requester struct {
	credential *Credential
	connection connection
	files      lastFiles
	preparing  atomic.Bool
}

func newRequester(c *Credential) *requester {
	return &requester{credential: c, connection: connection{tls: c.TLS, proxy: c.Proxy}}
}

// Request implements token.Requester.
func (q *requester) Request(ctx context.Context) (*oauth.Response, error) {
	if !q.preparing.CompareAndSwap(false, true) {
		return nil, &oauth.Failure{Kind: oauth.Refused, Err: errHanging}
	}
	ready := make(chan prepared, 1)
	go func() { // apart: a file system may hang, and no deadline ends that
		defer q.preparing.Store(false)
		r := newResolver()
		req, rt, err := q.prepare(ctx, r)
		q.files.set(r.files)
		ready <- prepared{req, rt, r.secrets, err}
	}()
	select {
	case p := <-ready:
		if p.err != nil {
			return nil, &oauth.Failure{Kind: oauth.Refused, Err: p.err}
		}
		p.request.Secrets = p.secrets
		return p.request.Do(ctx, p.way)
	case <-ctx.Done():
		return nil, &oauth.Failure{Kind: oauth.Refused, Err: errHanging}
	}
}

// prepared is a token request that is ready to be sent.
type prepared struct {
	request *oauth.Request
	way     http.RoundTripper
	secrets []string
	err     error
}

var errHanging = errors.New("the files of the credential cannot be read: their file system hangs")

// Stale implements token.Requester.
func (q *requester) Stale() bool { return q.files.get().changed() }

func (q *requester) prepare(ctx context.Context, r *resolver) (*oauth.Request, http.RoundTripper, error) {
	c := q.credential
	tokenURL, err := r.resolve(c.TokenURL)
	if err != nil {
		return nil, nil, fmt.Errorf("token_url: %w", err)
	}
	if err := c.allowedTokenURL(tokenURL); err != nil {
		return nil, nil, fmt.Errorf("token_url %w", err)
	}
	clientID, err := r.resolve(c.ClientID)
	if err != nil {
		return nil, nil, fmt.Errorf("client_id: %w", err)
	}
	params, err := c.params(r)
	if err != nil {
		return nil, nil, err
	}
	if err := c.grant.Prepare(ctx, &grants.Request{Params: params, Resolve: r.resolve, Secret: r.secret}); err != nil {
		return nil, nil, fmt.Errorf("grant %s: %w", c.grantName, err)
	}
	header := http.Header{"User-Agent": {"caddy-upstream-auth/" + version()}}
	err = c.method.Authenticate(ctx, &clientauth.Request{
		ClientID: clientID, TokenURL: tokenURL, Params: params, Header: header, Resolve: r.resolve, Secret: r.secret,
	})
	if err != nil {
		return nil, nil, err
	}
	req := &oauth.Request{URL: tokenURL, Params: params, Header: header, Fields: c.Response.fields()}
	if err := c.Request.apply(req, r); err != nil {
		return nil, nil, fmt.Errorf("request %w", err)
	}
	rt, err := q.connection.open(r)
	return req, rt, err
}

// params are those that the credential sets itself.
func (c *Credential) params(r *resolver) (url.Values, error) {
	params := url.Values{"grant_type": {c.grant.GrantType()}}
	configured := maps.Clone(c.Param)
	if configured == nil {
		configured = make(map[string][]string)
	}
	if len(c.Scopes) > 0 {
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

// Interface guard
var _ token.Requester = (*requester)(nil)
