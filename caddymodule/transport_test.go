package caddymodule

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// deadAddr is an upstream that is down.
func deadAddr(t *testing.T) string {
	t.Helper()
	return freeport.Addr(t)
}

// TestAttempts: each attempt carries the token, and what one attempt put on
// its request is not on the next.
func TestAttempts(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), fmt.Sprintf("reverse_proxy %s $API {\nlb_policy first\nlb_retries 1\nfail_duration 1m\ntransport upstream_auth crm {\nclient_authorization reject\n}\n}", deadAddr(t)))
	p.want(p.get("/"), 200)
	if p.api.OK() != 1 {
		t.Errorf("%d requests with a token", p.api.OK())
	}
}

// TestDestinations: the token goes to those that may have it; others get
// nothing, not even a request without one.
func TestDestinations(t *testing.T) {
	_, port, _ := strings.Cut(strings.TrimPrefix(deadAddr(t), "127"), ":")
	for name, tc := range map[string]struct {
		transport string
		upstream  string
		status    int
		says      string
	}{
		"loopback":                  {"", "$API", 200, ""},
		"listed":                    {"upstreams 127.0.0.1", "$API", 200, ""},
		"listed by a wildcard":      {"upstreams 127.0.0.1 *.example.com", "$API", 200, ""},
		"not listed":                {"upstreams api.example.com", "$API", 502, "is not in upstreams"},
		"listed at another port":    {"upstreams 127.0.0.1:" + port, "$API", 502, "is not in upstreams"},
		"placeholder, listed":       {"upstreams 127.0.0.1", "{query.to}", 200, ""},
		"placeholder, not listed":   {"upstreams api.example.com", "{query.to}", 502, "is not in upstreams"},
		"placeholder, not loopback": {"upstreams 192.0.2.1 127.0.0.1", "{query.far}", 502, "neither TLS nor a loopback"},
		"dynamic, listed":           {"upstreams localhost 127.0.0.1", "dynamic", 200, ""},
		"dynamic, not listed":       {"upstreams 192.0.2.1", "dynamic", 502, "is not in upstreams"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			to := tc.upstream
			dynamic := ""
			if to == "dynamic" {
				host, port, _ := strings.Cut(p.upstream.Addr(), ":")
				to, dynamic = "", fmt.Sprintf("dynamic a %s %s", host, port)
			}
			p.run(p.credential(), fmt.Sprintf("reverse_proxy %s {\n%s\ntransport upstream_auth crm {\n%s\n}\n}", to, dynamic, tc.transport))
			a := p.get("/?to=" + p.upstream.Addr() + "&far=192.0.2.1:80")
			p.want(a, tc.status)
			if tc.status == 200 {
				return
			}
			if p.api.OK()+p.api.Missing()+p.api.Unknown() != 0 {
				t.Error("a request was sent")
			}
			if !strings.Contains(a.header.Get("Proxy-Status"), "error=destination_ip_prohibited") || p.lines(tc.says) == 0 {
				t.Errorf("Proxy-Status %q; the log does not say %q", a.header.Get("Proxy-Status"), tc.says)
			}
		})
	}
}

// TestHostSent: a list holds for the Host that is sent, too.
func TestHostSent(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "reverse_proxy $API {\nheader_up Host {query.host}\ntransport upstream_auth crm {\nupstreams 127.0.0.1 good.example.com\n}\n}")
	p.want(p.get("/?host=good.example.com"), 200)
	p.want(p.get("/?host=good.example.com:8443"), 200)
	p.want(p.get("/?host=evil.example.com"), 502)
	p.want(p.get("/?host=evil.example.com"), 502)
	if n := p.lines(`"level":"error","ts":`); n != 1 {
		t.Errorf("%d error lines for two denials", n)
	}
	if p.api.OK() != 2 {
		t.Errorf("%d requests with a token", p.api.OK())
	}
}

// certificate makes the authority's and server's TLS configuration.
func certificate(t *testing.T) (*tls.Config, []byte) {
	t.Helper()
	cert, pemBytes := selfSigned(t, "127.0.0.1")
	return &tls.Config{Certificates: []tls.Certificate{cert}}, pemBytes
}

// TestTLSUpstream: an https upstream gets the token, over HTTP/1.1 and HTTP/2.
func TestTLSUpstream(t *testing.T) {
	for _, version := range []string{"1.1", "2"} {
		p := newParts(t, authserver.Config{})
		conf, ca := certificate(t)
		proto := ""
		api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proto = r.Proto
			p.api.ServeHTTP(w, r)
		})
		l, err := authserver.ListenTLS("127.0.0.1:0", api, conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		p.run(p.credential(), fmt.Sprintf("reverse_proxy https://%s {\ntransport upstream_auth crm {\nhttp {\nversions %s\ntls_trust_pool file %s\n}\n}\n}", l.Addr(), version, writeFile(t, "ca.pem", ca)))
		p.want(p.get("/"), 200)
		if p.api.OK() != 1 || !strings.HasPrefix(proto, "HTTP/"+version) {
			t.Errorf("%d requests with a token, the last over %s", p.api.OK(), proto)
		}
	}
}

