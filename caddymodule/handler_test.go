package caddymodule

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// TestPlaces: a token is put on wherever the directive or the transport stands.
func TestPlaces(t *testing.T) {
	for name, site := range map[string]string{
		"site":                "upstream_auth crm\nreverse_proxy $API",
		"written last":        "reverse_proxy $API\nupstream_auth crm",
		"matcher":             "upstream_auth /hello* crm\nreverse_proxy $API",
		"handle":              "handle /hello* {\nupstream_auth crm\nreverse_proxy $API\n}",
		"around handle":       "upstream_auth crm\nhandle {\nreverse_proxy $API\n}",
		"handle_path":         "handle_path /hello/* {\nupstream_auth crm\nreverse_proxy $API\n}",
		"route":               "route {\nupstream_auth crm\nreverse_proxy $API\n}",
		"transport":           "reverse_proxy $API {\ntransport upstream_auth crm\n}",
		"both":                "upstream_auth crm\nreverse_proxy $API {\ntransport upstream_auth crm\n}",
		"transport in handle": "handle {\nreverse_proxy $API {\ntransport upstream_auth crm\n}\n}",
		"imported":            "import authorized crm",
		"invoked":             "invoke authorized",
		"around invoke":       "upstream_auth crm\ninvoke plain",
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			file := p.caddyfile(p.credential(), site)
			options, site, _ := strings.Cut(file, "\n}\n")
			file = options + strings.ReplaceAll(`
}
(authorized) {
	upstream_auth {args[0]}
	reverse_proxy $API
}
&(authorized) {
	route {
		upstream_auth crm
		reverse_proxy $API
	}
}
&(plain) {
	reverse_proxy $API
}
`, "$API", p.upstream.Addr()) + site
			if err := p.load(file); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/hello/there"), 200)
			if p.api.OK() != 1 || p.auth.Requests() != 1 {
				t.Errorf("%d requests with a token, %d token requests", p.api.OK(), p.auth.Requests())
			}
		})
	}
}

// TestInline: equal credentials written in place are one.
func TestInline(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), fmt.Sprintf("handle /a {\nupstream_auth {\n%s}\nreverse_proxy $API\n}\nhandle /b {\nreverse_proxy $API {\ntransport upstream_auth {\n%s}\n}\n}", p.credential("scopes x"), p.credential("scopes x")))
	p.want(p.get("/a"), 200)
	p.want(p.get("/b"), 200)
	eventually(t, "two token requests", func() bool { return p.auth.Requests() == 2 })
	if n := strings.Count(strings.Join(sorted(credentials.newest()), " "), inlinePrefix); n != 1 {
		t.Errorf("%d credentials are written in place: %v", n, sorted(credentials.newest()))
	}
}

func TestClientAuthorization(t *testing.T) {
	for _, tc := range []struct {
		mode   string
		sent   []string // header fields
		status int
		seen   string // by the API, $TOKEN for ours
	}{
		{"", nil, 200, "Bearer $TOKEN"},
		{"", []string{"Authorization", "Basic abc"}, 200, "Bearer $TOKEN"},
		{"", []string{"Authorization", "a", "Authorization", "b"}, 200, "Bearer $TOKEN"},
		{"replace", []string{"authorization", "Basic abc"}, 200, "Bearer $TOKEN"},
		{"keep", []string{"Authorization", "Basic abc"}, 200, "Basic abc"},
		{"keep", nil, 200, "Bearer $TOKEN"},
		{"reject", []string{"Authorization", "Basic abc"}, 400, ""},
		{"reject", nil, 200, "Bearer $TOKEN"},
		// named as a connection's, a proxy would delete it
		{"", []string{"Connection", "Authorization"}, 200, "Bearer $TOKEN"},
		{"", []string{"Connection", "keep-alive, AUTHORIZATION , X-Other", "X-Other", "gone"}, 200, "Bearer $TOKEN"},
	} {
		for _, way := range []string{"upstream_auth crm {\n%s\n}\nreverse_proxy $API", "reverse_proxy $API {\ntransport upstream_auth crm {\n%s\n}\n}"} {
			t.Run(tc.mode+" "+strings.Join(tc.sent, ",")+" "+way[:9], func(t *testing.T) {
				p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("tok-%d", n) }})
				var seen []string
				other := ""
				p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					seen, other = r.Header.Values("Authorization"), r.Header.Get("X-Other")
				}))
				option := ""
				if tc.mode != "" {
					option = "client_authorization " + tc.mode
				}
				p.run(p.credential(), fmt.Sprintf(way, option))
				a := p.get("/", tc.sent...)
				p.want(a, tc.status)
				if got, want := strings.Join(seen, "|"), strings.ReplaceAll(tc.seen, "$TOKEN", "tok-1"); got != want || other != "" {
					t.Errorf("the API saw %q, X-Other %q; want %q", got, other, want)
				}
				if tc.status == 400 && !strings.Contains(a.header.Get("Proxy-Status"), "caddy-upstream-auth; error=") {
					t.Errorf("Proxy-Status is %q", a.header.Get("Proxy-Status"))
				}
			})
		}
	}
}

