package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const tenant = "param tenant {header.X-Tenant}"

// TestTemplate: each value has a token of its own, by handler and transport.
func TestTemplate(t *testing.T) {
	for way, site := range map[string]string{
		"handler":   injecting,
		"transport": "reverse_proxy $API {\ntransport upstream_auth crm\n}",
	} {
		t.Run(way, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			p.run(p.credential(tenant), site)
			if n := p.auth.Requests(); n != 0 {
				t.Errorf("%d token requests without any request", n)
			}
			for range 3 {
				for _, value := range []string{"acme", "zenith", `{env.HOME}`, `{http.request.host}`} {
					p.want(p.get("/", "X-Tenant", value), http.StatusOK)
				}
			}
			if n := p.auth.Requests(); n != 4 {
				t.Errorf("%d token requests for 4 values", n)
			}
			seen := make(map[string]bool)
			for _, r := range p.auth.Log() {
				seen[r.Form.Get("tenant")] = true
			}
			for _, value := range []string{"acme", "zenith", "{env.HOME}", "{http.request.host}"} {
				if !seen[value] {
					t.Errorf("%s was not sent as it was; sent were %v", value, seen)
				}
			}
		})
	}
}

// TestTemplateBadValues: what no token can be asked for with is the client's
// fault, and costs nothing.
func TestTemplateBadValues(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential("scopes read:{header.X-Tenant}"), injecting)
	for _, value := range []string{"", "a b", "\"", "ü", strings.Repeat("a", 257)} {
		var fields []string
		if value != "" {
			fields = []string{"X-Tenant", value}
		}
		a := p.get("/", fields...)
		p.want(a, http.StatusBadRequest)
		if value != "" && strings.Contains(a.header.Get("Proxy-Status")+a.body, value) && len(value) > 3 {
			t.Errorf("the answer repeats %q", value)
		}
	}
	p.want(p.get("/", "X-Tenant", strings.Repeat("a", 256)), http.StatusOK)
	if n := p.auth.Requests(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// TestTemplateFlood: distinct values beyond the rate are turned away with the
// time to come back, and what is in use stays.
func TestTemplateFlood(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(tenant, "max_tokens 20", "max_new 5"), injecting)
	p.want(p.get("/", "X-Tenant", "regular"), http.StatusOK)
	var mu sync.Mutex
	statuses := make(map[int]int)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 250 {
				a, err := p.try(http.MethodGet, "/", nil, "X-Tenant", fmt.Sprintf("flood-%d-%d", w, n))
				if err != nil {
					t.Error(err)
					return
				}
				if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
					t.Error("a 503 without Retry-After")
				}
				mu.Lock()
				statuses[a.status]++
				mu.Unlock()
				p.want(p.get("/", "X-Tenant", "regular"), http.StatusOK)
			}
		})
	}
	wg.Wait()
	most := 1 + 5 + int(5*time.Since(start).Seconds()+1)
	if n := p.auth.Requests(); n > most || statuses[http.StatusServiceUnavailable] == 0 {
		t.Errorf("%d token requests, want %d at most; answers %v", n, most, statuses)
	}
}

// TestExchange: each client's token is exchanged for one of its own.
func TestExchange(t *testing.T) {
	p := newParts(t, authserver.Config{SubjectTokens: func(text string) (string, bool) {
		return text, strings.HasPrefix(text, "client-")
	}})
	p.run(p.credential("grant token_exchange {\nsubject_token request\n}"), injecting)
	for range 2 {
		for _, client := range []string{"client-1", "client-2"} {
			p.want(p.get("/", "Authorization", "Bearer "+client), http.StatusOK)
		}
	}
	if n := p.auth.Requests(); n != 2 {
		t.Errorf("%d token requests for 2 clients", n)
	}
	for range 3 {
		for _, fields := range [][]string{nil, {"Authorization", "Basic YTpi"}, {"Authorization", "Bearer stranger"}} {
			a := p.get("/", fields...)
			p.want(a, http.StatusUnauthorized)
			if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, `error="invalid_token"`) {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		}
	}
	if n := p.auth.Requests(); n != 3 {
		t.Errorf("%d token requests, want 3: a token that was refused is remembered", n)
	}
}

// exchangingParts have a server that exchanges the tokens of its own clients.
func exchangingParts(t *testing.T) *parts {
	t.Helper()
	return newParts(t, authserver.Config{SubjectTokens: func(text string) (string, bool) {
		return text, strings.HasPrefix(text, "client-")
	}})
}

const exchange = "grant token_exchange {\nsubject_token request\n}"

// TestExchangeKeepsTheClientsToken: it does not go on to the upstream, wherever
// the new one stands.
func TestExchangeKeepsTheClientsToken(t *testing.T) {
	p := exchangingParts(t)
	var got atomic.Pointer[http.Header]
	up := listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		got.Store(&h)
	}))
	p.run(p.credential(exchange), "upstream_auth crm {\nheader X-Api-Token\n}\nreverse_proxy "+up.Addr())
	p.want(p.get("/", "Authorization", "Bearer client-1"), http.StatusOK)
	if h := *got.Load(); h.Get("Authorization") != "" || h.Get("X-Api-Token") == "" {
		t.Errorf("the upstream got Authorization %q and X-Api-Token %q", h.Get("Authorization"), h.Get("X-Api-Token"))
	}
}

// TestExchangePassiveHealthChecks: a refusal of the transport's own is no
// upstream's failure.
func TestExchangePassiveHealthChecks(t *testing.T) {
	p := exchangingParts(t)
	p.run(p.credential(exchange), "reverse_proxy $API {\nunhealthy_status 4xx 5xx\nfail_duration 10s\ntransport upstream_auth crm\n}")
	for range 3 {
		p.want(p.get("/"), http.StatusUnauthorized)
	}
	p.want(p.get("/", "Authorization", "Bearer client-1"), http.StatusOK)
}

// TestTemplateMask: a value that is a part of an error code does not change
// what the code means.
func TestTemplateMask(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Raw(http.StatusUnauthorized, "application/json", `{"error":"invalid_client"}`))
	p.run(p.credential(tenant), injecting)
	for _, value := range []string{"i", "n", "v", "client"} {
		p.want(p.get("/", "X-Tenant", value), http.StatusBadGateway)
	}
	if n := p.auth.Requests(); n != 1 {
		t.Errorf("%d token requests, want 1: the client is refused, whatever the value", n)
	}
}
