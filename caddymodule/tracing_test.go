package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// tracing is what a user writes before what is to be traced.
const tracing = "tracing {\nspan front\n}\n"

// TestTraceOfDemand: the token request is in the trace of the request that
// caused it, with handler and transport, and in no other; the server learns
// nothing of it.
func TestTraceOfDemand(t *testing.T) {
	for way, site := range map[string]string{"handler": injecting, "transport": replaying} {
		t.Run(way, func(t *testing.T) {
			o := newOTLP(t)
			p := newParts(t, authserver.Config{Issue: tracedToken})
			credential := strings.Replace(p.credential(tenant), authserver.TokenPath, authserver.TokenPath+"?key=query-mark", 1)
			p.run(credential, tracing+site)
			for n := 1; n <= 2; n++ {
				p.want(p.get("/", append(sampled(n), "X-Tenant", "tenant-mark", "Tracestate", "vendor=state-mark", "Baggage", "a=baggage-mark")...), http.StatusOK)
			}
			s := o.tokenRequests(p, 1)[0]
			o.under(s, 1)
			o.waited(1, "success")
			p.wantAttributes(s, map[string]any{
				"http.response.status_code": 200, "upstream_auth.reason": "demand", "upstream_auth.result": "success",
			})
			if s.event(t, preparedEvent) == nil || s.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
				t.Errorf("the span has events %v and status %v", s.Events, s.Status)
			}
			if e := o.front(2).event(t, waitEvent); e != nil {
				t.Errorf("of a request that did not wait is told: %v", e)
			}
			o.tellsNothing(p, "tenant-mark", "query-mark", "baggage-mark", authserver.TokenPath)
			for _, r := range p.auth.Log() {
				if got := fmt.Sprint(r.Header["Traceparent"], r.Header["Tracestate"], r.Header["Baggage"]); got != "[] [] []" {
					t.Errorf("the authorization server was told %s", got)
				}
			}
		})
	}
}

// TestTraceOfWait: a request tells of a wait for a token request that is not its
// own: one of the start, or another request's.
func TestTraceOfWait(t *testing.T) {
	for name, option := range map[string]string{"start": "", "demand": tenant} {
		t.Run(name, func(t *testing.T) {
			o := newOTLP(t)
			p := newParts(t, authserver.Config{Issue: tracedToken})
			fault, letGo := hangingToken()
			defer letGo()
			p.auth.SetFault(fault)
			p.run(p.credential(option), tracing+"handle /short {\nupstream_auth crm {\nwait 50ms\n}\nreverse_proxy $API\n}\nhandle {\n"+injecting+"\n}")
			var wg sync.WaitGroup
			spans := 0
			if name == "demand" {
				spans = 1
				wg.Go(func() {
					a, err := p.try(http.MethodGet, "/", nil, append(sampled(1), "X-Tenant", "acme")...)
					if err != nil || a.status != http.StatusOK {
						t.Errorf("got %d %v", a.status, err)
					}
				})
			}
			eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
			p.want(p.get("/short", append(sampled(2), "X-Tenant", "acme")...), http.StatusServiceUnavailable)
			letGo()
			wg.Wait()
			p.want(p.get("/", append(sampled(3), "X-Tenant", "acme")...), http.StatusOK)
			found := o.tokenRequests(p, spans)
			if spans > 0 {
				o.under(found[0], 1)
				o.waited(1, "success")
			}
			o.waited(2, "unreachable")
			o.tellsNothing(p)
		})
	}
}

