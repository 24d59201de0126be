package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// selfSigned makes a certificate that is its own authority.
func selfSigned(t *testing.T, host string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secure has the parts' authorization server speak TLS.
func (p *parts) secure(conf *tls.Config) string {
	p.t.Helper()
	l, err := authserver.ListenTLS("127.0.0.1:0", p.auth, conf)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = l.Close() })
	return fmt.Sprintf("token_url %s%s\nclient_id %s\nclient_auth client_secret_basic {env.%s}\n", l.URL(), authserver.TokenPath, appClient, secretEnv)
}

func TestTLSToTheServer(t *testing.T) {
	server, ca := selfSigned(t, "127.0.0.1")
	named, namedCA := selfSigned(t, "idp.example.com")
	client, clientCA := selfSigned(t, "client")
	clientPool := x509.NewCertPool()
	clientPool.AppendCertsFromPEM(clientCA)
	mutual := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientPool}
	caFile, namedFile := writeFile(t, "ca.pem", ca), writeFile(t, "named.pem", namedCA)
	certFile, keyFile := writeFile(t, "client.pem", clientCA), writeFile(t, "client.key", keyPEM(t, client))

	for name, tc := range map[string]struct {
		conf   *tls.Config
		block  string
		status int
		says   string
	}{
		"unknown authority":     {&tls.Config{Certificates: []tls.Certificate{server}}, "", 503, "certificate signed by unknown authority"},
		"ca":                    {&tls.Config{Certificates: []tls.Certificate{server}}, "ca " + caFile, 200, ""},
		"wrong ca":              {&tls.Config{Certificates: []tls.Certificate{server}}, "ca " + namedFile, 503, "certificate"},
		"another name":          {&tls.Config{Certificates: []tls.Certificate{named}}, "ca " + namedFile, 503, "127.0.0.1"},
		"server_name":           {&tls.Config{Certificates: []tls.Certificate{named}}, "ca " + namedFile + "\nserver_name idp.example.com", 200, ""},
		"insecure_skip_verify":  {&tls.Config{Certificates: []tls.Certificate{server}}, "insecure_skip_verify", 200, ""},
		"no client certificate": {mutual, "ca " + caFile, 503, `"kind":"unreachable"`},
		"client certificate":    {mutual, "ca " + caFile + "\ncert " + certFile + "\nkey " + keyFile, 200, ""},
		"ca that is missing":    {mutual, "ca /nowhere/ca.pem", 502, "/nowhere/ca.pem"},
		"ca that is no PEM":     {mutual, "ca " + writeFile(t, "bad.pem", []byte("hello")), 502, "no certificate in PEM"},
		"key of another":        {mutual, "ca " + caFile + "\ncert " + caFile + "\nkey " + keyFile, 502, "private key does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			options := p.secure(tc.conf)
			if tc.block != "" {
				options += "tls {\n" + tc.block + "\n}"
			}
			p.run(options, "upstream_auth crm {\nwait 100ms\n}\nreverse_proxy $API")
			eventually(t, fmt.Sprint(tc.status), func() bool { return p.get("/").status == tc.status })
			eventually(t, "the log says "+tc.says, func() bool { return p.lines(tc.says) > 0 })
		})
	}
}

// TestProxyToTheServer: through a proxy, which sees a tunnel and no secret.
func TestProxyToTheServer(t *testing.T) {
	server, ca := selfSigned(t, "127.0.0.1")
	var tunnels atomic.Int32
	proxy := listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "tunnels alone", http.StatusMethodNotAllowed)
			return
		}
		tunnels.Add(1)
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, "unreachable", http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(to, buffered); to.Close() }()
		_, _ = io.Copy(from, to)
		from.Close()
	}))
	p := newParts(t, authserver.Config{})
	p.run(p.secure(&tls.Config{Certificates: []tls.Certificate{server}})+"tls {\nca "+writeFile(t, "ca.pem", ca)+"\n}\nproxy "+proxy.URL(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	if tunnels.Load() != 1 {
		t.Errorf("%d tunnels", tunnels.Load())
	}
}

// TestProxyToTheServerRefuses: of a proxy that does not connect the status is told, and not
// its words.
func TestProxyToTheServerRefuses(t *testing.T) {
	proxy := listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte("HTTP/1.1 407 The proxys own words\r\nContent-Length: 0\r\n\r\n"))
		conn.Close()
	}))
	p := newParts(t, authserver.Config{})
	p.run("token_url https://idp.example.com/token\nclient_id app\nclient_auth none\nproxy "+proxy.URL(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 503)
	if p.lines("the proxy refuses to connect to the server: HTTP 407") == 0 || p.lines("own words") > 0 {
		t.Error("the log does not tell it as it should")
	}
}

