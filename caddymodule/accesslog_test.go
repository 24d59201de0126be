package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// credentialToo ends the block of the credential crm and begins another one's,
// for caddyfile.
func credentialToo(name, block string) string {
	return "}\ncredential " + name + " {\n" + block
}

// accessEntry is what Caddy's access log tells of a request.
type accessEntry struct {
	Logger  string `json:"logger"`
	Request struct {
		URI string `json:"uri"`
	} `json:"request"`
	Status     int    `json:"status"`
	Credential string `json:"upstream_auth_credential"`
	Outcome    string `json:"upstream_auth_outcome"`
	line       string
}

// accessed waits for the entry of a request, which is written behind its answer.
func (p *parts) accessed(uri string) (entry accessEntry) {
	p.t.Helper()
	eventually(p.t, "an entry for "+uri, func() bool {
		for line := range strings.Lines(p.logged()) {
			e := accessEntry{line: line}
			if json.Unmarshal([]byte(line), &e) == nil && strings.HasPrefix(e.Logger, "http.log.access") && e.Request.URI == uri {
				entry = e
				return true
			}
		}
		return false
	})
	return entry
}

// wantFields checks that an entry has the two fields once, and what they say.
func (p *parts) wantFields(uri, credential, outcome string) {
	p.t.Helper()
	e := p.accessed(uri)
	if e.Credential != credential || e.Outcome != outcome {
		p.t.Errorf("%s: the entry says %q of credential %q, want %q of %q", uri, e.Outcome, e.Credential, outcome, credential)
	}
	times := 1
	if credential == "" {
		times = 0
	}
	for _, field := range []string{`"upstream_auth_credential":`, `"upstream_auth_outcome":`} {
		if n := strings.Count(e.line, field); n != times {
			p.t.Errorf("%s: %s stands %d times in %s", uri, field, n, e.line)
		}
	}
}

// TestAccessLogOfRoutes: named routes and error routes have the fields, too.
func TestAccessLogOfRoutes(t *testing.T) {
	p := newParts(t, authserver.Config{})
	ours := "upstream_auth crm\nreverse_proxy $API"
	p.run(p.credential(), "log\nhandle /named {\ninvoke api\n}\nhandle {\nerror 500\n}\nhandle_errors {\n"+ours+"\n}\n}\n&(api) {\n"+ours)
	eventually(t, "a token", func() bool { return credentials.newest()["crm"].source.Token() != nil })
	for _, uri := range []string{"/named", "/error"} {
		p.want(p.get(uri), 200)
		p.wantFields(uri, "crm", "injected")
	}
}

// outcomeCases has a request for each outcome.
var outcomeCases = []struct {
	outcome, credential, options string
	fields                       []string
	status                       int
}{
	{"injected", "crm", "", nil, http.StatusOK},
	{"waited", "tenants", "", []string{"X-Tenant", "$WAY"}, http.StatusOK},
	{"kept", "crm", "client_authorization keep", []string{"Authorization", "Bearer mine"}, http.StatusUnauthorized}, // by the API
	{"client_rejected", "crm", "client_authorization reject", []string{"Authorization", "Bearer mine"}, http.StatusBadRequest},
	{"unavailable", "down", "wait 0", nil, http.StatusServiceUnavailable},
	{"passed", "down", "wait 0\nunavailable pass", nil, http.StatusUnauthorized}, // by the API
	{"upstream_denied", "crm", "upstreams api.example.com", nil, http.StatusBadGateway},
}

