package caddymodule

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// application is a block of docs/applications.md at work: with it an
// authorization server for each token_url, and an API with TLS for each host.
type application struct {
	*parts
	text string
	auth map[string]*authserver.Server // by the host of its token_url
	cert tls.Certificate               // of the APIs
	ca   string                        // the file of its certificate
	dir  string                        // in place of /run
	port map[string]string             // by the port in the block
}

// applicationBlock finds a block of the page: the nth below a heading.
func applicationBlock(t *testing.T, heading string, n int) string {
	t.Helper()
	page, err := os.ReadFile("../docs/applications.md")
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(page), "\n##") {
		title, _, _ := strings.Cut(part, "\n")
		if strings.Trim(title, "# ") != heading {
			continue
		}
		blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(part, -1)
		if len(blocks) <= n {
			t.Fatalf("%d blocks stand under %q", len(blocks), heading)
		}
		return blocks[n][1]
	}
	t.Fatalf("there is no heading %q", heading)
	return ""
}

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

// newApplication has everything ready but Caddy and the APIs.
func newApplication(t *testing.T, heading string, n int) *application {
	t.Helper()
	a := &application{text: applicationBlock(t, heading, n), auth: map[string]*authserver.Server{}, port: map[string]string{}}
	a.parts = assemble(t, authserver.New(authserver.Config{ClientID: appClient, ClientSecret: oddSecret}))
	var err error
	if a.dir, err = os.MkdirTemp("", "app"); err != nil { //nolint:usetesting // t.TempDir is too long for a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(a.dir) })
	a.write("secrets/app", oddSecret)
	a.write("secrets/billing", oddSecret)

	for _, server := range regexp.MustCompile(`token_url (https://([a-z.]+)/\S+)\s+client_id (\S+)`).FindAllStringSubmatch(a.text, -1) {
		auth := authserver.New(authserver.Config{ClientID: server[3], ClientSecret: oddSecret})
		a.auth[server[2]] = auth
		a.text = strings.ReplaceAll(a.text, server[1], listen(t, freeport.Addr(t), auth).URL()+authserver.TokenPath)
	}
	cert, text := issued(t, func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{"localhost"}, time.Now().Add(time.Hour)
	})
	a.cert, a.ca = cert, a.write("ca.pem", string(text))

	_, a.port["80"], _ = net.SplitHostPort(freeport.Addr(t))
	_, a.port["443"], _ = net.SplitHostPort(freeport.Addr(t))
	for _, port := range []string{"8080", "8081"} {
		_, a.port[port], _ = net.SplitHostPort(freeport.Addr(t))
		a.text = strings.ReplaceAll(a.text, ":"+port, ":"+a.port[port])
	}
	a.proxy = "127.0.0.1:" + a.port["8080"]
	a.text = strings.NewReplacer("/run/", a.dir+"/", "persist_config off",
		"persist_config off\nhttp_port "+a.port["80"]+"\nhttps_port "+a.port["443"]+"\nstorage file_system "+a.storage+
			"\nlog {\noutput file "+a.log+"\nlevel DEBUG\n}").Replace(a.text)
	return a
}

func (a *application) write(name, content string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// serve has an API with TLS stand for a host of the block. It demands the
// tokens of one of the authorization servers.
func (a *application) serve(host, server string, h http.HandlerFunc) {
	a.t.Helper()
	auth := a.auth[server]
	l, err := authserver.ListenTLS(freeport.Addr(a.t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !carriesToken(auth, r.Header.Get("Authorization")) {
			// an answer before the body has come is a race in Caddy's own Close
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "no such token", http.StatusUnauthorized)
			return
		}
		h(w, r)
	}), &tls.Config{Certificates: []tls.Certificate{a.cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = l.Close() })
	a.at(host, l.Addr())
}

func carriesToken(auth *authserver.Server, field string) bool {
	token, found := strings.CutPrefix(field, "Bearer ")
	_, err := auth.Verify(token)
	return found && err == nil
}

// at leads a host of the block elsewhere.
func (a *application) at(host, addr string) {
	a.t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil || !strings.Contains(a.text, "reverse_proxy https://"+host) {
		a.t.Fatalf("no such upstream: %s %v", host, err)
	}
	a.text = strings.ReplaceAll(a.text, "reverse_proxy https://"+host, "reverse_proxy https://localhost:"+port)
}

// start has Caddy run the block, which trusts the APIs.
func (a *application) start() {
	a.t.Helper()
	var config any
	if err := json.Unmarshal(adapt(a.t, a.text), &config); err != nil {
		a.t.Fatal(err)
	}
	if a.trust(config) == 0 {
		a.t.Fatal("no upstream has TLS")
	}
	raw, err := json.Marshal(config)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			a.t.Error(err)
		}
		a.nothingLeft()
	})
	if err := caddy.Load(raw, true); err != nil {
		a.t.Fatalf("%v\n%s", err, a.text)
	}
}

// trust puts the APIs' CA into each transport with TLS, and counts them.
func (a *application) trust(node any) (found int) {
	switch node := node.(type) {
	case []any:
		for _, v := range node {
			found += a.trust(v)
		}
	case map[string]any:
		options := node
		if node["protocol"] == "upstream_auth" {
			options, _ = node["http"].(map[string]any)
		}
		if secured, ok := options["tls"].(map[string]any); ok && node["protocol"] != nil {
			secured["ca"] = map[string]any{"provider": "file", "pem_files": []string{a.ca}}
			return 1
		}
		for _, v := range node {
			found += a.trust(v)
		}
	}
	return found
}

// by is a client whose connections go to one address, whatever the host.
func (a *application) by(network, address string, secured *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: secured, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 20 * time.Second}
}

// fetch sends a GET, and returns what came.
func (a *application) fetch(client *http.Client, address string, fields ...string) answer {
	a.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
			continue
		}
		req.Header.Add(fields[i], fields[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(content)}
}

// tells answers with a name and what was asked for.
func tells(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		fmt.Fprintf(w, "%s: %s %s at %s", name, r.Method, r.URL.RequestURI(), host)
	}
}

func (a *application) wantText(got answer, status int, text string) {
	a.t.Helper()
	if got.status != status || !strings.Contains(got.body, text) {
		a.t.Errorf("got %d %q, want %d and %q", got.status, got.body, status, text)
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
