package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

const (
	defaultHeader = "Authorization"
	defaultScheme = "Bearer"
	defaultWait   = 5 * time.Second
)

// Injection says which token is put on a request, and how. It is what the
// handler and the transport have in common.
type Injection struct {
	// Credential is the name of one of the app's credentials. Either this or
	// Inline.
	Credential string `json:"credential,omitempty"`

	// Inline is a credential of this route alone. Equal ones are one. Either
	// this or Credential.
	Inline *Credential `json:"inline,omitempty"`

	// Header is the field that carries the token. Default: Authorization.
	Header string `json:"header,omitempty"`

	// Scheme stands before the token, with a blank; an empty one stands for
	// neither. Default: Bearer, and DPoP for a credential with dpop.
	Scheme *string `json:"scheme,omitempty"`

	// ClientAuthorization is what becomes of the field as the client sent it:
	// "replace" (the default) never passes it, "keep" lets it win over the
	// token, "reject" answers 400.
	ClientAuthorization string `json:"client_authorization,omitempty"`

	// Unavailable is what becomes of a request while no valid token is to be
	// had: "reject" (the default) answers 503 or 502, "pass" sends it on
	// without one.
	Unavailable string `json:"unavailable,omitempty"`

	// Wait is how long a request waits for a token that is being fetched.
	// From 0 to 10m. Default: 5s.
	Wait *caddy.Duration `json:"wait,omitempty"`

	directive string // that is blamed, where it is not upstream_auth
}

// injector does what an Injection says.
type injector struct {
	name    string
	boxed   any           // the name, boxed once for the replacer
	source  *token.Source // nil for a template
	entry   *entry
	header  string
	prefix  string
	keep    bool
	reject  bool
	pass    bool
	wait    time.Duration
	value   atomic.Pointer[headerValue]
	counts  [len(outcomes)]prometheus.Counter
	waiting prometheus.Observer
	server  *caddyhttp.Server // whose route this is

	rejectedOn []int // statuses
	refusals   [len(actions)]prometheus.Counter
}

// headerValue is a token as the field carries it, made once for each token.
type headerValue struct {
	token *token.Token
	text  string
}

// outcome is what became of a request.
type outcome int

const (
	injected outcome = iota
	waited
	kept
	clientRejected
	unavailable
	passed
	upstreamDenied
)

// outcomes are the outcomes' names; boxed, for the replacer takes them so.
var outcomes = [...]any{"injected", "waited", "kept", "client_rejected", "unavailable", "passed", "upstream_denied"}

func (o outcome) String() string { return outcomes[o].(string) }

// check tells what is wrong with the options, as an *optionError.
func (i *Injection) check() error {
	if i.Header != "" {
		if err := checkFieldName(i.Header); err != nil {
			return &optionError{"header", err}
		}
	}
	if i.Scheme != nil && *i.Scheme != "" && !httpguts.ValidHeaderFieldName(*i.Scheme) {
		return optionErrorf("header", "'%s' is not an authentication scheme (RFC 9110 §11.1)", *i.Scheme)
	}
	if err := checkOneOf("client_authorization", i.ClientAuthorization, "replace", "keep", "reject"); err != nil {
		return err
	}
	if err := checkOneOf("unavailable", i.Unavailable, "reject", "pass"); err != nil {
		return err
	}
	if i.Wait != nil {
		if err := checkDuration("wait", *i.Wait); err != nil {
			return err
		}
	}
	switch {
	case i.Credential == "" && i.Inline == nil:
		return optionErrorf("credential", "is missing: name one, or write its options in place")
	case i.Credential != "" && i.Inline != nil:
		return optionErrorf("credential", "'%s' is named and another is written in place: expected one of the two", i.Credential)
	}
	return nil
}

// blame names the credential whose use is wrong.
func (i *Injection) blame(err error) error {
	what := cmp.Or(i.directive, "upstream_auth")
	if i.Credential == "" {
		return fmt.Errorf("%s with a credential written in place: %w", what, err)
	}
	return fmt.Errorf("%s with credential '%s': %w", what, i.Credential, err)
}

func checkOneOf(option, value string, known ...string) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	last := len(known) - 1
	return optionErrorf(option, "is '%s', expected %s or %s", value, strings.Join(known[:last], ", "), known[last])
}

// provision finds the credential and prepares what is done for each request.
func (i *Injection) provision(ctx caddy.Context) (*injector, error) {
	if err := i.check(); err != nil {
		return nil, i.blame(err)
	}
	e, err := i.findCredential(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.checkExchange(&e.template); err != nil {
		return nil, i.blame(err)
	}
	in := &injector{
		name: e.name, boxed: e.name, source: e.source, entry: e,
		header: defaultHeader, prefix: e.scheme + " ",
		keep: i.ClientAuthorization == "keep", reject: i.ClientAuthorization == "reject",
		pass: i.Unavailable == "pass", wait: defaultWait,
		waiting: requestWait.WithLabelValues(e.name), rejectedOn: e.rejectedOn,
	}
	in.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if i.Header != "" {
		in.header = http.CanonicalHeaderKey(i.Header)
	}
	if i.Scheme != nil {
		in.prefix = ""
		if *i.Scheme != "" {
			in.prefix = *i.Scheme + " "
		}
	}
	if i.Wait != nil {
		in.wait = time.Duration(*i.Wait)
	}
	for o := range outcomes {
		in.counts[o] = requests.WithLabelValues(in.name, outcome(o).String())
	}
	for a, name := range actions {
		in.refusals[a] = upstreamUnauthorized.WithLabelValues(in.name, name)
	}
	return in, nil
}

func (i *Injection) findCredential(ctx caddy.Context) (*entry, error) {
	if i.Inline != nil {
		app, err := ctx.App(appName)
		if err != nil {
			return nil, err
		}
		return app.(*App).add(ctx, "", i.Inline)
	}
	app, err := ctx.AppIfConfigured(appName)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, unknownCredential(i.Credential, nil)
	}
	if err != nil {
		return nil, err
	}
	at, err := app.(*App).credential(i.Credential)
	if err != nil {
		return nil, err
	}
	at.routed.Store(true)
	return at.entry, nil
}