// TestTraceOfRejection: the token request that an upstream's refusal causes, by
// handler and transport, with a token and with a refresh token, shared or not.
// That of the start is in no trace.
func TestTraceOfRejection(t *testing.T) {
	for name, tc := range map[string]struct {
		site, grant string
		status      int
		options     []string
	}{
		"transport":      {replaying, "client_credentials", http.StatusOK, nil},
		"handler":        {injecting, "client_credentials", http.StatusUnauthorized, nil},
		"refresh_token":  {replaying, "refresh_token", http.StatusOK, nil},
		"shared":         {replaying, "client_credentials", http.StatusOK, []string{"share"}},
		"shared refresh": {replaying, "refresh_token", http.StatusOK, []string{"share"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOTLP(t)
			p := newParts(t, authserver.Config{Issue: tracedToken, RefreshTokens: true, Rotate: authserver.RotateAlways})
			credential := p.credential(tc.options...)
			if tc.grant == "refresh_token" {
				credential = p.refreshing(p.auth.IssueRefreshToken(), tc.options...)
			}
			p.run(credential, tracing+tc.site)
			p.aged()
			p.auth.Revoke(tracedToken(1))
			p.want(p.get("/", sampled(1)...), tc.status)
			s := o.tokenRequests(p, 1)[0]
			o.under(s, 1)
			p.wantAttributes(s, map[string]any{
				"http.response.status_code": 200, "upstream_auth.grant": tc.grant,
				"upstream_auth.reason": "rejected", "upstream_auth.result": "success",
			})
			o.tellsNothing(p)
		})
	}
}

// traceFailures are the ways in which a token request fails.
var traceFailures = map[string]struct {
	fault   authserver.Fault
	change  func(credential string) string
	kind    string
	attrs   map[string]any
	status  string
	unready bool // nothing was sent
}{
	"the client is refused": {
		fault: authserver.Raw(http.StatusUnauthorized, "application/json", `{"error":"invalid_client","error_description":"said-mark"}`),
		kind:  "refused", status: "refused: HTTP 401, invalid_client",
		attrs: map[string]any{"http.response.status_code": 401, "error.type": "401"},
	},
	"refused with a 200": {
		fault: authserver.Raw(http.StatusOK, "application/json", `{"error":"invalid_scope","error_description":"said-mark"}`),
		kind:  "refused", status: "refused: HTTP 200, invalid_scope",
		attrs: map[string]any{"http.response.status_code": 200, "error.type": "refused"},
	},
	"down": {
		fault: authserver.Raw(http.StatusServiceUnavailable, "text/html", "<h1>said-mark</h1>"),
		kind:  "unreachable", status: "unreachable: HTTP 503",
		attrs: map[string]any{"http.response.status_code": 503, "error.type": "503"},
	},
	"no answer": {
		fault: authserver.Reset(),
		kind:  "unreachable", status: "unreachable: ",
		attrs: map[string]any{"error.type": "unreachable"},
	},
	"no token": {
		fault: authserver.Raw(http.StatusOK, "application/json", `{"note":"said-mark"}`),
		kind:  "malformed", status: "malformed: HTTP 200",
		attrs: map[string]any{"http.response.status_code": 200, "error.type": "malformed"},
	},
	"a secret that is not there": {
		change: func(credential string) string {
			return strings.Replace(credential, "{env."+secretEnv+"}", "{file./nowhere/secret}", 1)
		},
		kind: "refused", status: "refused: ", unready: true,
		attrs: map[string]any{"error.type": "refused"},
	},
	"an issuer that is down": {
		change: func(credential string) string {
			_, rest, _ := strings.Cut(credential, "\n")
			return "issuer http://127.0.0.1:1\n" + rest
		},
		kind: "unreachable", status: "unreachable: ", unready: true,
		attrs: map[string]any{"error.type": "unreachable"},
	},
}

// TestTraceOfFailure: the span tells what went wrong as the log does, in none of
// the server's words but its code.
func TestTraceOfFailure(t *testing.T) {
	for name, tc := range traceFailures {
		t.Run(name, func(t *testing.T) {
			o := newOTLP(t)
			p := newParts(t, authserver.Config{Issue: tracedToken})
			p.auth.SetFault(tc.fault)
			credential := p.credential(tenant)
			if tc.change != nil {
				credential = tc.change(credential)
			}
			p.run(credential, tracing+injecting)
			if a := p.get("/", append(sampled(1), "X-Tenant", "tenant-mark")...); a.status < 500 {
				t.Errorf("got %d", a.status)
			}
			s := o.tokenRequests(p, 1)[0]
			o.under(s, 1)
			o.waited(1, tc.kind)
			tc.attrs["upstream_auth.reason"], tc.attrs["upstream_auth.result"] = "demand", tc.kind
			if tc.unready {
				for _, name := range []string{"http.request.method", "server.address", "server.port"} {
					tc.attrs[name] = nil
				}
			}
			p.wantAttributes(s, tc.attrs)
			if s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || !strings.HasPrefix(s.Status.GetMessage(), tc.status) {
				t.Errorf("its status is %v, want %s", s.Status, tc.status)
			}
			if prepared := s.event(t, preparedEvent) != nil; prepared == tc.unready {
				t.Errorf("that it was sent is told: %t", prepared)
			}
			o.tellsNothing(p, "said-mark", "tenant-mark")
		})
	}
}

