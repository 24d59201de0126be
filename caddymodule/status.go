package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Status))
}

// Status tells what the credentials of a config are doing: as a page to a
// browser, as JSON to everybody else. It answers 200 when every credential that
// a route uses holds a valid token, else 503, and so is what a readiness probe
// asks. It shows no token and no secret.
type Status struct {
	// Credentials are the names of those on which the status depends, used by a
	// route or not. Default: each that a route uses, but for those that have a
	// token for each value that requests bring, since they have none before a
	// request comes.
	Credentials []string `json:"credentials,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (*Status) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.upstream_auth_status",
		New: func() caddy.Module { return new(Status) },
	}
}

// Provision finds the credentials that are named. Those written in place may
// belong to routes that come later, so what there is to tell of is looked up
// when somebody asks.
func (s *Status) Provision(ctx caddy.Context) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("upstream_auth_status: %w", err)
	}
	var app any
	var err error
	if len(s.Credentials) == 0 {
		app, err = ctx.App(appName) // there may be none but those written in place
	} else {
		app, err = ctx.AppIfConfigured(appName)
	}
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("upstream_auth_status: %w", unknownCredential(s.Credentials[0], nil))
	}
	if err != nil {
		return err
	}
	s.app = app.(*App)
	for _, name := range s.Credentials {
		if _, err := s.app.credential(name); err != nil {
			return fmt.Errorf("upstream_auth_status: %w", err)
		}
	}
	return nil
}

// check tells what is wrong with the options, as an *optionError.
func (s *Status) check() error {
	for i, name := range s.Credentials {
		if err := checkName(name); err != nil {
			return &optionError{"credential", err}
		}
		if slices.Contains(s.Credentials[:i], name) {
			return optionErrorf("credential", "'%s' is named twice", name)
		}
	}
	return nil
}

// ServeHTTP answers for itself: it is the end of its route.
func (s *Status) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		return caddyhttp.Error(http.StatusMethodNotAllowed, nil)
	}
	o := newOverview(s.app.entries(), s.counts)
	write, contentType := writeJSON, "application/json"
	if prefersHTML(r.Header.Values("Accept")) {
		write, contentType = writePage, "text/html; charset=utf-8"
		header.Set("Content-Security-Policy", pagePolicy())
		header.Set("Referrer-Policy", "no-referrer")
	}
	var body bytes.Buffer
	if err := write(&body, o); err != nil {
		return fmt.Errorf("upstream_auth_status: %w", err)
	}
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Add("Vary", "Accept")
	status := http.StatusOK
	if !o.Ready {
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = body.WriteTo(w) // who has gone away is not told
	}
	return nil
}

// counts tells whether the status depends on a credential.
func (s *Status) counts(e *entry) bool {
	if len(s.Credentials) == 0 {
		return e.tokens == nil && s.app.uses(e)
	}
	return slices.Contains(s.Credentials, e.name)
}

// uses tells whether a route of this config uses a credential, also before the
// config is in use: Caddy starts apps in no order, and a server may answer
// before the credentials have begun.
func (a *App) uses(e *entry) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.keys {
		if at.entry == e {
			return at.used()
		}
	}
	return false
}

// entries are the credentials of this config, named and written in place.
func (a *App) entries() []*entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*entry, 0, len(a.keys))
	for _, at := range a.keys {
		all = append(all, at.entry)
	}
	return all
}

// numbers is a list of them as it is indented. No string holds a line break.
var numbers = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\[\s*\n[\d\s,]+\]`)
})

// writeJSON writes for people with curl, too: indented, a series in one line.
func writeJSON(to *bytes.Buffer, o *overview) error {
	raw, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	raw = numbers().ReplaceAllFunc(raw, func(list []byte) []byte { return bytes.Join(bytes.Fields(list), nil) })
	// Caddy's templates come before this handler and may be told to read JSON;
	// indented, it has such braces in strings alone
	to.Write(bytes.ReplaceAll(raw, []byte("{{"), []byte(`{\u007b`)))
	return to.WriteByte('\n')
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Status)(nil)
	_ caddyhttp.MiddlewareHandler = (*Status)(nil)
)
