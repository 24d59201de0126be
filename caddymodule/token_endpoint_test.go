package caddymodule

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const tokenSite = "upstream_auth_token /token crm\nupstream_auth crm\nreverse_proxy $API"

// granted reads a token endpoint's answer.
func granted(t *testing.T, a answer) (g tokenAnswer) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&g); err != nil {
		t.Errorf("%v in %s", err, a.body)
	}
	return g
}

// TestTokenEndpoint: what each kind of program gets.
func TestTokenEndpoint(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	p.run(p.credential("scopes read write"), tokenSite)
	p.held()
	const form = "application/x-www-form-urlencoded"
	for _, tc := range []struct {
		name, method, body string
		fields             []string
	}{
		{"GET", "GET", "", nil},
		{"a token request of an SDK", "POST", "grant_type=client_credentials&client_id=x&client_secret=y", []string{"Content-Type", form, "Accept", "application/json"}},
		{"one that proves itself", "POST", "grant_type=client_credentials", []string{"Content-Type", form, "Authorization", "Basic eDp5"}},
		{"a large body", "POST", strings.Repeat("x", 1<<20), nil},
		{"anything", "GET", "", []string{"Accept", "*/*"}},
		{"a browser's address bar", "GET", "", []string{"Accept", browsers, "Sec-Fetch-Site", "none"}},
	} {
		a, err := p.try(tc.method, "/token?x=y", strings.NewReader(tc.body), tc.fields...)
		if err != nil {
			t.Fatal(err)
		}
		p.want(a, 200)
		g := granted(t, a)
		if g.AccessToken != "c4n4ry-token-1" || g.TokenType != "Bearer" || g.ExpiresIn > 3590 || g.ExpiresIn < 3500 || g.Scope != "read write" {
			t.Errorf("%s: got %s", tc.name, a.body)
		}
		for field, want := range map[string]string{"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json", "X-Content-Type-Options": "nosniff"} {
			if got := a.header.Get(field); got != want {
				t.Errorf("%s: %s is %q, want %q", tc.name, field, got, want)
			}
		}
		if a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: a page elsewhere may read it", tc.name)
		}
	}
	if a := p.get("/token", "Accept", "text/plain"); a.status != 200 || a.body != "c4n4ry-token-1" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %v", a)
	}
	a, err := p.try(http.MethodHead, "/token", nil)
	if err != nil || a.status != 200 || a.body != "" || a.header.Get("Content-Length") == "0" || a.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %v, %v", a, err)
	}
	for _, method := range []string{"PUT", "DELETE", "OPTIONS", "PATCH"} {
		a, err := p.try(method, "/token", nil)
		if err != nil || a.status != 405 || a.header.Get("Allow") != "GET, HEAD, POST" || strings.Contains(a.body, "c4n4ry") {
			t.Errorf("%s: %v, %v", method, a, err)
		}
	}
	if p.auth.Requests() != 1 {
		t.Errorf("%d token requests", p.auth.Requests())
	}
	if got := testutil.ToFloat64(requests.WithLabelValues("crm", "injected")); got != 8 {
		t.Errorf("%g requests are counted", got)
	}
	p.untold()
}