// TestTraceOfRepetition: each attempt has a span, side by side: with a nonce,
// and with the secret that worked last.
func TestTraceOfRepetition(t *testing.T) {
	t.Run("nonce", func(t *testing.T) {
		o := newOTLP(t)
		p := newParts(t, authserver.Config{Issue: tracedToken, DPoP: authserver.DPoPRequired, DPoPNonce: true})
		key := filepath.Join(t.TempDir(), "key")
		newKeyFile(t, key)
		p.run(p.credential("dpop {\nkey_file "+key+"\n}", tenant), tracing+replaying)
		p.want(p.get("/", append(sampled(1), "X-Tenant", "acme")...), http.StatusOK)
		p.wantRepeated(o, o.tokenRequests(p, 2), 1, 400, "refused: HTTP 400, use_dpop_nonce")
	})
	t.Run("secret", func(t *testing.T) {
		o := newOTLP(t)
		p := newParts(t, authserver.Config{Issue: tracedToken})
		file := writeFile(t, "secret", []byte(oddSecret))
		p.run(strings.Replace(p.credential(tenant), "{env."+secretEnv+"}", "{file."+file+"}", 1), tracing+injecting)
		p.want(p.get("/", "X-Tenant", "first", "Traceparent", traceparent(9, "00")), http.StatusOK)
		if err := os.WriteFile(file, []byte("next-secret-mark"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/", append(sampled(1), "X-Tenant", "acme")...), http.StatusOK)
		p.wantRepeated(o, o.tokenRequests(p, 2), 1, 401, "refused: HTTP 401, invalid_client")
		o.tellsNothing(p, "next-secret-mark")
	})
}

// wantRepeated checks the spans of a token request whose second attempt is good.
func (p *parts) wantRepeated(o *otlp, found []span, n, status int, said string) {
	p.t.Helper()
	for _, s := range found {
		o.under(s, n)
	}
	o.waited(n, "success")
	p.wantAttributes(found[0], map[string]any{
		"http.response.status_code": status, "error.type": fmt.Sprint(status),
		"upstream_auth.reason": "demand", "upstream_auth.result": "refused",
	})
	if got := found[0].Status.GetMessage(); got != said {
		p.t.Errorf("the first attempt's status is %q, want %q", got, said)
	}
	p.wantAttributes(found[1], map[string]any{
		"http.response.status_code": 200, "http.request.resend_count": 1,
		"upstream_auth.reason": "demand", "upstream_auth.result": "success",
	})
	if found[1].StartTimeUnixNano < found[0].EndTimeUnixNano {
		p.t.Error("the second attempt begins before the first ends")
	}
	o.tellsNothing(p)
}

// TestTraceOfNobody: what no request caused is in no trace, whoever comes by.
func TestTraceOfNobody(t *testing.T) {
	o := newOTLP(t)
	p := newParts(t, authserver.Config{Issue: tracedToken, Lifetime: 2 * time.Second})
	p.run(p.credential()+credentialToo("tenants", p.credential(tenant)),
		tracing+"handle /tenants {\nupstream_auth tenants\nreverse_proxy $API\n}\nhandle {\n"+injecting+"\n}")
	p.want(p.get("/tenants", "X-Tenant", "acme"), http.StatusOK)
	eventually(t, "renewals of both", func() bool {
		p.want(p.get("/"), http.StatusOK)
		p.want(p.get("/tenants", "X-Tenant", "acme"), http.StatusOK)
		var renewed, other int
		for _, r := range p.auth.Log() {
			if r.Form.Get("tenant") != "" {
				renewed++
			} else {
				other++
			}
		}
		return renewed >= 2 && other >= 2
	})
	eventually(t, "the span of the first request", func() bool { return len(o.named(attemptSpanName)) > 0 })
	p.stop()
	found := o.named(attemptSpanName) // on a busy machine a token ends before its renewal: that is demand, too
	for _, s := range found {
		if reason := attributesOf(s.Attributes)["upstream_auth.reason"]; reason != "demand" {
			t.Errorf("there is a span for the reason %s", reason)
		}
	}
	if n := p.auth.Requests(); len(found) > n-3 {
		t.Errorf("%d spans of %d token requests", len(found), n)
	}
}

// TestTraceOff: nothing is told of a request that is not to be traced.
func TestTraceOff(t *testing.T) {
	for name, tc := range map[string]struct {
		site   string
		fields []string
	}{
		"not sampled": {tracing, unsampled(1)},
		"no tracing":  {"", sampled(1)},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOTLP(t)
			p := newParts(t, authserver.Config{Issue: tracedToken})
			p.run(p.credential(tenant), tc.site+replaying)
			p.want(p.get("/", append(tc.fields, "X-Tenant", "acme")...), http.StatusOK)
			outlast(t)
			p.auth.RevokeAll()
			p.want(p.get("/", append(tc.fields, "X-Tenant", "acme")...), http.StatusOK)
			o.tokenRequests(p, 0)
			if n := p.auth.Requests(); n != 2 || len(o.raw) > 0 {
				t.Errorf("%d token requests, want 2; exported were %d bytes", n, len(o.raw))
			}
		})
	}
	for _, caused := range []context.Context{nil, t.Context()} {
		if ctx := t.Context(); traced(ctx, token.Occasion{Cause: caused}) != ctx {
			t.Error("something is noted for a request that nobody traces")
		}
	}
}

