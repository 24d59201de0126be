package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

const statusSite = "upstream_auth_status /status\nupstream_auth crm\nreverse_proxy $API"

// browsers is what they send.
const browsers = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

// status asks for the status as a program does.
func (p *parts) status() (answer, *overview) {
	p.t.Helper()
	a := p.get("/status")
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	o := new(overview)
	if err := d.Decode(o); err != nil {
		p.t.Fatalf("%v in %s", err, a.body)
	}
	if ready := a.status == http.StatusOK; ready != o.Ready || !ready && a.status != http.StatusServiceUnavailable {
		p.t.Errorf("got %d, and ready is %v", a.status, o.Ready)
	}
	return a, o
}

// of is what is told of a credential.
func (o *overview) of(t *testing.T, name string) *report {
	t.Helper()
	for _, r := range o.Credentials {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("nothing is told of %s", name)
	return nil
}

// TestStatusReadiness goes through what a kubelet sees: a start without a
// server, the first token, an outage that is shorter than the token's life and
// one that is longer, and the end of it.
func TestStatusReadiness(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 4 * time.Second, Issue: func(n int) string { return fmt.Sprintf("c4n4ry-token-%d", n) }})
	p.auth.SetFault(authserver.Down())
	// early, so that a failure is told long before the token ends
	p.run(p.credential("scopes read", "refresh_at 10%"), statusSite)
	for _, step := range []struct {
		name  string
		fault authserver.Fault
		ready bool
		state state
	}{
		{"a start without a server", authserver.Down(), false, stateUnavailable},
		{"the first token", nil, true, stateOK},
		{"an outage, a valid token", authserver.Down(), true, stateFailing},
		{"an outage, none", authserver.Down(), false, stateUnavailable},
		{"after it", nil, true, stateOK},
		{"a refusal, a valid token", authserver.Invalid("invalid_client", "no"), true, stateFailing},
		{"a refusal, none", authserver.Invalid("invalid_client", "no"), false, stateUnavailable},
	} {
		p.auth.SetFault(step.fault)
		var o *overview
		eventually(t, step.name, func() bool {
			_, o = p.status()
			r := o.of(t, "crm")
			// since when is told a moment after the failure
			return r.State == step.state && r.FailingSince.IsZero() == (step.fault == nil)
		})
		r := o.of(t, "crm")
		if o.Ready != step.ready || r.Ready != step.ready || !r.Counts || !r.Used {
			t.Errorf("%s: ready %v, and the credential %+v", step.name, o.Ready, r)
		}
		if failing := step.fault != nil; failing != (r.Failure != nil) || failing != (r.Advice != nil) || failing == r.FailingSince.IsZero() {
			t.Errorf("%s: failure %+v, advice %+v, since %s", step.name, r.Failure, r.Advice, r.FailingSince)
		}
		a, _ := p.status()
		p.asSchema(step.name, a.body)
		p.noSecret(step.name)
	}
}

// noSecret looks for what must not be told, in both forms of the status.
func (p *parts) noSecret(when string) {
	p.t.Helper()
	for _, accept := range []string{"*/*", browsers} {
		body := p.get("/status", "Accept", accept).body
		for _, secret := range []string{"c4n4ry", oddSecret, "p%2Ba%25s", "w=d", secretEnv, "cCthJXMvdz1kICYhfjp4"} {
			if strings.Contains(body, secret) {
				p.t.Errorf("%s: %q stands in %s", when, secret, body)
			}
		}
	}
}

// TestStatusRejected: an upstream that refuses a token makes nobody unready,
// for another one would fare no better.
func TestStatusRejected(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	p.run(p.credential(), statusSite)
	eventually(t, "a token", func() bool { _, o := p.status(); return o.Ready })
	p.want(p.get("/"), 401)
	eventually(t, "a refused token", func() bool {
		p.get("/")
		_, o := p.status()
		return o.of(t, "crm").State == stateRejected && o.Ready
	})
	p.noSecret("rejected")
}

