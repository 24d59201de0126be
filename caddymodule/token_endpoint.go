package caddymodule

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

func init() {
	caddy.RegisterModule(new(TokenEndpoint))
}

// TokenEndpoint hands out a credential's access token to programs of this
// machine: those that do not speak HTTP to their server, and libraries that ask
// a token endpoint. It answers GET, HEAD and POST as a token endpoint does
// (RFC 6749 §5.1), whatever was sent: no client authentication is looked at.
// With an Accept that prefers text/plain it answers the token alone.
//
// Whoever can ask holds the token until that ends. So it answers only what came
// in on a unix socket or on a loopback address, for a loopback Host, from no
// other proxy and from no page in a browser.
//
// Like the handler upstream_auth it waits for a token while none is held, and
// counts what it was asked as requests: a program that gets none is one that is
// turned away.
type TokenEndpoint struct {
	// Credential is the name of one of the app's credentials. Either this or
	// Inline. It has to have a single token, which is bound to no key.
	Credential string `json:"credential,omitempty"`

	// Inline is a credential of this route alone. Equal ones are one. Either
	// this or Credential.
	Inline *Credential `json:"inline,omitempty"`

	// Wait is how long a request waits for a token that is being fetched.
	// From 0 to 10m. Default: 5s.
	Wait *caddy.Duration `json:"wait,omitempty"`

	inject *injector
	guard  *localGuard
}

// CaddyModule returns the Caddy module information.
func (*TokenEndpoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.upstream_auth_token",
		New: func() caddy.Module { return new(TokenEndpoint) },
	}
}

const tokenDirective = "upstream_auth_token" //nolint:gosec // a name

// injection says what the endpoint has in common with the handler.
func (e *TokenEndpoint) injection() *Injection {
	return &Injection{Credential: e.Credential, Inline: e.Inline, Wait: e.Wait, directive: tokenDirective}
}

// Provision finds the credential.
func (e *TokenEndpoint) Provision(ctx caddy.Context) error {
	i := e.injection()
	var err error
	if e.inject, err = i.provision(ctx); err != nil {
		return err
	}
	switch {
	case e.inject.source == nil:
		return i.blame(errManyTokens)
	case e.inject.entry.proven:
		return i.blame(errNeedsKey)
	}
	e.guard = &localGuard{log: ctx.Logger().With(zap.String("credential", e.inject.name))}
	e.guard.lookAt(ctx)
	return nil
}

// ServeHTTP answers for itself: it is the end of its route.
func (e *TokenEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store") // with Pragma, RFC 6749 §5.1
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if d := e.guard.denies(r); d != nil {
		return answerTo(w, r, d.status, "text/plain; charset=utf-8", d.text+"\n")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
		h.Set("Allow", "GET, HEAD, POST")
		return caddyhttp.Error(http.StatusMethodNotAllowed, nil)
	}
	h.Add("Vary", "Accept")
	plain := prefersText(r.Header.Values("Accept"), "plain")
	t, refusal := e.find(r)
	if refusal != nil {
		return e.refuse(w, r, refusal, plain)
	}
	if plain && !strings.Contains(t.Value, "{{") {
		return answerTo(w, r, http.StatusOK, "text/plain; charset=utf-8", t.Value)
	}
	body, err := json.Marshal(&tokenAnswer{ //nolint:gosec // G117: to hand out the token is what it is for
		AccessToken: t.Value, TokenType: e.inject.entry.scheme, ExpiresIn: int64(handedFor(t) / time.Second), Scope: strings.Join(t.Scopes(), " "),
	})
	if err != nil {
		return err
	}
	// Caddy's templates come before this handler, and would have the
	// authorization server write one
	text := strings.ReplaceAll(string(body), "{{", `{\u007b`)
	return answerTo(w, r, http.StatusOK, "application/json", text+"\n")
}

// tokenAnswer is that of RFC 6749 §5.1.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope,omitempty"`
}

// tokenProblem is that of RFC 6749 §5.2, with the codes of §4.1.2.1 for what is
// no fault of the client.
type tokenProblem struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// find is the token that is held, or that comes within the wait.
func (e *TokenEndpoint) find(r *http.Request) (*token.Token, *refusal) {
	if t := e.inject.source.Token(); t != nil {
		e.inject.count(r.Context(), injected)
		return t, nil
	}
	c, result, refusal := e.inject.await(r)
	if refusal != nil {
		e.inject.publish(r.Context(), refusal)
		return nil, refusal
	}
	e.inject.count(r.Context(), result)
	return c.token, nil
}

// refuse says that there is no token, and none of the server's words.
func (e *TokenEndpoint) refuse(w http.ResponseWriter, r *http.Request, no *refusal, plain bool) error {
	if no.status == statusClientGone {
		return nil // nobody is there to be told
	}
	no.writeHeader(w.Header())
	if plain {
		return answerTo(w, r, no.status, "text/plain; charset=utf-8", no.text()+"\n")
	}
	problem := tokenProblem{Error: "temporarily_unavailable", Description: no.text()}
	if no.status == http.StatusBadGateway {
		problem.Error = "server_error" // it will not pass by itself
	}
	body, err := json.Marshal(problem)
	if err != nil {
		return err
	}
	return answerTo(w, r, no.status, "application/json", string(body)+"\n")
}

// comeAgain is for how long a token of unknown life is handed out that has
// lasted longer than was assumed.
const comeAgain = 30 * time.Second

// handedFor is for how long a token is handed out: as long as it is used here.
// One whose life is only assumed is handed out for as long as that, for who
// keeps it does not see that an upstream refuses it.
func handedFor(t *token.Token) time.Duration {
	if !t.Assumed() {
		return t.Left()
	}
	return min(t.Left(), max(t.Promised(), comeAgain))
}

// answerTo writes a whole answer.
func answerTo(w http.ResponseWriter, r *http.Request, status int, contentType, body string) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body)) //nolint:gosec,nolintlint // G705, which it finds now and then: no browser takes it for a page; who has gone away is not told
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*TokenEndpoint)(nil)
	_ caddyhttp.MiddlewareHandler = (*TokenEndpoint)(nil)
)