// TestTraceOfClientGone: the span ends with the token request, long after the
// request that caused it.
func TestTraceOfClientGone(t *testing.T) {
	o := newOTLP(t)
	p := newParts(t, authserver.Config{Issue: tracedToken})
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.SetFault(fault)
	p.run(p.credential(tenant), tracing+injecting)
	ctx, leave := context.WithCancel(t.Context())
	req := p.request(http.MethodGet, nil, append(sampled(1), "X-Tenant", "acme")...).WithContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if res, err := p.client.Do(req); err == nil {
			res.Body.Close()
			t.Error("it was answered")
		}
	})
	eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
	leave()
	wg.Wait()
	o.waited(1, "client_gone")
	letGo()
	s := o.tokenRequests(p, 1)[0]
	o.under(s, 1)
	p.wantAttributes(s, map[string]any{
		"http.response.status_code": 200, "upstream_auth.reason": "demand", "upstream_auth.result": "success",
	})
	if s.EndTimeUnixNano < o.front(1).EndTimeUnixNano {
		t.Error("it ends before the request does")
	}
}

// TestTraceOfAdoption: a token that another instance has asked for makes no span,
// and an event on the request that wanted one.
func TestTraceOfAdoption(t *testing.T) {
	o := newOTLP(t)
	p := newParts(t, authserver.Config{Issue: tracedToken})
	p.run(p.credential("share"), tracing+replaying)
	p.aged()
	var path, record string
	eventually(t, "a token in the storage", func() bool {
		path, record = p.file()
		return strings.Contains(record, tracedToken(1)) && !strings.Contains(record, `"asking"`)
	})
	p.anotherInstance()
	obtained := regexp.MustCompile(`"obtained":"[^"]*"`).ReplaceAllString(record, `"obtained":"`+time.Now().UTC().Format(time.RFC3339Nano)+`"`)
	if err := os.WriteFile(path, []byte(strings.Replace(obtained, tracedToken(1), tracedToken(2), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.auth.Revoke(tracedToken(1))
	p.want(p.get("/", sampled(1)...), http.StatusOK)
	o.tokenRequests(p, 0)
	e := o.front(1).event(t, adoptedEvent)
	if got := fmt.Sprint(e); got != fmt.Sprint(map[string]any{"upstream_auth.credential": "crm", "upstream_auth.reason": "rejected"}) {
		t.Errorf("the span tells %s", got)
	}
	o.tellsNothing(p)
}

// anotherInstance asks for the second token.
func (p *parts) anotherInstance() {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.server.URL()+authserver.TokenPath, strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(appClient, url.QueryEscape(oddSecret))
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || p.auth.Issued() != 2 {
		p.t.Fatalf("got %s, and %d tokens are issued", res.Status, p.auth.Issued())
	}
}
