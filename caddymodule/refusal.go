package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// statusClientGone is Caddy's (and nginx's) status for a client that left.
const statusClientGone = 499

// refusal is a request that must not go on to the upstream, and the answer
// that it gets. It holds none of the authorization server's words but its
// error code, and that only in err, which goes to the log.
type refusal struct {
	outcome    outcome
	status     int
	reason     string // unreachable, refused, malformed, limited, client_rejected, invalid_value, invalid_token, upstream_denied, client_gone
	retryAfter time.Duration
	err        error
}

// refuse makes a refusal that has nothing to do with a token request.
func (i *injector) refuse(o outcome, status int, err error) *refusal {
	if err == nil {
		err = fmt.Errorf("credential '%s': the client sent %s itself, which client_authorization reject forbids", i.name, i.header)
	}
	return &refusal{outcome: o, status: status, reason: o.String(), err: err}
}

// refuseFor makes a refusal of the reason why there is no token.
func (i *injector) refuseFor(err error) *refusal {
	f, ok := errors.AsType[*oauth.Failure](err)
	if limited, is := errors.AsType[*token.Limited](err); is {
		return &refusal{
			outcome: unavailable, status: http.StatusServiceUnavailable, reason: "limited",
			retryAfter: max(time.Second, limited.RetryAfter), err: fmt.Errorf("credential '%s': %w", i.name, err),
		}
	}
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !ok:
		return &refusal{outcome: unavailable, status: statusClientGone, reason: "client_gone", err: err}
	case !ok:
		return &refusal{outcome: unavailable, status: http.StatusServiceUnavailable, reason: oauth.Unreachable.String(), retryAfter: time.Second, err: err}
	}
	r := &refusal{
		outcome: unavailable, status: http.StatusServiceUnavailable, reason: f.Kind.String(),
		err: fmt.Errorf("no access token for credential '%s': %w", i.name, f),
	}
	if f.Kind == oauth.Refused {
		r.status = http.StatusBadGateway
		return r
	}
	r.retryAfter = max(time.Second, time.Until(i.next()))
	return r
}

// next is when another token request may bring what this one did not.
func (i *injector) next() time.Time {
	if i.source == nil {
		return i.entry.tokens.Snapshot().Next
	}
	return i.source.Snapshot().Next
}

// publish counts a refusal, and sets the placeholders for error routes.
func (i *injector) publish(ctx context.Context, r *refusal) {
	i.count(ctx, r.outcome)
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Set("http.upstream_auth.error", r.reason)
	retryAfter := ""
	if r.retryAfter > 0 {
		retryAfter = r.retryAfterSeconds()
	}
	repl.Set("http.upstream_auth.retry_after", retryAfter)
}

func (r *refusal) retryAfterSeconds() string {
	return strconv.Itoa(int(math.Ceil(r.retryAfter.Seconds())))
}

// writeHeader adds the fields that tell a client and its operator what
// happened: Retry-After (RFC 9110 §10.2.3) and Proxy-Status (RFC 9209).
func (r *refusal) writeHeader(h http.Header) {
	if r.retryAfter > 0 {
		h.Set("Retry-After", r.retryAfterSeconds())
	}
	if r.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750 §3
	}
	kind := "proxy_internal_response" // §2.3.29: made here, no upstream was asked
	if r.outcome == upstreamDenied {
		kind = "destination_ip_prohibited" // §2.3.5
	}
	h.Set("Proxy-Status", fmt.Sprintf(`caddy-upstream-auth; error=%s; details=%q`, kind, r.text()))
}

// text says what happened in words that may be shown to a client.
func (r *refusal) text() string {
	switch r.outcome {
	case clientRejected:
		switch r.reason {
		case badValue:
			return "the request brings no value that a token can be asked for with"
		case badToken:
			return "the request brings no bearer token that can be exchanged"
		}
		return "the client must not send its own authorization"
	case upstreamDenied:
		return "the upstream may not have the token"
	}
	return "no access token: " + r.reason
}

// response is the answer that the transport gives in place of an upstream's.
func (r *refusal) response(req *http.Request) *http.Response {
	body := r.text() + "\n"
	res := &http.Response{
		Status:     strconv.Itoa(r.status) + " " + http.StatusText(r.status),
		StatusCode: r.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       req,
	}
	r.writeHeader(res.Header)
	return res
}