// TestStatusCounts: on which credentials the status depends.
func TestStatusCounts(t *testing.T) {
	const broken = "token_url http://127.0.0.1:9/token\nclient_id app\nclient_auth none"
	for _, tc := range []struct {
		name, site string
		status     int
		counts     string
	}{
		{"each that a route uses", "upstream_auth_status /status\nupstream_auth good", 200, "good"},
		{"by a transport, too", "upstream_auth_status /status\nreverse_proxy $API {\ntransport upstream_auth broken\n}", 503, "broken"},
		{"one without a token", "upstream_auth_status /status\nupstream_auth /a good\nupstream_auth /b broken", 503, "broken good"},
		{"not what no route uses", "upstream_auth_status /status", 200, ""},
		{"not a template", "upstream_auth_status /status\nupstream_auth tenants", 200, ""},
		{"a template that is named", "upstream_auth_status /status {\ncredential tenants\n}\nupstream_auth tenants", 503, "tenants"},
		{"one that is named", "upstream_auth_status /status {\ncredential good\n}\nupstream_auth broken", 200, "good"},
		{"named, and used by no route", "upstream_auth_status /status {\ncredential broken\n}\nupstream_auth good", 503, "broken"},
		{"several that are named", "upstream_auth_status /status {\ncredential good broken\n}", 503, "broken good"},
		{"written in place, behind", "upstream_auth_status /status\nhandle /b {\nupstream_auth {\n" + broken + "\n}\n}", 503, inlinePrefix},
		{"written in place, another named", "upstream_auth_status /status {\ncredential good\n}\nhandle /b {\nupstream_auth {\n" + broken + "\n}\n}", 200, "good"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			file := strings.Replace(p.caddyfile(p.credential(), tc.site), "credential crm {", "credential tenants {\n"+p.credential(tenant)+"}\ncredential broken {\n"+broken+"\n}\ncredential good {", 1)
			if err := p.load(file); err != nil {
				t.Fatal(err)
			}
			var a answer
			var o *overview
			eventually(t, "both credentials have tried", func() bool {
				a, o = p.status()
				return o.of(t, "good").Ready && o.of(t, "broken").Failures > 0
			})
			p.want(a, tc.status)
			var counts []string
			for _, r := range o.Credentials {
				if r.Counts && strings.HasPrefix(r.Name, inlinePrefix) {
					counts = append(counts, inlinePrefix)
				} else if r.Counts {
					counts = append(counts, r.Name)
				}
			}
			if got := strings.Join(counts, " "); got != tc.counts {
				t.Errorf("%q count, want %q", got, tc.counts)
			}
		})
	}
}

// TestStatusOfTemplate: it is ready with the first value.
func TestStatusOfTemplate(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(tenant, "max_tokens 7"), "upstream_auth_status /status {\ncredential crm\n}\nupstream_auth crm\nreverse_proxy $API")
	if _, o := p.status(); o.Ready || o.of(t, "crm").Template.Tokens != 0 {
		t.Error("ready without a token")
	}
	for _, value := range []string{"acme", "zenith"} {
		p.want(p.get("/", "X-Tenant", value), 200)
	}
	a, o := p.status()
	if r := o.of(t, "crm"); !o.Ready || r.Template.Tokens != 2 || r.Template.MaxTokens != 7 || r.Token != nil {
		t.Errorf("got %s", a.body)
	}
	for _, accept := range []string{"*/*", browsers} {
		if body := p.get("/status", "Accept", accept).body; strings.Contains(body, "acme") || strings.Contains(body, "zenith") {
			t.Errorf("a client's value is told: %s", body)
		}
	}
}

// TestStatusProbes: a liveness probe beside the status does not depend on it.
func TestStatusProbes(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Down())
	probes := freeport.Addr(t)
	file := p.caddyfile(p.credential(), "upstream_auth crm\nreverse_proxy $API") +
		"http://" + probes + " {\nbind 127.0.0.1\nhandle /livez {\nrespond 200\n}\nhandle {\nupstream_auth_status\n}\n}\n"
	if err := p.load(file); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		fault       authserver.Fault
		live, ready int
	}{{authserver.Down(), 200, 503}, {nil, 200, 200}} {
		p.auth.SetFault(step.fault)
		eventually(t, "the readiness follows", func() bool {
			status, _ := getAs(t, "http://"+probes+"/readyz", probes, "*/*")
			return status == step.ready
		})
		if status, _ := getAs(t, "http://"+probes+"/livez", probes, "*/*"); status != step.live {
			t.Errorf("the liveness is %d", status)
		}
	}
}