func TestHeaderAndScheme(t *testing.T) {
	for option, want := range map[string]string{
		"header X-Token":              "X-Token: Bearer tok-1",
		"header x-token DPoP":         "X-Token: DPoP tok-1",
		`header X-Token ""`:           "X-Token: tok-1",
		`header Authorization token`:  "Authorization: token tok-1",
		"header Authorization Bearer": "Authorization: Bearer tok-1",
		`header "X-Api-Key" "" `:      "X-Api-Key: tok-1",
	} {
		t.Run(option, func(t *testing.T) {
			p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("tok-%d", n) }})
			seen := make(http.Header)
			p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }))
			p.run(p.credential(), "upstream_auth crm {\n"+option+"\n}\nreverse_proxy $API")
			p.want(p.get("/", "X-Token", "mine"), 200)
			name, value, _ := strings.Cut(want, ": ")
			if got := seen.Values(name); len(got) != 1 || got[0] != value {
				t.Errorf("got %q, want %q", got, want)
			}
			if warned := p.lines("Caddy hides the header field Authorization"); (warned > 0) == (name == "Authorization") {
				t.Errorf("warned %d times of what the debug log shows", warned)
			}
		})
	}
}

// TestSliceIsTheRequests: later handlers write into header values in place.
func TestSliceIsTheRequests(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "route {\nupstream_auth crm\nrequest_header /bad Authorization Bearer Broken\nreverse_proxy $API\n}")
	p.want(p.get("/"), 200)
	p.want(p.get("/bad"), 401)
	p.want(p.get("/"), 200)
}

// TestUnavailable: what a client gets while there is no token.
func TestUnavailable(t *testing.T) {
	const words = "the server's own words"
	for _, tc := range []struct {
		name   string
		fault  authserver.Fault
		status int
		retry  bool
		reason string
	}{
		{"refused", authserver.Invalid("invalid_client", words), 502, false, "refused"},
		{"malformed", authserver.Raw(200, "text/html", "<html>"+words), 503, true, "malformed"},
		{"redirect", authserver.Redirect(307, "http://127.0.0.1:1/steal"), 503, true, "malformed"},
		{"unreachable", authserver.Chain(authserver.AnswerHeader("X-Words", words), authserver.Down()), 503, true, "unreachable"},
	} {
		for _, way := range []string{"upstream_auth crm {\n%s\n}\nreverse_proxy $API", "reverse_proxy $API {\ntransport upstream_auth crm {\n%s\n}\n}"} {
			t.Run(tc.name+" "+way[:9], func(t *testing.T) {
				p := newParts(t, authserver.Config{})
				p.auth.SetFault(tc.fault)
				p.run(p.credential(), fmt.Sprintf(way, ""))
				a := p.get("/", "Authorization", "Basic mine")
				p.want(a, tc.status)
				if got := a.header.Get("Retry-After"); (got != "") != tc.retry || got == "0" {
					t.Errorf("Retry-After is %q", got)
				}
				if got := a.header.Get("Proxy-Status"); !strings.HasPrefix(got, "caddy-upstream-auth; error=proxy_internal_response") || !strings.Contains(got, tc.reason) {
					t.Errorf("Proxy-Status is %q", got)
				}
				for _, s := range []string{a.body, fmt.Sprint(a.header)} {
					if strings.Contains(s, words) || strings.Contains(s, "invalid_client") {
						t.Errorf("the server's words reach the client: %q", s)
					}
				}
				if p.api.OK()+p.api.Missing()+p.api.Unknown() != 0 {
					t.Error("the API was asked without a token")
				}
			})
			t.Run(tc.name+", pass "+way[:9], func(t *testing.T) {
				p := newParts(t, authserver.Config{})
				p.auth.SetFault(tc.fault)
				p.run(p.credential(), fmt.Sprintf(way, "unavailable pass"))
				p.want(p.get("/", "Authorization", "Basic mine"), 401) // from the API
				if p.api.Missing() != 1 {
					t.Error("what the client sent went on, or nothing did")
				}
			})
		}
	}
}