// TestOutcomes: the access log and the metric tell what became of each request,
// by the handler and by the transport, and never with which token.
func TestOutcomes(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var site strings.Builder
	site.WriteString("log\nhandle /metrics {\nmetrics\n}\nhandle /none {\nrespond ok\n}\n")
	for _, c := range outcomeCases {
		if c.outcome != "upstream_denied" { // which a handler cannot know
			fmt.Fprintf(&site, "handle /handler/%s {\nupstream_auth %s {\n%s\n}\nreverse_proxy $API\n}\n", c.outcome, c.credential, c.options)
		}
		fmt.Fprintf(&site, "handle /transport/%s {\nreverse_proxy $API {\ntransport upstream_auth %s {\n%s\n}\n}\n}\n", c.outcome, c.credential, c.options)
	}
	down := fmt.Sprintf("token_url http://%s/token\nclient_id app\nclient_auth client_secret_post {env.%s}", deadAddr(t), secretEnv)
	p.run(p.credential()+credentialToo("tenants", p.credential(tenant))+credentialToo("down", down), site.String())
	eventually(t, "a token", func() bool { return credentials.newest()["crm"].source.Token() != nil })
	for _, c := range outcomeCases {
		counted := fmt.Sprintf(`requests_total{credential="%s",outcome="%s"}`, c.credential, c.outcome)
		for n, way := range []string{"handler", "transport"} {
			if way == "handler" && c.outcome == "upstream_denied" {
				continue
			}
			before := p.series()[counted]
			uri := "/" + way + "/" + c.outcome
			fields := make([]string, len(c.fields))
			for i, f := range c.fields {
				fields[i] = strings.ReplaceAll(f, "$WAY", way)
			}
			p.want(p.get(uri, fields...), c.status)
			p.wantFields(uri, c.credential, c.outcome)
			if e := p.accessed(uri); e.Status != c.status {
				t.Errorf("%s: the entry has status %d", uri, e.Status)
			}
			s := p.series()
			if got := s[counted]; got != before+1 {
				t.Errorf("%s rose from %v to %v", counted, before, got)
			}
			if waits := s[`request_wait_seconds_count{credential="tenants"}`]; c.outcome == "waited" && waits != float64(n+1) {
				t.Errorf("%v waits were measured", waits)
			}
		}
	}
	p.want(p.get("/none"), http.StatusOK)
	p.wantFields("/none", "", "")
	if found := token43.FindString(p.logged()); found != "" {
		t.Errorf("the log holds a token: %s", found)
	}
}

// TestOutcomeIsTheLast: whatever happens on the way to an upstream, the entry
// has the fields once, and they tell how it ended.
func TestOutcomeIsTheLast(t *testing.T) {
	for name, tc := range map[string]struct {
		site, credential, outcome string
		status                    int
	}{
		"attempts at two upstreams": {
			"reverse_proxy $DEAD $API {\nlb_policy first\nlb_try_duration 5s\nlb_try_interval 10ms\nfail_duration 1m\ntransport upstream_auth crm\n}",
			"crm", "injected", http.StatusOK,
		},
		"attempts in vain": {
			"reverse_proxy $DEAD {\nlb_retries 3\nlb_try_interval 1ms\ntransport upstream_auth crm\n}",
			"crm", "injected", http.StatusBadGateway,
		},
		"handler and transport of one credential": {
			"upstream_auth crm\nreverse_proxy $API {\ntransport upstream_auth crm\n}",
			"crm", "injected", http.StatusOK,
		},
		"handler and transport of two": {
			"upstream_auth crm\nreverse_proxy $API {\ntransport upstream_auth erp\n}",
			"erp", "injected", http.StatusOK,
		},
		"a transport that denies what the handler let pass": {
			"upstream_auth crm\nreverse_proxy $API {\ntransport upstream_auth erp {\nupstreams api.example.com\n}\n}",
			"erp", "upstream_denied", http.StatusBadGateway,
		},
		"an error route without a credential": {
			"upstream_auth crm {\nclient_authorization reject\n}\nreverse_proxy $API\nhandle_errors {\nrespond sorry 418\n}",
			"crm", "client_rejected", http.StatusTeapot,
		},
		"an error route with another credential": {
			"upstream_auth crm {\nclient_authorization reject\n}\nreverse_proxy $API\nhandle_errors {\nreverse_proxy $API {\ntransport upstream_auth erp\n}\n}",
			"erp", "injected", http.StatusOK,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			p.run(p.credential()+credentialToo("erp", p.credential("scopes other")), "log\n"+strings.ReplaceAll(tc.site, "$DEAD", deadAddr(t)))
			for _, name := range []string{"crm", "erp"} {
				eventually(t, "a token for "+name, func() bool { return credentials.newest()[name].source.Token() != nil })
			}
			p.want(p.get("/", "Authorization", "Bearer mine"), tc.status)
			p.wantFields("/", tc.credential, tc.outcome)
		})
	}
}
