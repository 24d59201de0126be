package caddymodule

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("upstream_auth_status", parseStatus)
	// Before upstream_auth, so that it answers though there is no token.
	httpcaddyfile.RegisterDirectiveOrder("upstream_auth_status", httpcaddyfile.After, "templates")
}

// parseStatus reads:
//
//	upstream_auth_status [<matcher>] {
//		credential <name…>
//	}
func parseStatus(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	s := new(Status)
	h.Next() // the directive's name
	b := newBlock(h.Dispenser)
	if h.NextArg() {
		return nil, h.Errf("'upstream_auth_status' takes no argument but a matcher, and '%s' is none (a path begins with '/'): a credential is named in its block", h.Val())
	}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		if h.Val() != "credential" {
			return nil, unknownOption(h.Dispenser, "upstream_auth_status", []string{"credential"})
		}
		if err := cmp.Or(b.once(), some(h.Dispenser, &s.Credentials)); err != nil {
			return nil, err
		}
	}
	if err := s.check(); err != nil || len(s.Credentials) == 0 {
		return s, b.locate(err)
	}
	known, err := definedCredentials(h)
	if err != nil {
		return nil, err
	}
	for _, name := range s.Credentials {
		if !slices.Contains(known, name) {
			return nil, b.locate(&optionError{"credential", unknownCredential(name, known)})
		}
	}
	return s, nil
}

// definedCredentials are the names in the global option.
func definedCredentials(h httpcaddyfile.Helper) ([]string, error) {
	app, err := definedApp(h)
	if err != nil {
		return nil, err
	}
	return sorted(app.Credentials), nil
}

// definedApp is what the global option says.
func definedApp(h httpcaddyfile.Helper) (*App, error) {
	app := new(App)
	if global, ok := h.Option(appName).(httpcaddyfile.App); ok {
		if err := caddy.StrictUnmarshalJSON(global.Value, app); err != nil {
			return nil, h.WrapErr(err)
		}
	}
	return app, nil
}
