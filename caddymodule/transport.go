package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Transport))
}

// Transport is Caddy's own http transport for reverse_proxy that puts an access
// token on each attempt to reach an upstream. Unlike the handler it sees the
// upstream, and keeps the token from those that may not have it: it goes to TLS
// or to a loopback address, and only to the hosts in Upstreams where there are
// any.
//
// A request for which there is no token gets an answer from the transport
// itself, with the status that the handler would give; no upstream is asked,
// and none is counted as failed.
type Transport struct {
	Injection

	// Upstreams are the hosts that may have the token: host, host:port,
	// *.example.com for any one label, or unix//path/to/socket. Both the address that is dialled and
	// the Host that is sent have to be among them. Required where an upstream
	// is dynamic or holds a placeholder. Default: any host that is configured.
	Upstreams []string `json:"upstreams,omitempty"`

	// InsecureUpstream lets the token go to upstreams without TLS that are not
	// on a loopback address, and to those whose certificate is not verified.
	// Default: false.
	InsecureUpstream bool `json:"insecure_upstream,omitempty"`

	// HealthChecks says whether active health checks carry the token: on (the
	// default) or off. One that should and cannot, because no token is held or
	// the upstream may not have it, is not sent, and the upstream's health stays
	// as it was.
	HealthChecks string `json:"health_checks,omitempty"`

	// Replay says which requests are made once more, with another token, after
	// the upstream has refused the one that they carried. Default: on, with
	// the defaults of its options.
	Replay *Replay `json:"replay,omitempty"`

	// HTTPTransport is Caddy's own transport, with its options.
	*reverseproxy.HTTPTransport `json:"http,omitempty"`

	inject          *injector
	logger          *zap.Logger
	denied          atomic.Bool // a denial was told
	uncounted       bool        // own answers are kept from passive health checks
	retries         bool        // there is a lb_retry_match
	bareHealthCheck bool
	watches         bool // answers that break off
	bound           boundWay
}

// CaddyModule returns the Caddy module information.
func (*Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "http.reverse_proxy.transport.upstream_auth",
		// never nil: reverse_proxy asks a fresh one about TLS
		New: func() caddy.Module { return &Transport{HTTPTransport: new(reverseproxy.HTTPTransport)} },
	}
}

// Provision sets up Caddy's transport, finds the credential, and checks where
// the token may go.
func (t *Transport) Provision(ctx caddy.Context) error {
	t.logger = ctx.Logger()
	if t.HTTPTransport == nil {
		t.HTTPTransport = new(reverseproxy.HTTPTransport)
	}
	t.bareHealthCheck = t.HealthChecks == "off"
	proxy := parentProxy(ctx)
	if err := t.checkDestination(proxy); err != nil {
		return t.blame(err)
	}
	var err error
	if t.inject, err = t.Injection.provision(ctx); err != nil {
		return err
	}
	t.setApart(proxy)
	t.watches = t.unheard(ctx, proxy)
	return t.HTTPTransport.Provision(ctx)
}

// parentProxy is the reverse_proxy that this transport belongs to, nil if it
// belongs to something else.
func parentProxy(ctx caddy.Context) *reverseproxy.Handler {
	modules := ctx.Modules()
	if len(modules) < 2 {
		return nil
	}
	h, _ := modules[len(modules)-2].(*reverseproxy.Handler)
	return h
}

// RoundTrip puts the token on one attempt and makes it.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	check := isHealthCheck(req)
	if check && (t.bareHealthCheck || t.inject.source == nil) { // a template has no token of its own
		return t.HTTPTransport.RoundTrip(req)
	}
	if t.retries {
		t.markOwn(req, false)
	}
	if err := t.allowed(req); err != nil {
		level := zap.DebugLevel
		if t.denied.CompareAndSwap(false, true) { // one line; the metric counts
			level = zap.ErrorLevel
		}
		t.logger.Log(level, "the token is kept from an upstream", zap.String("credential", t.inject.name), zap.Error(err))
		if check {
			skipHealthCheck()
		}
		return t.answer(req, t.inject.refuse(upstreamDenied, http.StatusBadGateway, err)), nil
	}
	if check && t.inject.source.Token() == nil {
		skipHealthCheck()
	}
	// Caddy reuses the request and its header over attempts
	own := &struct {
		http.Request
		values [1]string
	}{Request: *req}
	attempt := &own.Request
	attempt.Header = maps.Clone(req.Header)
	c, refusal := t.inject.apply(attempt, &own.values)
	if refusal != nil {
		if check {
			skipHealthCheck()
		}
		if refusal.status == statusClientGone {
			t.inject.publish(req.Context(), refusal)
			return nil, context.Canceled // which reverse_proxy holds against nobody
		}
		return t.answer(req, refusal), nil
	}
	kept := t.keep(attempt, c.token)
	res, err := t.send(attempt, c.token, kept)
	if err == nil && c.token != nil && !check && t.inject.refuses(res) {
		res, err = t.afterRefusal(attempt, c, kept, res)
	}
	kept.settle(err != nil)
	if errors.Is(err, errNoProof) { // an error would be held against the upstream
		return t.answer(req, t.inject.clientsFault(http.StatusBadRequest, badValue, err)), nil
	}
	if t.watches && err == nil && !check {
		t.watch(attempt, res)
	}
	return res, err
}

