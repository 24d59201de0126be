// Package handler is the Caddy handler that one writes in an hour around
// golang.org/x/oauth2: a reusing token source, asked for each request. It is a
// peer for the comparisons of bench, and nothing to use.
package handler

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("xoauth2", parse)
	// where upstream_auth is: a route around it would cost requests something
	httpcaddyfile.RegisterDirectiveOrder("xoauth2", httpcaddyfile.Before, "invoke")
}

// Handler puts a token on each request.
type Handler struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`

	source oauth2.TokenSource
}

// CaddyModule returns the module's name and how to make one.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.xoauth2", New: func() caddy.Module { return new(Handler) }}
}

// Provision leaves everything at the library's defaults: a token counts as
// expired in the last 10 s of its life, and its HTTP client waits for ever.
func (h *Handler) Provision(caddy.Context) error {
	config := clientcredentials.Config{TokenURL: h.TokenURL, ClientID: h.ClientID, ClientSecret: h.ClientSecret}
	h.source = config.TokenSource(context.Background())
	return nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	token, err := h.source.Token()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	token.SetAuthHeader(r)
	return next.ServeHTTP(w, r)
}

// parse reads: xoauth2 <token_url> <client_id> <client_secret>
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	m := new(Handler)
	if !h.Args(&m.TokenURL, &m.ClientID, &m.ClientSecret) || h.NextArg() {
		return nil, h.ArgErr()
	}
	return m, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
