package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// otlp is a collector of OpenTelemetry, as far as spans go: it takes what a real
// Caddy exports, over gRPC.
type otlp struct {
	collectorpb.UnimplementedTraceServiceServer
	t *testing.T

	mu    sync.Mutex
	spans []span
	raw   []byte // all that came
}

// span is one as it came.
type span struct {
	*tracepb.Span
	scope, version, schema string
}

// newOTLP starts a collector, and has the Caddy that is run next send to it.
func newOTLP(t *testing.T) *otlp {
	t.Helper()
	o := &otlp{t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, o)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { server.Stop(); wg.Wait() })
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER":        "otlp",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + l.Addr().String(),
		"OTEL_EXPORTER_OTLP_INSECURE": "true",
		"OTEL_BSP_SCHEDULE_DELAY":     "10",
		"OTEL_TRACES_SAMPLER":         "parentbased_always_on",
		"OTEL_PROPAGATORS":            "tracecontext",
	} {
		t.Setenv(name, value)
	}
	return o
}

// Export implements collectorpb.TraceServiceServer.
func (o *otlp) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.raw = append(o.raw, raw...)
	for _, resource := range req.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				o.spans = append(o.spans, span{s, scope.Scope.GetName(), scope.Scope.GetVersion(), scope.SchemaUrl})
			}
		}
	}
	return new(collectorpb.ExportTraceServiceResponse), nil
}

// named are the spans of a name that have come, in the order in which they began.
func (o *otlp) named(name string) (found []span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	return found
}

// tokenRequests waits for so many spans of token requests, ends Caddy, which
// sends what it still has, and checks that there are no more.
func (o *otlp) tokenRequests(p *parts, n int) []span {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("%d spans of token requests", n), func() bool { return len(o.named(attemptSpanName)) >= n })
	p.stop()
	found := o.named(attemptSpanName)
	if len(found) != n {
		o.t.Fatalf("%d spans of token requests, want %d", len(found), n)
	}
	for _, s := range found {
		if s.Kind != tracepb.Span_SPAN_KIND_CLIENT || s.scope != modulePath || s.version != version() || s.schema != semconv.SchemaURL {
			o.t.Errorf("the span is of kind %s, by %s %s, %s", s.Kind, s.scope, s.version, s.schema)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			o.t.Error("the span ends before it begins")
		}
	}
	return found
}

// front is the span that Caddy made for the request of a trace.
func (o *otlp) front(n int) span {
	o.t.Helper()
	var found span
	eventually(o.t, fmt.Sprintf("the span of request %d", n), func() bool {
		for _, s := range o.named("front") {
			if hex.EncodeToString(s.TraceId) == traceID(n) {
				found = s
			}
		}
		return found.Span != nil
	})
	if got, want := hex.EncodeToString(found.ParentSpanId), fmt.Sprintf("%016x", n); got != want {
		o.t.Errorf("its parent is %s, want that from outside: %s", got, want)
	}
	return found
}

// under checks that a span is a child of the span of a request.
func (o *otlp) under(s span, n int) {
	o.t.Helper()
	front := o.front(n)
	if !bytes.Equal(s.TraceId, front.TraceId) || !bytes.Equal(s.ParentSpanId, front.SpanId) {
		o.t.Errorf("%s is of trace %x and parent %x, want %x and %x", s.Name, s.TraceId, s.ParentSpanId, front.TraceId, front.SpanId)
	}
}

// The trace that a request belongs to, as its client says (W3C Trace Context).
func traceID(n int) string     { return fmt.Sprintf("%032x", n) }
func sampled(n int) []string   { return []string{"Traceparent", traceparent(n, "01")} }
func unsampled(n int) []string { return []string{"Traceparent", traceparent(n, "00")} }

func traceparent(n int, flags string) string {
	return fmt.Sprintf("00-%s-%016x-%s", traceID(n), n, flags)
}

// attributesOf are attributes by name.
func attributesOf(attrs []*commonpb.KeyValue) map[string]any {
	out := make(map[string]any, len(attrs))
	for _, a := range attrs {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[a.Key] = int(v.IntValue)
		case *commonpb.AnyValue_DoubleValue:
			out[a.Key] = v.DoubleValue
		default:
			out[a.Key] = a.Value
		}
	}
	return out
}

// wantAttributes checks all attributes of a token request's span; more stand
// beside those that each has, and a nil there stands for none.
func (p *parts) wantAttributes(s span, more map[string]any) {
	p.t.Helper()
	server, err := url.Parse(p.server.URL())
	if err != nil {
		p.t.Fatal(err)
	}
	port, err := strconv.Atoi(server.Port())
	if err != nil {
		p.t.Fatal(err)
	}
	want := map[string]any{
		"http.request.method": "POST", "server.address": server.Hostname(), "server.port": port,
		"upstream_auth.credential": "crm", "upstream_auth.grant": "client_credentials",
	}
	maps.Copy(want, more)
	maps.DeleteFunc(want, func(_ string, v any) bool { return v == nil })
	if got := attributesOf(s.Attributes); !maps.Equal(got, want) {
		p.t.Errorf("the span has\n%v, want\n%v", got, want)
	}
}

// event is the only one of a name on a span, nil for none.
func (s span) event(t *testing.T, name string) map[string]any {
	t.Helper()
	var found map[string]any
	for _, e := range s.Events {
		if e.Name != name {
			continue
		}
		if found != nil {
			t.Errorf("there is more than one event %s", name)
		}
		found = attributesOf(e.Attributes)
	}
	return found
}

// waited checks what a request's span tells of its wait.
func (o *otlp) waited(n int, result string) {
	o.t.Helper()
	e := o.front(n).event(o.t, waitEvent)
	seconds, ok := e["upstream_auth.wait_seconds"].(float64)
	if !ok || seconds <= 0 || len(e) != 3 || e["upstream_auth.credential"] != "crm" || e["upstream_auth.result"] != result {
		o.t.Errorf("of the wait the span tells %v, want the result %s", e, result)
	}
}

// tellsNothing checks that nothing secret, and nothing that the parts' servers
// saw or said, was exported; and that there was something.
func (o *otlp) tellsNothing(p *parts, marks ...string) {
	o.t.Helper()
	marks = append(marks, oddSecret, url.QueryEscape(oddSecret), tracedMark)
	for _, r := range p.auth.Log() {
		for _, name := range []string{"Authorization", "DPoP"} {
			marks = append(marks, r.Header[name]...)
		}
		for _, name := range []string{"client_secret", "client_assertion", "refresh_token", "subject_token", "tenant"} {
			marks = append(marks, r.Form[name]...)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !bytes.Contains(o.raw, []byte(attemptSpanName)) && !bytes.Contains(o.raw, []byte("front")) {
		o.t.Error("nothing was exported")
	}
	for _, mark := range marks {
		if mark != "" && bytes.Contains(o.raw, []byte(mark)) {
			o.t.Errorf("what was exported holds %q", mark)
		}
	}
}

const tracedMark = "tell-nobody"

// tracedToken makes the text of tokens that can be searched for.
func tracedToken(n int) string { return fmt.Sprintf("%s-%d", tracedMark, n) }