// TestErrorRoutes: the handler goes through Caddy's, with its placeholders.
func TestErrorRoutes(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Down())
	p.run(p.credential(), `upstream_auth crm {
		wait 0
	}
	reverse_proxy $API
	handle_errors {
		respond "{err.status_code} {http.upstream_auth.credential} {http.upstream_auth.outcome} {http.upstream_auth.error} {http.upstream_auth.retry_after}"
	}`)
	a := p.get("/")
	p.want(a, 503)
	if got, want := a.body, "503 crm unavailable unreachable "+a.header.Get("Retry-After"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAccessLogFields(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "log\nhandle /a {\nupstream_auth crm\nreverse_proxy $API\n}\nhandle {\nreverse_proxy $API {\ntransport upstream_auth crm {\nclient_authorization keep\n}\n}\n}")
	p.want(p.get("/b"), 200) // it may have waited
	p.want(p.get("/a"), 200)
	p.want(p.get("/b", "Authorization", "Basic x"), 401)
	for _, want := range []string{`"upstream_auth_credential":"crm","upstream_auth_outcome":"injected"`, `"upstream_auth_credential":"crm","upstream_auth_outcome":"kept"`} {
		eventually(t, want, func() bool { return p.lines(want) > 0 })
	}
}

// TestColdStart: 60 callers at once on a slow server cost one token request.
func TestColdStart(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Slow(300 * time.Millisecond))
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			if a, err := p.try("GET", "/", nil); err != nil || a.status != 200 {
				t.Errorf("got %v, %v", a, err)
			}
		})
	}
	wg.Wait()
	if p.auth.Requests() != 1 || p.api.OK() != 60 {
		t.Errorf("%d token requests, %d answers", p.auth.Requests(), p.api.OK())
	}
}

// TestServerDownAtStart: Caddy starts, requests wait or fail, and the first
// good answer comes by itself once the server is there.
func TestServerDownAtStart(t *testing.T) {
	p := newParts(t, authserver.Config{})
	addr := p.server.Addr()
	if err := p.server.Close(); err != nil {
		t.Fatal(err)
	}
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 503)
	listen(t, addr, p.auth)
	eventually(t, "a good answer", func() bool { return p.get("/").status == 200 })
}

// TestRefreshUnderLoad: no request fails, waits, or carries an expired token,
// by the API's own clock, while short tokens are renewed.
func TestRefreshUnderLoad(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 4 * time.Second})
	p.run(p.credential(often), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	stop := p.underLoad(func(a answer, err error) {
		if err != nil || a.status != 200 {
			t.Errorf("got %v, %v", a, err)
		}
	})
	eventually(t, "two renewals", func() bool { return p.auth.Issued() >= 3 })
	stop()
	if n := p.api.Expired() + p.api.Missing() + p.api.Unknown(); n != 0 {
		t.Errorf("%d requests without a valid token", n)
	}
	if p.auth.Peak() != 1 {
		t.Errorf("%d token requests at once", p.auth.Peak())
	}
}