// skipHealthCheck ends an active health check that cannot be made. Any answer
// and any error would change the upstream's health, which is not known. The
// check's goroutine is its own: ending it leaves the health as it was.
func skipHealthCheck() { runtime.Goexit() }

// ownStatus is added to the status of an answer of the transport's own on its
// way through reverse_proxy: no upstream can send such a one, and no
// unhealthy_status matches it.
const ownStatus = 1000

// ownStatuses are those of a refusal.
var ownStatuses = []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusBadGateway, http.StatusServiceUnavailable}

// setApart has reverse_proxy take our own answers for no upstream's, which was
// not even asked: lb_retry_match does not look at them, and their status is
// restored after the passive health checks have.
func (t *Transport) setApart(proxy *reverseproxy.Handler) {
	if proxy == nil {
		return
	}
	if lb := proxy.LoadBalancing; lb != nil {
		for _, set := range lb.RetryMatchRaw {
			t.retries = true
			keepFromRetries(set)
		}
	}
	if proxy.HealthChecks == nil || proxy.HealthChecks.Passive == nil {
		return
	}
	passive := proxy.HealthChecks.Passive
	if latency := time.Duration(passive.UnhealthyLatency); latency > 0 && t.inject.wait >= latency {
		t.logger.Warn("a request that waits for a token counts as slow for its upstream: set wait below unhealthy_latency",
			zap.String("credential", t.inject.name), zap.Duration("wait", t.inject.wait), zap.Duration("unhealthy_latency", latency))
	}
	if len(passive.UnhealthyStatus) == 0 {
		return
	}
	var restore []caddyhttp.ResponseHandler
	for _, status := range ownStatuses {
		restore = append(restore, caddyhttp.ResponseHandler{
			Match:      &caddyhttp.ResponseMatcher{StatusCode: []int{ownStatus + status}},
			StatusCode: caddyhttp.WeakString(strconv.Itoa(status)),
		})
	}
	proxy.HandleResponse = append(restore, proxy.HandleResponse...)
	t.uncounted = true
}

// ownAnswer is true in the replacer while the last attempt was answered here.
const ownAnswer = "http.upstream_auth.own_answer"

// keepFromRetries has a set of lb_retry_match leave our own answers alone,
// whatever it makes of their status.
func keepFromRetries(set caddy.ModuleMap) {
	var not []json.RawMessage
	if raw, ok := set["not"]; ok && json.Unmarshal(raw, &not) != nil {
		return // Caddy has its own say about it
	}
	not = append(not, json.RawMessage(`{"vars":{"{`+ownAnswer+`}":["true"]}}`))
	set["not"] = caddyconfig.JSON(not, nil)
}

// markOwn tells the matchers whether an attempt is answered here.
func (t *Transport) markOwn(req *http.Request, own bool) {
	if repl, ok := req.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set(ownAnswer, strconv.FormatBool(own))
	}
}

// answer gives a refusal to the client in place of an upstream's answer. An
// error would have the upstream counted as failed, and the request retried.
func (t *Transport) answer(req *http.Request, r *refusal) *http.Response {
	t.inject.publish(req.Context(), r)
	if t.retries {
		t.markOwn(req, true)
	}
	res := r.response(req)
	if r.status == http.StatusUnauthorized {
		claimRefusal(req.Context())
	}
	if t.uncounted && !isHealthCheck(req) {
		res.StatusCode += ownStatus
	}
	return res
}

// isHealthCheck tells an active health check from a request that somebody
// sent: it has an upstream, but none of what Caddy's server notes of a request.
func isHealthCheck(req *http.Request) bool {
	ctx := req.Context()
	if ctx.Value(caddyhttp.VarsCtxKey) != nil {
		return false
	}
	_, proxied := reverseproxy.GetDialInfo(ctx)
	return proxied
}

// Cleanup closes idle connections.
func (t *Transport) Cleanup() error {
	if t.HTTPTransport == nil {
		return nil
	}
	t.bound.close()
	return t.HTTPTransport.Cleanup()
}

// Interface guards
var (
	_ caddy.Provisioner                                = (*Transport)(nil)
	_ caddy.CleanerUpper                               = (*Transport)(nil)
	_ http.RoundTripper                                = (*Transport)(nil)
	_ reverseproxy.TLSTransport                        = (*Transport)(nil)
	_ reverseproxy.H2CTransport                        = (*Transport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*Transport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*Transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport           = (*Transport)(nil)
)
