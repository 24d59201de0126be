package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// credentialsPath is where the admin API tells of the credentials.
const credentialsPath = "/upstream_auth/credentials" //nolint:gosec // it is a path

// adminAPI shows in Caddy's admin API how the credentials of the process stand,
// and asks for another token when an operator wishes for one. Who may do that is
// Caddy's to say, as for the rest of the API: host, origin and remote identity
// are checked before.
//
//	GET  /upstream_auth/credentials                 all of them
//	GET  /upstream_auth/credentials/{name}          one of them
//	POST /upstream_auth/credentials/{name}/refresh  asks for another token, and
//	                                                answers when that has ended
//
// The answers hold no token and no secret. Errors are Caddy's: {"error": "…"}.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.upstream_auth",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes implements caddy.AdminRouter. The patterns name no method: a wrong one
// is then refused as Caddy refuses it.
func (a adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: credentialsPath, Handler: caddy.AdminHandlerFunc(a.list)},
		{Pattern: credentialsPath + "/{name}", Handler: caddy.AdminHandlerFunc(a.one)},
		{Pattern: credentialsPath + "/{name}/refresh", Handler: caddy.AdminHandlerFunc(a.refresh)},
	}
}

// list is no probe: its status is 200 also where not all is well.
func (a adminAPI) list(w http.ResponseWriter, r *http.Request) error {
	if err := a.only(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	return a.answer(w, newOverview(slices.Collect(maps.Values(credentials.newest())), countsByItself))
}

func (a adminAPI) one(w http.ResponseWriter, r *http.Request) error {
	if err := a.only(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	e, err := a.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	return a.answer(w, a.report(e))
}

// refresh answers when the token request has ended: 200 if it brought a token,
// 502 if not, and then the token held, if there is one, serves on. It is 409 for
// a template, 429 with Retry-After for a wish that comes too soon, and 503 where
// no request was made, as for a credential that a reload replaces meanwhile.
func (a adminAPI) refresh(w http.ResponseWriter, r *http.Request) error {
	if err := a.only(w, r, http.MethodPost); err != nil {
		return err
	}
	e, err := a.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	if e.source == nil {
		return apiError(http.StatusConflict, "credential '%s' has a token for each value that requests bring, and asks for it then: there is no one token to refresh", e.name)
	}
	before := e.source.Snapshot()
	ended, err := e.source.Refresh(r.Context())
	if soon, ok := errors.AsType[*token.TooSoon](err); ok {
		seconds := max(1, int((soon.Wait+time.Second-1)/time.Second))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		return apiError(http.StatusTooManyRequests, "%w", soon)
	}
	if err != nil {
		return a.notAsked(w, "credential '%s' is being started or stopped", e.name)
	}
	select {
	case <-ended:
	case <-r.Context().Done():
		return nil // the token request goes on
	}
	after := e.source.Snapshot()
	switch {
	case !e.running():
		return a.notAsked(w, "credential '%s' is being started or stopped", e.name)
	case after.Failure != nil:
		return apiError(http.StatusBadGateway, "%s", failureText(a.report(e)))
	case !after.Obtained.After(before.Obtained): // what was joined has been put off
		return a.notAsked(w, "the instances that share the token of credential '%s' have asked for one a moment ago", e.name)
	}
	return a.answer(w, a.report(e))
}

// notAsked is the answer where no token request was made, and why.
func (adminAPI) notAsked(w http.ResponseWriter, why string, args ...any) error {
	w.Header().Set("Retry-After", "1")
	return apiError(http.StatusServiceUnavailable, "no token was asked for: "+why+"; try again in a moment", args...)
}

// failureText says in one line what an operator needs after a failed request.
func failureText(r *report) string {
	parts := []string{"no new token has come"}
	if r.Failure != nil {
		parts[0] += ": " + r.Failure.Message
	}
	if r.Advice != nil {
		parts = append(parts, r.Advice.Wrong, "what to do: "+r.Advice.Do)
	}
	return strings.Join(append(parts, r.Summary), "; ")
}

// report is that of a credential by itself.
func (adminAPI) report(e *entry) *report {
	r := e.report()
	r.Counts = countsByItself(e)
	return r
}

// mostNames is how many credentials an error names.
const mostNames = 50

// find is the credential that stands for a name.
func (adminAPI) find(name string) (*entry, error) {
	running := credentials.newest()
	if e, ok := running[name]; ok {
		return e, nil
	}
	if !validName(name) {
		return nil, apiError(http.StatusNotFound, "%w", checkName(name))
	}
	names := sorted(running)
	if more := len(names) - mostNames; more > 0 {
		names = append(names[:mostNames], fmt.Sprintf("and %d more", more))
	}
	return nil, apiError(http.StatusNotFound, "%w", unknownCredential(name, names))
}

// only refuses other methods than those allowed (RFC 9110 §15.5.6).
func (adminAPI) only(w http.ResponseWriter, r *http.Request, allowed ...string) error {
	if slices.Contains(allowed, r.Method) {
		return nil
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return apiError(http.StatusMethodNotAllowed, "method not allowed: expected %s", strings.Join(allowed, " or "))
}

// answer sends a document. A client that leaves meanwhile is no error.
func (adminAPI) answer(w http.ResponseWriter, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	body = append(body, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store") // of a moment
	_, _ = w.Write(body)
	return nil
}

func apiError(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

// Interface guards
var (
	_ caddy.Module      = adminAPI{}
	_ caddy.AdminRouter = adminAPI{}
)