// TestStatusAlone: without any credential there is nothing to wait for.
func TestStatusAlone(t *testing.T) {
	p := newParts(t, authserver.Config{})
	file := p.caddyfile("", "upstream_auth_status /status")
	file = file[:strings.Index(file, "\tupstream_auth {")] + file[strings.Index(file, "\nhttp://")-2:]
	if err := p.load(file); err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	if a, o := p.status(); a.status != 200 || len(o.Credentials) != 0 || !strings.Contains(a.body, `"credentials": []`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	p.want(p.get("/status", "Accept", browsers), 200)
}

// TestStatusReload: a new config's status tells of its own credentials.
func TestStatusReload(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), statusSite)
	eventually(t, "a token", func() bool { _, o := p.status(); return o.Ready })
	_, before := p.status()
	if err := p.load(strings.ReplaceAll(p.caddyfile(p.credential(), statusSite), "reverse_proxy", "# another\nreverse_proxy")); err != nil {
		t.Fatal(err)
	}
	if _, o := p.status(); !o.Ready || !o.of(t, "crm").Token.Sent.Equal(before.of(t, "crm").Token.Sent) {
		t.Error("a reload costs the token")
	}
	if err := p.load(strings.ReplaceAll(p.caddyfile(p.credential(), statusSite), "crm", "erp")); err != nil {
		t.Fatal(err)
	}
	if _, o := p.status(); len(o.Credentials) != 1 || o.Credentials[0].Name != "erp" {
		t.Errorf("it tells of %+v", o.Credentials)
	}
}

// TestStatusMethods: GET and HEAD, and what comes with them.
func TestStatusMethods(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), statusSite)
	eventually(t, "a token", func() bool { _, o := p.status(); return o.Ready })
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "STATUS"} {
		a, err := p.try(method, "/status", nil)
		if err != nil || a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d with Allow %q, %v", method, a.status, a.header.Get("Allow"), err)
		}
	}
	for accept, contentType := range map[string]string{"*/*": "application/json", browsers: "text/html; charset=utf-8"} {
		for _, method := range []string{"GET", "HEAD"} {
			a, err := p.try(method, "/status", nil, "Accept", accept)
			if err != nil {
				t.Fatal(err)
			}
			p.want(a, 200)
			if (method == "HEAD") != (a.body == "") || a.header.Get("Content-Length") == "" {
				t.Errorf("%s: %d bytes with Content-Length %q", method, len(a.body), a.header.Get("Content-Length"))
			}
			for name, want := range map[string]string{"Content-Type": contentType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept", "Retry-After": ""} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, accept, name, got, want)
				}
			}
		}
	}
	if p.api.OK()+p.api.Missing() != 0 {
		t.Error("the API was asked")
	}
	p.want(p.get("/statuses"), 200) // is another path
}

func TestPrefersHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                            false,
		"*/*":                         false,
		"application/json":            false,
		browsers:                      true,
		"text/html":                   true,
		"TEXT/HTML; charset=utf-8":    true,
		"text/*":                      true,
		"text/plain, text/*;q=0.5":    true,
		"text/html, application/json": false,
		"text/html, */*":              false,
		"text/html, */*;q=0.9":        true,
		"text/html;q=0.8, application/json;q=0.7": true,
		"text/html;q=0.7, application/json;q=0.8": false,
		"text/html;q=0, */*":                      false,
		"text/html;q=0":                           false,
		"application/json;q=0, */*":               true,
		"application/*;q=0.2, */*;q=0.5":          true,
		"text/html;q=high":                        false,
		"text/html;q=2":                           false,
		"text/html;q=-1":                          false,
		"text/html;q=NaN":                         false,
		"text/html;q=":                            false,
		",,;q=1,text/html":                        true,
		"html":                                    false,
	} {
		if got := prefersHTML([]string{accept}); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
	if prefersHTML(nil) || !prefersHTML([]string{"application/json;q=0.1", "text/html"}) {
		t.Error("several fields are one")
	}
}

