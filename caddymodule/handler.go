package caddymodule

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler puts an access token on requests, in front of whatever handler
// follows: reverse_proxy, php_fastcgi, a plugin. A forward_auth comes before it,
// unless both stand in a route.
//
// A request waits for a token only while none is held. One that cannot get any
// goes to the error routes with 503 (the authorization server cannot be
// reached, or gave an answer of no use) or 502 (it refused), Retry-After and
// Proxy-Status.
//
// Placeholders:
//
// Placeholder | Description
// ------------|------------
// `{http.upstream_auth.credential}` | The name of the credential
// `{http.upstream_auth.outcome}` | injected, waited, kept, client_rejected, unavailable, passed or upstream_denied
// `{http.upstream_auth.error}` | Why there was no token: unreachable, refused, malformed; of a template limited, invalid_value, invalid_token
// `{http.upstream_auth.retry_after}` | Seconds until another try is of use
type Handler struct {
	Injection

	inject  *injector
	watches bool // for answers that refuse the token
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.upstream_auth",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the credential.
func (h *Handler) Provision(ctx caddy.Context) error {
	var err error
	if h.inject, err = h.provision(ctx); err != nil {
		return err
	}
	if h.inject.entry.proven {
		return h.blame(optionErrorf("dpop", "each request carries a proof for the upstream's URL, which the handler does not know: write transport upstream_auth in reverse_proxy"))
	}
	h.watches = slices.Contains(h.inject.rejectedOn, http.StatusUnauthorized)
	if h.inject.header != defaultHeader {
		ctx.Logger().Warn("Caddy hides the header field Authorization in its debug log, but not another: at debug level the log will show the token; the transport upstream_auth keeps it out",
			zap.String("credential", h.inject.name), zap.String("header", h.inject.header))
	}
	return nil
}

// ServeHTTP puts the token on the request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.inject.guard(r.Header)
	seen := new(watcher)
	c, refusal := h.inject.apply(r, &seen.values)
	if refusal != nil {
		h.inject.publish(r.Context(), refusal)
		if refusal.status != statusClientGone {
			refusal.writeHeader(w.Header())
		}
		return caddyhttp.Error(refusal.status, refusal.err)
	}
	if h.watches && c.token != nil {
		seen.ResponseWriter, w = w, seen
	}
	err := next.ServeHTTP(w, r)
	switch {
	case err != nil:
		// the error routes may lead to another upstream
		h.inject.withdraw(r.Header, c.token)
	case seen.refused && !refusalClaimed(r.Context()):
		h.inject.countUnreplayed(h.inject.rejected(r.Context(), c, seen.invalid))
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