// TestTokenEndpointRefuses: what may be a page's, another machine's, or another
// program's gets nothing, and the log tells once.
func TestTokenEndpointRefuses(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	_, port, _ := net.SplitHostPort(p.proxy)
	if err := p.load(strings.Replace(p.caddyfile(p.credential(), "upstream_auth_token crm"), "http://"+p.proxy, "http://:"+port, 1)); err != nil {
		t.Fatal(err)
	}
	p.held()
	for _, tc := range []struct {
		name   string
		status int
		fields []string
	}{
		{"by itself", 200, nil},
		{"from the address bar", 200, []string{"Sec-Fetch-Site", "none"}},
		{"from a page of the same site", 200, []string{"Sec-Fetch-Site", "same-origin"}},
		{"from a page elsewhere", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		{"from a page on another port", 403, []string{"Sec-Fetch-Site", "same-site"}},
		{"from a page that posts", 403, []string{"Origin", "https://evil.example.com"}},
		{"from a page without an origin", 403, []string{"Origin", "null"}},
		{"from a page of the same origin that posts", 403, []string{"Origin", "http://" + p.proxy}},
		{"through a proxy", 403, []string{"X-Forwarded-For", "127.0.0.1"}},
		{"through another proxy", 403, []string{"Forwarded", "for=192.0.2.1"}},
		{"through one that tells its name alone", 403, []string{"Via", "1.1 example"}},
		{"through one that tells the scheme alone", 403, []string{"X-Forwarded-Proto", "http"}},
		{"through one with a word of its own", 403, []string{"X-Real-IP", "192.0.2.1"}},
	} {
		a, err := p.try(http.MethodPost, "/token", nil, tc.fields...)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != tc.status || (a.status != 200) == strings.Contains(a.body, "c4n4ry") {
			t.Errorf("%s: got %d %s", tc.name, a.status, a.body)
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be kept", tc.name)
		}
	}
	for host, want := range map[string]int{"localhost": 200, "localhost:" + port: 200, "[::1]": 200, "127.0.0.1": 200, "app.localhost": 200, "evil.example.com": 421, "10.0.0.1": 421, "127.0.0.1.example.com": 421} {
		status, body := getAs(t, "http://"+p.proxy+"/token", host, "application/json")
		if status != want || (status != 200) == strings.Contains(body, "c4n4ry") {
			t.Errorf("as %s: got %d %s", host, status, body)
		}
	}
	for said, times := range map[string]int{"by a page in a browser": 1, "through another proxy": 1, "is no loopback name": 1, "bind the site to 127.0.0.1": 0} {
		if n := p.lines(said); n != times {
			t.Errorf("%q is told %d times", said, n)
		}
	}
	p.untold()
}

// TestTokenGuard: addresses and names, which a test cannot have all of.
func TestTokenGuard(t *testing.T) {
	for name, tc := range map[string]struct {
		local        net.Addr
		remote, host string
		want         *denial
	}{
		"loopback":                {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "localhost", nil},
		"another loopback":        {&net.TCPAddr{IP: net.IPv4(127, 1, 2, 3), Port: 80}, "127.0.0.1:9", "127.0.0.1:8090", nil},
		"loopback in IPv6":        {&net.TCPAddr{IP: net.IPv6loopback, Port: 80}, "[::1]:9", "[::1]:8090", nil},
		"mapped":                  {&net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1"), Port: 80}, "[::ffff:127.0.0.1]:9", "localhost", nil},
		"QUIC":                    {&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "localhost", nil},
		"a socket":                {&net.UnixAddr{Name: "/run/a.sock", Net: "unix"}, "@", "anything.example.com", nil},
		"an abstract socket":      {&net.UnixAddr{Name: "@a", Net: "unixpacket"}, "", "", nil},
		"the pod's address":       {&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, "10.0.0.1:9", "localhost", deniedRemote},
		"all addresses":           {&net.TCPAddr{IP: net.IPv4zero, Port: 80}, "127.0.0.1:9", "localhost", deniedRemote},
		"told so by a proxy":      {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "192.0.2.1:9", "localhost", deniedRemote},
		"nothing is known":        {nil, "127.0.0.1:9", "localhost", deniedRemote},
		"another name":            {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "evil.example.com", deniedHost},
		"a name like it":          {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "localhost.example.com", deniedHost},
		"no name":                 {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "", deniedHost},
		"the pod's address, asks": {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:9", "10.0.0.1", deniedHost},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = tc.host, tc.remote
		ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
		if tc.local != nil {
			ctx = context.WithValue(ctx, http.LocalAddrContextKey, tc.local)
		}
		if got := judge(r.WithContext(ctx)); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestTokenEndpointElsewhere: on a socket any Host will do; a site that others
// reach is warned of.
func TestTokenEndpointElsewhere(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	socket := filepath.Join(t.TempDir(), "token.sock")
	file := strings.Replace(p.caddyfile(p.credential(), "upstream_auth_token crm"), "bind 127.0.0.1", "bind unix/"+socket+"|0600", 1)
	file = strings.Replace(file, "http://"+p.proxy, "http://", 1)
	if err := p.load(file); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	res, err := client.Get("http://any.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || granted(t, answer{body: string(body)}).AccessToken != "c4n4ry-token-1" {
		t.Errorf("got %s %s, %v", res.Status, body, err)
	}
	if n := p.lines("listens for others"); n != 0 {
		t.Error(p.logged())
	}
	p.stop()

	if err := p.load(strings.Replace(p.caddyfile(p.credential(), "upstream_auth_token crm"), "bind 127.0.0.1", "", 1)); err != nil {
		t.Fatal(err)
	}
	if n := p.lines("listens for others"); n != 1 {
		t.Errorf("%d warnings in\n%s", n, p.logged())
	}
	p.want(p.get("/"), 200)
}

// TestTokenEndpointWaits: for a first token, as a request to the upstream does.
func TestTokenEndpointWaits(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	release := make(chan struct{})
	p.auth.FailNext(1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	})
	p.run(p.credential(), tokenSite)
	done := make(chan answer)
	go func() {
		a, err := p.try(http.MethodGet, "/token", nil)
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
	close(release)
	if a := <-done; a.status != 200 || granted(t, a).AccessToken == "" {
		t.Errorf("got %v", a)
	}
	if got := testutil.ToFloat64(requests.WithLabelValues("crm", "waited")) + testutil.ToFloat64(requests.WithLabelValues("crm", "injected")); got != 1 {
		t.Errorf("%g are counted", got)
	}
}

// TestTokenEndpointUnavailable: none of the server's words, and when to come
// again.
func TestTokenEndpointUnavailable(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  authserver.Fault
		status int
		code   string
		kind   string
	}{
		"down":    {authserver.Down(), 503, "temporarily_unavailable", "unreachable"},
		"refused": {authserver.Invalid("invalid_client", "c4n4ry words"), 502, "server_error", "refused"},
		"garbled": {authserver.Raw(200, "text/html", "<p>c4n4ry words"), 503, "temporarily_unavailable", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			p.auth.SetFault(tc.fault)
			p.run(p.credential(), "upstream_auth_token /token crm {\nwait 0\n}")
			eventually(t, "a failure", func() bool { return credentials.newest()["crm"].source.Snapshot().Failure != nil })
			a := p.get("/token")
			p.want(a, tc.status)
			var problem tokenProblem
			if err := json.Unmarshal([]byte(a.body), &problem); err != nil || problem.Error != tc.code || problem.Description != "no access token: "+tc.kind {
				t.Errorf("got %s, %v", a.body, err)
			}
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			if wants := tc.status == 503; wants != (err == nil && seconds > 0) {
				t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
			}
			says(t, a.header.Get("Proxy-Status"), "caddy-upstream-auth; error=proxy_internal_response", tc.kind)
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("the header is %v", a.header)
			}
			plain := p.get("/token", "Accept", "text/plain")
			p.want(plain, tc.status)
			says(t, plain.body, tc.kind)
			for _, body := range []string{a.body, plain.body} {
				if strings.Contains(body, "c4n4ry") || strings.Contains(body, "invalid_client") {
					t.Errorf("the server's words stand in %s", body)
				}
			}
			if got := testutil.ToFloat64(requests.WithLabelValues("crm", "unavailable")); got != 2 {
				t.Errorf("%g are counted", got)
			}
		})
	}
}

// TestTokenEndpointAssumed: a token of unknown life is handed out for as long as
// is assumed, not for as long as it would serve here.
func TestTokenEndpointAssumed(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	p.auth.SetFault(authserver.Answer(func(a map[string]any) { delete(a, "expires_in") }))
	p.run(p.credential("default_lifetime 2m"), tokenSite)
	p.held()
	if g := granted(t, p.get("/token")); g.ExpiresIn > 120 || g.ExpiresIn < 60 {
		t.Errorf("it is said to live %ds", g.ExpiresIn)
	}
	e := credentials.newest()["crm"]
	if left := e.source.Token().Left(); left < 20*time.Hour {
		t.Errorf("it is used for %s", left)
	}
}

// TestTokenEndpointTemplates: a server whose token is a template does not get it
// run by Caddy's templates, which come before.
func TestTokenEndpointTemplates(t *testing.T) {
	const odd = `{{env"HOME"}}`
	p := newParts(t, authserver.Config{Issue: func(int) string { return odd }})
	p.run(p.credential(), "templates {\nmime application/json text/plain\n}\n"+tokenSite)
	p.held()
	for _, accept := range []string{"application/json", "text/plain"} {
		if a := p.get("/token", "Accept", accept); a.status != 200 || granted(t, a).AccessToken != odd {
			t.Errorf("%s: got %v", accept, a)
		}
	}
}

// TestTokenEndpointInPlace: a credential of this route alone.
func TestTokenEndpointInPlace(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	p.run(p.credential(), "upstream_auth_token {\nwait 10s\n"+p.credential("scopes other")+"}")
	if g := granted(t, p.get("/")); g.AccessToken == "" || g.Scope != "other" {
		t.Errorf("got %+v", g)
	}
}