// TestUpstreamNotToBlame: an answer of the transport's own is not counted as
// the upstream's, which keeps serving other routes.
func TestUpstreamNotToBlame(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Down())
	p.run(p.credential(), `handle /auth {
		reverse_proxy $API {
			fail_duration 1m
			max_fails 1
			unhealthy_status 5xx
			transport upstream_auth crm {
				wait 0
			}
		}
	}
	handle {
		reverse_proxy $API {
			fail_duration 1m
			max_fails 1
		}
	}`)
	for range 5 {
		a := p.get("/auth")
		p.want(a, 503)
		if !strings.Contains(a.header.Get("Proxy-Status"), "caddy-upstream-auth") {
			t.Fatalf("the answer is not the transport's: %v", a.header)
		}
	}
	p.want(p.get("/other"), 401) // from the API itself
	// an unhealthy upstream of its own is still found out
	p.auth.SetFault(nil)
	eventually(t, "a token", func() bool { return p.get("/auth").status == 200 })
	p.api.SetFault(authserver.Down())
	p.want(p.get("/auth"), 503)
	p.api.SetFault(nil)
	if a := p.get("/auth"); a.status != 503 || strings.Contains(a.header.Get("Proxy-Status"), "caddy-upstream-auth") {
		t.Errorf("got %d %v; want Caddy's own 503 for an upstream that failed", a.status, a.header)
	}
}

// TestHealthChecks: an active health check carries the token; without one it
// is not sent, and the upstream's health stays as it was.
func TestHealthChecks(t *testing.T) {
	for _, tc := range []struct {
		option        string
		with, without bool // tokens seen on health checks
	}{
		{"", true, false}, {"health_checks on", true, false}, {"health_checks off", false, true},
	} {
		t.Run(tc.option, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			checks := make(chan string, 1000)
			p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/healthz" {
					checks <- r.Header.Get("Authorization")
				}
			}))
			p.auth.SetFault(authserver.Down())
			p.run(p.credential(), fmt.Sprintf("reverse_proxy $API {\nhealth_uri /healthz\nhealth_interval 20ms\nhealth_passes 2\ntransport upstream_auth crm {\nwait 2s\n%s\n}\n}", tc.option))
			if tc.without {
				if got := <-checks; got != "" {
					t.Errorf("a health check carried %q", got)
				}
				return
			}
			p.want(p.get("/"), 503)
			if len(checks) != 0 {
				t.Error("a health check was sent without a token")
			}
			p.auth.SetFault(nil)
			if got := <-checks; !strings.HasPrefix(got, "Bearer ") {
				t.Errorf("a health check carried %q", got)
			}
			p.want(p.get("/"), 200)
			if p.lines("panic") != 0 {
				t.Error("a health check panicked")
			}
		})
	}
}

// TestOwnHTTPOptions: what Caddy's transport can do, this one can.
func TestOwnHTTPOptions(t *testing.T) {
	p := newParts(t, authserver.Config{})
	slow := make(chan struct{})
	p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-slow:
		case <-r.Context().Done():
		}
	}))
	defer close(slow)
	p.run(p.credential(), "reverse_proxy $API {\ntransport upstream_auth crm {\nhttp {\nresponse_header_timeout 50ms\n}\n}\n}")
	p.want(p.get("/"), 504)
}

