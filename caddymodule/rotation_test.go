package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestSecretOverlap: a secret that was replaced is used on while the server does
// not know the new one, and not at another server.
func TestSecretOverlap(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 2 * time.Second})
	file := filepath.Join(t.TempDir(), "secret")
	write := func(secret string) {
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(oddSecret)
	credential := strings.Replace(p.credential(), "{env."+secretEnv+"}", "{file."+file+"}", 1)
	p.run(credential, injecting)
	p.want(p.get("/"), http.StatusOK)

	write("the next secret, not known yet")
	issued := p.auth.Issued()
	eventually(t, "two renewals with the old secret", func() bool { return p.auth.Issued() >= issued+2 })
	p.want(p.get("/"), http.StatusOK)
	if n := p.lines("still takes the one before it"); n != 1 {
		t.Errorf("%d lines say that the old secret is used, want 1", n)
	}
	var refused, taken int
	for _, r := range p.auth.Log() {
		if strings.Contains(r.BasicPassword, "next") {
			refused++
		} else if refused > 0 {
			taken++
		}
	}
	if refused == 0 || taken < refused-1 || taken > refused {
		t.Errorf("%d attempts with the new secret and %d with the old one after it, want one for each", refused, taken)
	}
	if strings.Contains(p.logged(), "next secret") || strings.Contains(p.logged(), "next+secret") {
		t.Error("the new secret stands in the log")
	}
}

// TestSecretOverlapElsewhere: the old secret never goes to a server that did not
// take it.
func TestSecretOverlapElsewhere(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 2 * time.Second})
	elsewhere := authserver.New(authserver.Config{ClientID: appClient, ClientSecret: "another"})
	other := listen(t, "127.0.0.1:0", elsewhere)
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", oddSecret)
	write("server", p.server.URL()+authserver.TokenPath)
	p.run("token_url {file."+dir+"/server}\nclient_id "+appClient+"\nclient_auth client_secret_post {file."+dir+"/secret}\n", injecting)
	p.want(p.get("/"), http.StatusOK)
	write("secret", "new")
	write("server", other.URL()+authserver.TokenPath)
	eventually(t, "a request to the other server", func() bool { return elsewhere.Requests() > 0 })
	for _, r := range elsewhere.Log() {
		if r.Form.Get("client_secret") != "new" {
			t.Error("the other server got another secret than the configured one")
		}
	}
}
