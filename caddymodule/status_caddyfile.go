package caddymodule

import (
	"cmp"

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
	app, err := definedApp(h)
	if err != nil {
		return nil, err
	}
	for _, name := range s.Credentials {
		if err := app.defines(name); err != nil {
			return nil, b.locate(err)
		}
	}
	return s, nil
}

// defines refuses the name of a credential that is not in the global option.
func (a *App) defines(name string) error {
	if _, ok := a.Credentials[name]; !ok {
		return &optionError{"credential", unknownCredential(name, sorted(a.Credentials))}
	}
	return nil
}

// definedApp is what the global option says. It is read once for all directives:
// there may be thousands of them, and of credentials.
func definedApp(h httpcaddyfile.Helper) (*App, error) {
	if app, ok := h.State[appName].(*App); ok {
		return app, nil
	}
	app := new(App)
	if global, ok := h.Option(appName).(httpcaddyfile.App); ok {
		if err := caddy.StrictUnmarshalJSON(global.Value, app); err != nil {
			return nil, h.WrapErr(err)
		}
	}
	if h.State != nil {
		h.State[appName] = app
	}
	return app, nil
}
