package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestCertificate: the client is proved by its certificate, on a connection to
// the server and to the upstream; when it is replaced, the upstream sees the new
// one with the token that is bound to it.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	server, ca := selfSigned(t, "127.0.0.1")
	clients := x509.NewCertPool()
	var show [2]func()
	for i := range show {
		client, clientPEM := selfSigned(t, "app")
		clients.AppendCertsFromPEM(clientPEM)
		show[i] = func() {
			write("cert", clientPEM)
			write("key", keyPEM(t, client))
		}
	}
	show[0]()
	auth := authserver.New(authserver.Config{
		ClientID: appClient, Methods: []string{authserver.TLSClientAuth}, ClientSubject: "CN=app", BindCertificates: true, Lifetime: 2 * time.Second,
	})
	p := assemble(t, auth)
	config := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	}
	tlsServer, err := authserver.ListenTLS("127.0.0.1:0", auth, config())
	if err != nil {
		t.Fatal(err)
	}
	defer tlsServer.Close()
	api, err := authserver.ListenTLS("127.0.0.1:0", p.api, config())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	caFile := write("ca", ca)
	p.run(fmt.Sprintf(`token_url %s%s
		client_id %s
		client_auth tls_client_auth {
			cert %s/cert
			key %s/key
		}
		tls {
			ca %s
		}`, tlsServer.URL(), authserver.TokenPath, appClient, dir, dir, caFile),
		fmt.Sprintf(`reverse_proxy %s {
			transport upstream_auth crm {
				http {
					tls_trust_pool file %s
				}
			}
		}`, api.URL(), caFile))
	for range 3 {
		p.want(p.get("/"), http.StatusOK)
	}
	for _, r := range auth.Log() {
		if r.Form.Has("client_secret") || r.Form.Has("client_assertion") || r.Header.Get("Authorization") != "" {
			t.Errorf("more than the certificate was sent: %v", r.Form)
		}
	}
	show[1]()
	issued := auth.Issued()
	eventually(t, "two tokens with the new certificate", func() bool { p.want(p.get("/"), http.StatusOK); return auth.Issued() >= issued+2 })
	p.want(p.get("/"), http.StatusOK)
	if p.api.Unbound() > 0 || p.api.Expired() > 0 {
		t.Errorf("%d requests came with another certificate than the token's, %d with an expired token", p.api.Unbound(), p.api.Expired())
	}
	if strings.Contains(p.logged(), "PRIVATE KEY") {
		t.Error("a key stands in the log")
	}
}