func FuzzPrefersHTML(f *testing.F) {
	for _, accept := range []string{"", browsers, "text/html;q=0.5;x=\"a,b\"", "*/*;q=1e-1"} {
		f.Add(accept)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		if got := prefersHTML([]string{accept}); got && !strings.Contains(accept, "*") && !strings.Contains(strings.ToLower(accept), "text/html") {
			t.Errorf("%q asks for no page", accept)
		}
	})
}

// TestStatusBehindTemplates: what stands in the status is never one.
func TestStatusBehindTemplates(t *testing.T) {
	const code = "{{env`HOME`}}"
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Invalid(code, "no"))
	p.run(p.credential(), "templates {\nmime text/html application/json\n}\n"+statusSite)
	eventually(t, "a refusal", func() bool { _, o := p.status(); return o.of(t, "crm").Failures > 0 })
	if _, o := p.status(); o.of(t, "crm").Failure.Code != code {
		t.Errorf("the code has become %q", o.of(t, "crm").Failure.Code)
	}
	if body := p.get("/status", "Accept", browsers).body; !strings.Contains(body, "{&#123;env`HOME`") {
		t.Errorf("the code has become another in %s", body)
	}
}

func TestBadStatus(t *testing.T) {
	at := func(arguments, options string) string {
		return definesCRM + "http://127.0.0.1:8080 {\nupstream_auth_status " + arguments + " {" + headMark(options) + "\n" + options + "\n}\n}\n"
	}
	for _, row := range []badConfig{
		{"unknown option", at("", "bogus 1 "+mark), []string{"'bogus'", "upstream_auth_status", "credential"}},
		{"a name outside the block", at("crm", ""), []string{"'crm'", "no argument but a matcher", "block"}},
		{"a name behind a matcher", at("/status crm", ""), []string{"'crm'", "no argument but a matcher"}},
		{"no name", at("", "credential "+mark), []string{"'credential'", "argument"}},
		{"an empty name", at("", `credential crm "" `+mark), []string{"'credential'", "argument"}},
		{"a block", at("", "credential crm {\nwait 1s "+mark+"\n}"), []string{"'credential'", "no block", "wait"}},
		{"given twice", at("", "credential crm\ncredential crm "+mark), []string{"'credential'", "twice"}},
		{"named twice", at("", "credential crm crm "+mark), []string{"credential", "'crm'", "twice"}},
		{"not defined", at("", "credential crm erp "+mark), []string{"credential", "'erp'", "not defined", "crm"}},
		{"none is defined", strings.TrimPrefix(at("", "credential erp "+mark), definesCRM), []string{"'erp'", "none is", "upstream_auth"}},
		{"no name of one", at("", "credential {env.NAME} "+mark), []string{"credential", "{env.NAME}", "letters"}},
		{"one written in place", at("", "credential inline-12345678 "+mark), []string{"'inline-12345678'", "in place"}},
	} {
		t.Run(row.name, func(t *testing.T) { adaptFails(t, row.text, row.want...) })
	}
	for _, row := range []badConfig{
		{"not defined", `["crm", "erp"]`, []string{"upstream_auth_status", "'erp'", "not defined", "crm"}},
		{"named twice", `["crm", "crm"]`, []string{"upstream_auth_status", "credential", "'crm'", "twice"}},
		{"no name of one", `["a b"]`, []string{"upstream_auth_status", "'a b'", "letters"}},
		{"no list", `"crm"`, []string{"credentials"}},
	} {
		t.Run(row.name+" in JSON", func(t *testing.T) {
			loadFails(t, jsonRoute(`{"handler": "upstream_auth_status", "credentials": `+row.text+`}`), row.want...)
		})
	}
	t.Run("none is defined in JSON", func(t *testing.T) {
		config, _, _ := strings.Cut(jsonRoute(`{"handler": "upstream_auth_status", "credentials": ["crm"]}`), ",\n\t\t\"upstream_auth\"")
		loadFails(t, config+"}}", "upstream_auth_status", "'crm'", "none is")
	})
	t.Run("unknown option in JSON", func(t *testing.T) {
		loadFails(t, jsonRoute(`{"handler": "upstream_auth_status", "bogus": 1}`), "bogus", "unknown field")
	})
}