func TestListed(t *testing.T) {
	for _, tc := range []struct {
		list, host, port string
		want             bool
	}{
		{"api.example.com", "api.example.com", "443", true},
		{"API.example.com", "api.EXAMPLE.com.", "", true},
		{"api.example.com:443", "api.example.com", "443", true},
		{"api.example.com:443", "api.example.com", "8443", false},
		{"*.example.com", "api.example.com", "443", true},
		{"*.example.com", "example.com", "443", false},
		{"*.example.com", "a.b.example.com", "443", false},
		{"*.example.com", ".example.com", "443", false},
		{"example.com", "api.example.com", "443", false},
		{"example.com", "example.com.evil.net", "443", false},
		{"::1", "::1", "80", true},
		{"[::1]:80", "::1", "80", true},
		{"0:0:0:0:0:0:0:1", "::1", "80", true},
		{"api.example.com.", "api.example.com", "80", true},
	} {
		tr := &Transport{Upstreams: strings.Fields(tc.list)}
		if got := tr.listed(tc.host, tc.port); got != tc.want {
			t.Errorf("%s:%s in %s: %v", tc.host, tc.port, tc.list, got)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "localhost.example.com": false, "api.localhost": false, "127.0.0.1.example.com": false, "10.0.0.1": false, "notlocalhost": false, "2130706433": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// TestOwnAnswersAreNotRetried: whatever lb_retry_match makes of their status.
func TestOwnAnswersAreNotRetried(t *testing.T) {
	for _, health := range []string{"", "unhealthy_status 5xx"} {
		for _, match := range []string{"{rp.status_code} >= 500", "{rp.status_code} != 200"} {
			t.Run(strings.NewReplacer("{", "", "}", "").Replace(health+" "+match), func(t *testing.T) {
				p := newParts(t, authserver.Config{})
				p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
				p.run(p.credential(), fmt.Sprintf("reverse_proxy $API {\nlb_retries 3\nlb_retry_match `%s`\nfail_duration 10s\n%s\ntransport upstream_auth crm\n}", match, health))
				a := p.get("/")
				p.want(a, 502)
				if !strings.Contains(a.header.Get("Proxy-Status"), "caddy-upstream-auth") || p.lines("selected upstream") != 1 {
					t.Errorf("%d attempts; Proxy-Status %q", p.lines("selected upstream"), a.header.Get("Proxy-Status"))
				}
				// an upstream's own answer is retried as ever
				p.auth.SetFault(nil)
				eventually(t, "a token", func() bool { return p.get("/").status == 200 })
				before := p.lines("selected upstream")
				p.api.FailNext(1, authserver.Down())
				if p.get("/"); health == "" && p.lines("selected upstream") != before+2 {
					t.Errorf("an upstream's 503 led to %d attempts", p.lines("selected upstream")-before)
				}
			})
		}
	}
}

// TestTrailers: what the client may not send in the header, it may not send
// behind the body.
func TestTrailers(t *testing.T) {
	for _, tc := range []struct {
		way    string
		status int
	}{
		{"upstream_auth crm\nreverse_proxy $API", 200},
		{"reverse_proxy $API {\ntransport upstream_auth crm\n}", 200},
		{"upstream_auth crm {\nclient_authorization reject\n}\nreverse_proxy $API", 400},
		{"reverse_proxy $API {\ntransport upstream_auth crm {\nclient_authorization reject\n}\n}", 400},
	} {
		p := newParts(t, authserver.Config{})
		var trailer http.Header
		p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			trailer = r.Trailer
		}))
		p.run(p.credential(), tc.way)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.proxy, io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"Authorization": {"Bearer mine"}, "X-Sum": {"1"}}
		res, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != tc.status || trailer.Get("Authorization") != "" || tc.status == 200 && trailer.Get("X-Sum") != "1" {
			t.Errorf("%s: got %d, and the API got the trailers %v", tc.way, res.StatusCode, trailer)
		}
	}
}

// TestUnixUpstream: a socket may have the token, and may be listed.
func TestUnixUpstream(t *testing.T) {
	for list, want := range map[string]int{"": 200, "upstreams unix/$SOCK 127.0.0.1": 200, "upstreams unix//other.sock 127.0.0.1": 502} {
		p := newParts(t, authserver.Config{})
		sock := filepath.Join(t.TempDir(), "a.sock")
		l, err := net.Listen("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		api := &http.Server{Handler: p.api, ReadHeaderTimeout: time.Minute}
		go func() { _ = api.Serve(l) }()
		t.Cleanup(func() { _ = api.Close() })
		p.run(p.credential(), fmt.Sprintf("reverse_proxy unix/%s {\ntransport upstream_auth crm {\n%s\n}\n}", sock, strings.ReplaceAll(list, "$SOCK", sock)))
		p.want(p.get("/"), want)
	}
}

// TestDeniedHealthCheck: one that may not have the token says nothing of the
// upstream; one that goes without is not asked.
func TestDeniedHealthCheck(t *testing.T) {
	for _, option := range []string{"", "health_checks off"} {
		p := newParts(t, authserver.Config{})
		p.run(p.credential(), fmt.Sprintf("reverse_proxy $API {\nhealth_uri /healthz\nhealth_status 4xx\nhealth_interval 10ms\nhealth_headers {\nHost other.example.com\n}\ntransport upstream_auth crm {\nupstreams 127.0.0.1\n%s\n}\n}", option))
		if option == "" {
			eventually(t, "a denied check", func() bool { return p.lines("is not in upstreams") > 1 })
		} else {
			eventually(t, "a bare check", func() bool { return p.api.Missing() > 1 })
		}
		p.want(p.get("/"), 200)
	}
}