// TestOneAccess: body credentials, a running token, and an ID token that is
// never injected, against a faithful copy of the endpoint.
func TestOneAccess(t *testing.T) {
	t.Setenv(secretEnv, oddSecret)
	p := assemble(t, authserver.NewOneAccess(authserver.Config{ClientID: appClient, ClientSecret: oddSecret, Lifetime: 4 * time.Second}))
	url := p.server.URL() + authserver.OneAccessPath
	p.run(fmt.Sprintf("token_url %s\nclient_id %s\nclient_auth client_secret_post {env.%s}", url, appClient, secretEnv), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	eventually(t, "a second token", func() bool {
		p.want(p.get("/"), 200)
		return p.auth.Issued() >= 2
	})
	if n := p.api.Unknown() + p.api.Missing() + p.api.Expired(); n != 0 {
		t.Errorf("%d requests without a valid token", n)
	}
	// and its own words for a refusal
	bad := fmt.Sprintf("token_url %s\nclient_id %s\nclient_auth client_secret_basic {env.%s}", url, appClient, secretEnv)
	if err := p.load(p.caddyfile(bad, "upstream_auth crm\nreverse_proxy $API")); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 502)
	if p.lines(`"credential":"crm","kind":"refused"`) != 1 {
		t.Error("the refusal is not told in the log")
	}
}

// TestEnvelope: a server with its own words.
func TestEnvelope(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var asked url.Values
	var method, key string
	odd := listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, method, key = r.URL.Query(), r.Method, r.Header.Get("X-Key")
		fmt.Fprint(w, `{"code":0,"data":{"token":"enveloped","ttl":3600000}}`)
	}))
	p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) }))
	p.run(fmt.Sprintf(`token_url %s/cgi-bin/token
		client_id wx1
		client_auth client_secret_post {env.%s}
		param lang en
		request {
			method GET
			grant_type client_credential
			rename client_id appid
			rename client_secret secret
			header X-Key {env.%[2]s}
		}
		response {
			access_token data.token
			expires_in data.ttl
			expires_unit ms
		}`, odd.URL(), secretEnv), "upstream_auth crm\nreverse_proxy $API")
	a := p.get("/")
	if p.want(a, 200); a.body != "Bearer enveloped" {
		t.Errorf("the API saw %q", a.body)
	}
	want := url.Values{"appid": {"wx1"}, "secret": {oddSecret}, "grant_type": {"client_credential"}, "lang": {"en"}}
	if method != "GET" || key != oddSecret || asked.Encode() != want.Encode() {
		t.Errorf("asked by %s with %v and %q", method, asked, key)
	}
	eventually(t, "an hour's life", func() bool { return p.lines(`"lifetime":3600`) == 1 })
}

// TestClientLeaves: one that leaves while it waits ends nothing for others.
func TestClientLeaves(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Slow(400 * time.Millisecond))
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	conn, err := net.Dial("tcp", p.proxy)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", p.proxy)
	eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
	conn.Close()
	p.want(p.get("/"), 200)
	if p.auth.Requests() != 1 {
		t.Errorf("%d token requests", p.auth.Requests())
	}
}

// TestErrorRoutesGetNoToken: what comes after a failure may lead elsewhere.
func TestErrorRoutesGetNoToken(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var seen atomic.Value
	fallback := listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r.Header.Get("Authorization")) }))
	p.run(p.credential(), fmt.Sprintf("upstream_auth crm\nreverse_proxy %s\nhandle_errors {\nreverse_proxy %s\n}", freeport.Addr(t), fallback.Addr()))
	p.get("/", "Authorization", "Basic mine")
	if got := seen.Load(); got != "" {
		t.Errorf("the fallback saw %q", got)
	}
}
