package main

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(static))
	httpcaddyfile.RegisterHandlerDirective("static_token", parse)
	httpcaddyfile.RegisterDirectiveOrder("static_token", httpcaddyfile.Before, "invoke")
}

// static is the least that a handler can do: it sets the header to one value.
type static struct {
	Value string `json:"value"`
}

// CaddyModule returns the module's name and how to make one.
func (*static) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.static_token", New: func() caddy.Module { return new(static) }}
}

func (s *static) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.Header.Set("Authorization", s.Value)
	return next.ServeHTTP(w, r)
}

// parse reads: static_token <value of the header>
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	m := new(static)
	if !h.Args(&m.Value) || h.NextArg() {
		return nil, h.ArgErr()
	}
	return m, nil
}

// Interface guard
var _ caddyhttp.MiddlewareHandler = (*static)(nil)