// apply puts the token on a request's header, or tells why the request must
// not go on. It is the one place where a token meets a request: with a valid
// one held it costs an atomic load, a look at the clock, and one header write.
// There is no token where the request goes on without one.
//
// values becomes the field's list of values. It is the request's own, for later
// handlers may write into it; the caller has it in what it allocates anyway.
func (i *injector) apply(r *http.Request, values *[1]string) (carried, *refusal) {
	ctx, header := r.Context(), r.Header
	announced := len(r.Trailer) > 0 && i.guardTrailer(r)
	if i.keep || i.reject {
		if clients := header[i.header]; len(clients) > 0 && i.keep {
			i.count(ctx, kept)
			return carried{}, nil
		} else if (clients != nil || announced) && i.reject {
			return carried{}, i.refuse(clientRejected, http.StatusBadRequest, nil)
		}
	}
	result := injected
	var c carried
	if i.source != nil {
		c.token = i.source.Token()
	}
	if c.token == nil {
		var no *refusal
		if c, result, no = i.await(r); no != nil {
			delete(header, i.header) // what the client sent never passes
			i.dropExchanged(r)
			if i.pass && no.outcome == unavailable && ctx.Err() == nil {
				i.count(ctx, passed)
				return carried{}, nil
			}
			return carried{}, no
		}
	}
	i.dropExchanged(r)
	values[0] = i.text(c.token)
	header[i.header] = values[:]
	i.count(ctx, result)
	return c, nil
}

// await finds a token that is not simply held: one that is still asked for, or
// that is the request's own.
func (i *injector) await(r *http.Request) (carried, outcome, *refusal) {
	if i.source == nil {
		return i.distinct(r)
	}
	start := time.Now()
	defer func() { i.waiting.Observe(time.Since(start).Seconds()) }()
	t, err := i.source.Wait(r.Context(), i.wait)
	i.traceWait(r.Context(), start, err)
	if err != nil {
		return carried{}, unavailable, i.refuseFor(err)
	}
	return carried{token: t}, waited, nil
}

// text is the field's value for a token.
func (i *injector) text(t *token.Token) string {
	if i.source == nil {
		return i.prefix + t.Value // each request may have another one
	}
	if v := i.value.Load(); v != nil && v.token == t {
		return v.text
	}
	v := &headerValue{t, i.prefix + t.Value}
	i.value.Store(v)
	return v.text
}

// guard takes the field's name out of the client's Connection header: a proxy
// removes what is named there, and would remove the token (RFC 9110 §7.6.1).
// A transport comes after that.
func (i *injector) guard(header http.Header) {
	lines, ok := header["Connection"]
	if !ok {
		return
	}
	var left []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, i.header) {
				left = append(left, name)
			}
		}
	}
	if left == nil {
		delete(header, "Connection")
		return
	}
	header["Connection"] = []string{strings.Join(left, ", ")}
}

// withdraw takes a token off a header again.
func (i *injector) withdraw(header http.Header, t *token.Token) {
	if t == nil {
		return
	}
	if values := header[i.header]; len(values) == 1 && strings.HasSuffix(values[0], t.Value) {
		delete(header, i.header)
	}
}

// guardTrailer keeps the client from sending the field as a trailer, and tells
// whether it announced to (RFC 9110 §6.5). The values come with the body's end.
func (i *injector) guardTrailer(r *http.Request) (announced bool) {
	_, announced = r.Trailer[i.header]
	delete(r.Trailer, i.header)
	if r.Body != nil {
		r.Body = &trailerGuard{r.Body, r.Trailer, i.header}
	}
	return announced
}

// trailerGuard is a body that leaves a field out of the trailers behind it.
type trailerGuard struct {
	io.ReadCloser
	trailer http.Header
	field   string
}

func (g *trailerGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	if err != nil {
		delete(g.trailer, g.field)
	}
	return n, err
}

// count notes what became of a request, for metrics, placeholders and the
// access log.
func (i *injector) count(ctx context.Context, o outcome) {
	i.counts[o].Inc()
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.upstream_auth.credential", i.boxed)
		repl.Set("http.upstream_auth.outcome", outcomes[o])
	}
	if i.server == nil || i.server.Logs == nil {
		return // no access log to write to
	}
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("upstream_auth_credential", i.name))
		extra.Set(zap.String("upstream_auth_outcome", o.String()))
	}
}
