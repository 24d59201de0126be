package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// TestApplicationsAll: each block of the page is run by one of the tests below.
func TestApplicationsAll(t *testing.T) {
	page, err := os.ReadFile("../docs/applications.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Glob("applications*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	for _, file := range source {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`newApplication\(t, ("[^"]+", \d)`).FindAllStringSubmatch(string(content), -1) {
			run[call[1]] = true
		}
	}
	blocks := strings.Count(string(page), "```caddyfile\n")
	if blocks != len(run) {
		t.Errorf("the page has %d blocks, and %d are run: %v", blocks, len(run), run)
	}
}

func TestApplicationsBaseURL(t *testing.T) {
	a := newApplication(t, "A base URL", 0)
	a.serve("api.example.com", "idp.example.com", tells("api"))
	a.start()
	a.wantText(a.get("/customers?of=me", "Authorization", "Basic b2xkOm9sZA=="), 200, "api: GET /customers?of=me at localhost")
	a.wantText(a.fetch(a.client, "http://localhost:"+a.port["8080"]+"/"), 200, "api: GET /")
	a.wantText(a.fetch(a.client, "http://"+a.proxy+"/", "Host", "api.example.com"), 421, "")

	// with https by mistake
	_, err := (&http.Client{Timeout: 10 * time.Second}).Get("https://" + a.proxy + "/")
	if err == nil || !strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		t.Errorf("https to the port without TLS: %v", err)
	}
	// with no token
	a.auth["idp.example.com"].RevokeAll()
	a.auth["idp.example.com"].SetFault(authserver.Invalid("invalid_client", ""))
	got := a.get("/")
	a.wantText(got, 401, "no such token") // the API's own, for the token is held still
	a.stop()
	a.start()
	if got = a.get("/"); got.status != 502 || !strings.HasPrefix(got.header.Get("Proxy-Status"), "caddy-upstream-auth;") {
		t.Errorf("without a token: %d %v", got.status, got.header)
	}
}

func TestApplicationsUnreached(t *testing.T) {
	a := newApplication(t, "A base URL", 0)
	a.at("api.example.com", freeport.Addr(t))
	a.start()
	if got := a.get("/"); got.status != 502 || got.header.Get("Proxy-Status") != "" {
		t.Errorf("with nobody there: %d %v", got.status, got.header)
	}
}

func TestApplicationsLinks(t *testing.T) {
	a := newApplication(t, "Links, redirects and cookies", 0)
	a.serve("api.example.com", "idp.example.com", func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Forwarded-") {
				t.Errorf("%s came", name)
			}
		}
		for _, cookie := range []string{"a=1; Domain=api.example.com; Path=/crm/v2; Secure; HttpOnly", "secure=domain; path=/crm/v2/orders;secure; SameSite=Lax"} {
			w.Header().Add("Set-Cookie", cookie)
		}
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
		tells("api")(w, r)
	})
	a.start()
	here := "http://" + a.proxy
	client := a.by("tcp", a.proxy, nil)
	for to, want := range map[string]string{
		"https://api.example.com/crm/v2/orders/1?x=/crm/v2": here + "/orders/1?x=/crm/v2",
		"/crm/v2/orders/1":             here + "/orders/1",
		"https://sign-in.example.net/": "https://sign-in.example.net/",
		"orders/2":                     "orders/2",
	} {
		got := a.fetch(client, here+"/customers?to="+url.QueryEscape(to))
		a.wantText(got, 302, "GET /crm/v2/customers?to=")
		if location := got.header.Get("Location"); location != want {
			t.Errorf("%s became %s, want %s", to, location, want)
		}
		cookies := strings.Join(got.header.Values("Set-Cookie"), " | ")
		if want := "a=1; Path=/; HttpOnly | secure=domain; Path=/orders; SameSite=Lax"; cookies != want {
			t.Errorf("cookies: got %s, want %s", cookies, want)
		}
	}
}

func TestApplicationsProxy(t *testing.T) {
	a := newApplication(t, "HTTP_PROXY", 0)
	a.serve("crm.example.com", "idp.example.com", tells("crm"))
	a.serve("billing.example.com", "login.example.org", tells("billing"))
	var strayed bool
	stray := listen(t, freeport.Addr(t), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed = true }))
	a.start()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: a.proxy})}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}

	a.wantText(a.fetch(client, "http://crm.example.com/customers?of=me"), 200, "crm: GET /customers?of=me at localhost")
	a.wantText(a.fetch(client, "http://billing.example.com/invoices"), 200, "billing: GET /invoices")
	// no open proxy
	for _, address := range []string{stray.URL(), "http://elsewhere.example.com", "http://localhost", "http://crm.example.com.example.net"} {
		a.wantText(a.fetch(client, address+"/"), 421, "alone")
	}
	// the target counts, and not the field Host (RFC 9112 section 3.2.2)
	a.wantRaw("GET "+stray.URL()+"/ HTTP/1.1\r\nHost: crm.example.com", "HTTP/1.1 421 ", "alone")
	a.wantRaw("GET http://crm.example.com/x HTTP/1.1\r\nHost: billing.example.com", "HTTP/1.1 200 ", "crm: GET /x")
	if strayed {
		t.Error("a host that is not named was asked")
	}
	_, err := client.Get("https://crm.example.com/")
	if err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a tunnel: %v", err)
	}
	for _, target := range []string{"crm.example.com:443", "elsewhere.example.com:80", stray.Addr()} {
		a.wantRaw("CONNECT "+target+" HTTP/1.1\r\nHost: "+target, "HTTP/1.1 403 ", "write http:// in place of https://")
	}
}

