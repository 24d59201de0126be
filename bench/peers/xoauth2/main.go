// Command xoauth2 is stock Caddy with the handler that one writes in an hour
// around golang.org/x/oauth2: a reusing token source, asked for each request.
// It is a peer for the comparisons of bench, and nothing to use.
package main

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func main() {
	caddy.RegisterModule(new(handler))
	httpcaddyfile.RegisterHandlerDirective("xoauth2", parse)
	caddycmd.Main()
}

// handler puts a token on each request.
type handler struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`

	source oauth2.TokenSource
}

func (*handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.xoauth2", New: func() caddy.Module { return new(handler) }}
}

// Provision leaves everything at the library's defaults: a token counts as
// expired in the last 10 s of its life, and its HTTP client waits for ever.
func (h *handler) Provision(caddy.Context) error {
	config := clientcredentials.Config{TokenURL: h.TokenURL, ClientID: h.ClientID, ClientSecret: h.ClientSecret}
	h.source = config.TokenSource(context.Background())
	return nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
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
	m := new(handler)
	if !h.Args(&m.TokenURL, &m.ClientID, &m.ClientSecret) || h.NextArg() {
		return nil, h.ArgErr()
	}
	return m, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*handler)(nil)
)
