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
