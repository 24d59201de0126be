package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// What a trace shows, in names that hold nothing of a request.
const (
	// attemptSpanName is a span of kind client for each attempt at a token
	// request that a traced request caused.
	attemptSpanName = "upstream_auth token request"
	// preparedEvent is on it: all is read, the server's metadata too, and it is
	// sent from now on.
	preparedEvent = "upstream_auth.prepared"
	// waitEvent is on a request's own span once it has waited for a token,
	// whoever caused the token request.
	waitEvent = "upstream_auth.wait"
	// adoptedEvent is on it where another instance had asked for the token.
	adoptedEvent = "upstream_auth.token_adopted"
)

// The attributes that are not OpenTelemetry's own; the first four are labels of
// the metrics.
const (
	attrCredential = attribute.Key("upstream_auth.credential")
	attrGrant      = attribute.Key("upstream_auth.grant")
	attrReason     = attribute.Key("upstream_auth.reason")
	attrResult     = attribute.Key("upstream_auth.result")
	attrWait       = attribute.Key("upstream_auth.wait_seconds")
)

// causeKey is what a token request's context has its cause under.
type causeKey struct{}

// cause is the traced request that caused a token request.
type cause struct {
	span   trace.Span
	reason token.Reason
	sent   int // of the token request's attempts, which come one after the other
}

// traced notes in the context of a token request whose trace it belongs to. It
// is the same context for a request that nobody traces.
func traced(ctx context.Context, on token.Occasion) context.Context {
	if on.Cause == nil {
		return ctx
	}
	span := trace.SpanFromContext(on.Cause)
	if !span.SpanContext().IsValid() {
		return ctx
	}
	return context.WithValue(ctx, causeKey{}, &cause{span: span, reason: on.Reason})
}

// attemptSpan is the span of one attempt; nil where there is no trace for it.
// The authorization server learns nothing of the trace: no header is sent.
type attemptSpan struct {
	trace.Span
	cause  *cause
	way    http.RoundTripper
	status int // of the answer, 0 while there is none
}

// trace begins the span of an attempt, with its preparation: a file system, or
// an issuer's metadata, may be what is slow.
func (q *requester) trace(ctx context.Context) (context.Context, *attemptSpan) {
	c, ok := ctx.Value(causeKey{}).(*cause)
	if !ok {
		return ctx, nil
	}
	// the request's own provider: Caddy sets no global one
	tracer := c.span.TracerProvider().Tracer(modulePath, trace.WithInstrumentationVersion(version()), trace.WithSchemaURL(semconv.SchemaURL))
	ctx, span := tracer.Start(trace.ContextWithSpan(ctx, c.span), attemptSpanName,
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attrCredential.String(q.name),
			attrGrant.String(q.credential.grantName),
			attrReason.String(string(c.reason)),
		))
	return ctx, &attemptSpan{Span: span, cause: c}
}

// over is the way of a request, past its span if there is one.
func (s *attemptSpan) over(way http.RoundTripper) http.RoundTripper {
	if s == nil {
		return way
	}
	s.way = way
	return s
}

// RoundTrip implements http.RoundTripper. Of the URL the span holds the host
// alone: a path may be a secret, as a query may.
func (s *attemptSpan) RoundTrip(req *http.Request) (*http.Response, error) {
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(req.Method),
		semconv.ServerAddress(req.URL.Hostname()),
		semconv.ServerPort(portOf(req.URL)),
	}
	if s.cause.sent > 0 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(s.cause.sent))
	}
	s.cause.sent++
	s.SetAttributes(attrs...)
	s.AddEvent(preparedEvent)
	res, err := s.way.RoundTrip(req)
	if err == nil {
		s.status = res.StatusCode
		s.SetAttributes(semconv.HTTPResponseStatusCode(s.status))
	}
	return res, err
}

// end tells what came of the attempt. A Failure's text holds none of the
// server's words but the error code.
func (s *attemptSpan) end(err error) {
	if s == nil {
		return
	}
	defer s.End()
	if err == nil {
		s.SetAttributes(attrResult.String(resultSuccess))
		return
	}
	result := oauth.Refused.String()
	if f, ok := errors.AsType[*oauth.Failure](err); ok {
		result = f.Kind.String()
	}
	errorType := result
	if s.status >= http.StatusBadRequest { // as any HTTP client has it
		errorType = strconv.Itoa(s.status)
	}
	s.SetAttributes(attrResult.String(result), semconv.ErrorTypeKey.String(errorType))
	s.SetStatus(codes.Error, err.Error())
}

// portOf is the port of a URL, its scheme's own where it names none.
func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}

// traceAdopted tells on the span of the request that caused a token request
// that no server was asked.
func (q *requester) traceAdopted(ctx context.Context, res *oauth.Response) {
	c, ok := ctx.Value(causeKey{}).(*cause)
	if !ok || res == nil || !res.Adopted {
		return
	}
	c.span.AddEvent(adoptedEvent, trace.WithAttributes(
		attrCredential.String(q.name),
		attrReason.String(string(c.reason)),
	))
}

// traceWait tells on a request's own span that it waited for a token, and what
// came of that: a token request that it did not cause is in no trace of its own.
func (i *injector) traceWait(ctx context.Context, began time.Time, err error) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	waited := time.Since(began)
	result := resultSuccess
	if err != nil {
		result = i.refuseFor(err).reason
	}
	span.AddEvent(waitEvent, trace.WithAttributes(
		attrCredential.String(i.name),
		attrWait.Float64(waited.Seconds()),
		attrResult.String(result),
	))
}

// Interface guard
var _ http.RoundTripper = (*attemptSpan)(nil)