// wantRaw sends a request's head as it is, and looks into what comes.
func (a *application) wantRaw(head string, want ...string) {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.proxy)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s\r\nConnection: close\r\n\r\n", head)
	content, err := io.ReadAll(conn)
	if err != nil {
		a.t.Error(err)
	}
	holds(a.t, string(content), want...)
}

func TestApplicationsSocket(t *testing.T) {
	a := newApplication(t, "A unix socket", 0)
	a.serve("api.example.com", "idp.example.com", tells("api"))
	socket := filepath.Join(a.dir, "api", "api.sock")
	if err := os.Mkdir(filepath.Dir(socket), 0o750); err != nil {
		t.Fatal(err)
	}
	a.start()
	info, err := os.Stat(socket)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket has mode %v %v", info.Mode(), err)
	}
	client := a.by("unix", socket, nil)
	for _, host := range []string{"localhost", "api.example.com", "api"} {
		a.wantText(a.fetch(client, "http://"+host+"/customers"), 200, "api: GET /customers at localhost")
	}
}

func TestApplicationsHosts(t *testing.T) {
	a := newApplication(t, "A name that is built in", 0)
	a.serve("crm.example.com", "idp.example.com", tells("crm"))
	a.start()
	client := a.by("tcp", "127.0.0.1:"+a.port["80"], nil)
	a.wantText(a.fetch(client, "http://crm.example.com/customers"), 200, "crm: GET /customers")
	a.wantText(a.fetch(client, "http://localhost/"), 421, "")
	a.stop()

	// Caddy reads the application's hosts file, and asks itself
	a = newApplication(t, "A name that is built in", 0)
	a.at("crm.example.com", "127.0.0.1:"+a.port["443"])
	a.start()
	got := a.fetch(a.by("tcp", "127.0.0.1:"+a.port["80"], nil), "http://crm.example.com/")
	if a.wantText(got, 502, ""); !strings.Contains(a.logged(), "dial tcp 127.0.0.1:"+a.port["443"]) {
		t.Error("the log does not say that 127.0.0.1 was asked")
	}
}

func TestApplicationsLocalCA(t *testing.T) {
	a := newApplication(t, "Built in, with https", 0)
	a.serve("crm.example.com", "idp.example.com", tells("crm"))
	a.start()
	root := filepath.Join(a.storage, "pki/authorities/local/root.crt")
	eventually(t, "the CA", func() bool { _, err := os.Stat(root); return err == nil })
	content, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(content)
	var got answer
	eventually(t, "the certificate", func() bool {
		client := a.by("tcp", "127.0.0.1:"+a.port["443"], &tls.Config{RootCAs: pool})
		res, err := client.Get("https://crm.example.com/customers")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		got = answer{res.StatusCode, res.Header, string(body)}
		return err == nil
	})
	a.wantText(got, 200, "crm: GET /customers")
	if _, err := net.Dial("tcp", "127.0.0.1:"+a.port["80"]); err == nil {
		t.Error("something listens on the port of http")
	}
	_, err = a.by("tcp", "127.0.0.1:"+a.port["443"], nil).Get("https://crm.example.com/")
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("without the CA: %v", err)
	}
	for _, key := range []string{"root.key", "intermediate.key"} {
		if info, err := os.Stat(filepath.Join(filepath.Dir(root), key)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", key, info, err)
		}
	}
}

func TestApplicationsPorts(t *testing.T) {
	a := newApplication(t, "Several APIs", 0)
	a.serve("crm.example.com", "idp.example.com", tells("crm"))
	a.serve("billing.example.com", "login.example.org", tells("billing"))
	a.start()
	a.wantText(a.get("/customers"), 200, "crm: GET /customers")
	billing := "http://127.0.0.1:" + a.port["8081"]
	a.wantText(a.fetch(a.client, billing+"/invoices"), 200, "billing: GET /invoices")
	for _, address := range []string{"http://" + a.proxy, billing} {
		a.wantText(a.fetch(a.client, address, "Host", "crm.example.com"), 421, "")
	}
}

func TestApplicationsPaths(t *testing.T) {
	a := newApplication(t, "Several APIs", 1)
	a.serve("crm.example.com", "idp.example.com", tells("crm"))
	a.serve("billing.example.com", "login.example.org", tells("billing"))
	a.start()
	a.wantText(a.get("/crm/customers?x=1"), 200, "crm: GET /customers?x=1")
	a.wantText(a.get("/billing/invoices"), 200, "billing: GET /invoices")
	a.wantText(a.get("/elsewhere"), 404, "/crm/ and /billing/")
	a.wantText(a.get("/crm/../billing/invoices"), 200, "billing: GET /invoices")
	a.wantText(a.fetch(a.client, "http://"+a.proxy+"/crm/", "Host", "crm.example.com"), 421, "")
}

func TestApplicationsBrowser(t *testing.T) {
	a := newApplication(t, "A browser on the machine", 0)
	a.serve("api.example.com", "idp.example.com", tells("api"))
	a.start()
	a.wantText(a.get("/"), 200, "api: GET /")
	for _, fields := range [][]string{{"Origin", "https://elsewhere.example.com"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "none"}} {
		a.wantText(a.get("/", fields...), 403, "")
	}
}