// TestFilesAreReadAnew: a secret that is swapped in its file is used without a
// reload, and a refused credential notices it at once.
func TestFilesAreReadAnew(t *testing.T) {
	p := newParts(t, authserver.Config{})
	secret := filepath.Join(t.TempDir(), "secret")
	options := fmt.Sprintf("token_url %s%s\nclient_id %s\nclient_auth client_secret_basic {file.%s}", p.server.URL(), authserver.TokenPath, appClient, secret)
	p.run(options, "upstream_auth crm\nreverse_proxy $API")
	for _, step := range []struct{ content, says string }{
		{"", "no such file"}, // none yet
		{"\n", "is empty"},
		{"wrong", "invalid_client"},
		{oddSecret + "\r\n", "access token obtained"},
	} {
		if step.content != "" {
			// as a mounted secret is swapped: by a rename
			if err := os.WriteFile(secret+".new", []byte(step.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(secret+".new", secret); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, step.says, func() bool { return p.lines(step.says) > 0 })
		if step.content != oddSecret+"\r\n" {
			p.want(p.get("/"), 502)
		}
	}
	p.want(p.get("/"), 200)
	for _, r := range p.auth.Log() {
		if r.BasicPassword == "" {
			t.Error("an empty secret went over the wire")
		}
	}
}

// TestHungFile: one that cannot be read holds up nothing but its credential,
// and that is told.
func TestHungFile(t *testing.T) {
	p := newParts(t, authserver.Config{})
	fifo := filepath.Join(t.TempDir(), "secret")
	if err := exec.Command("mkfifo", fifo).Run(); err != nil {
		t.Fatal(err)
	}
	p.run(fmt.Sprintf("token_url %s%s\nclient_id %s\nclient_auth client_secret_post {file.%s}", p.server.URL(), authserver.TokenPath, appClient, fifo), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 502)
	if p.lines("expected a file") == 0 {
		t.Error("the log does not tell what is wrong")
	}
}

// TestHungHandshake: a server that accepts and says no more is left again, so
// that connections to it do not pile up and keep later requests out.
func TestHungHandshake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var accepted, left atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, conn) // until the client leaves
				left.Add(1)
				conn.Close()
			}()
		}
	}()
	tr, err := newTransport(new(tls.Config), "", 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	const attempts = 80 // more than the connections that are kept
	for range attempts {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := tr.RoundTrip(req); err == nil {
			res.Body.Close()
			t.Fatal("a handshake without a server")
		}
		cancel()
	}
	eventually(t, "all are left", func() bool { return accepted.Load() > 0 && left.Load() == accepted.Load() })
}

// TestPlaceholdersAtTheRequest: what cannot be checked at load is checked at
// the token request, and named.
func TestPlaceholdersAtTheRequest(t *testing.T) {
	for name, tc := range map[string]struct{ env, options, says string }{
		"empty secret": {"", "token_url $AS\nclient_id app\nclient_auth client_secret_post {env.UPSTREAM_AUTH_TEST}", "{env.UPSTREAM_AUTH_TEST} is empty"},
		"empty id":     {"", "token_url $AS\nclient_id {env.UPSTREAM_AUTH_TEST}\nclient_auth none", "client_id: evaluated placeholder {env.UPSTREAM_AUTH_TEST} is empty"},
		"http URL":     {"http://192.0.2.1/token", "token_url {env.UPSTREAM_AUTH_TEST}\nclient_id app\nclient_auth none", "which is no loopback host"},
		"not a URL":    {"::", "token_url {env.UPSTREAM_AUTH_TEST}\nclient_id app\nclient_auth none", "token_url"},
		"empty scope":  {"", "token_url $AS\nclient_id app\nclient_auth none\nscopes a {env.UPSTREAM_AUTH_TEST}", "scope: evaluated placeholder"},
		"bad proxy":    {"ftp://x", "token_url $AS\nclient_id app\nclient_auth none\nproxy {env.UPSTREAM_AUTH_TEST}\ninsecure_token_url", "expected the URL of a proxy"},
		"unreadable":   {"x", "token_url $AS\nclient_id app\nclient_auth client_secret_post {file./etc}", "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("UPSTREAM_AUTH_TEST", tc.env)
			p := newParts(t, authserver.Config{})
			p.run(strings.ReplaceAll(tc.options, "$AS", p.server.URL()+authserver.TokenPath), "upstream_auth crm\nreverse_proxy $API")
			p.want(p.get("/"), 502)
			if p.lines(tc.says) == 0 {
				t.Errorf("the log does not say %q:\n%s", tc.says, p.logged())
			}
			if p.auth.Requests() != 0 {
				t.Error("a token request was sent")
			}
		})
	}
}
