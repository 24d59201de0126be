package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	credential := strings.Replace(p.credential(often), "{env."+secretEnv+"}", "{file."+file+"}", 1)
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

// TestSecretOverlapLost: what is lost of the second attempt counts as it would of
// the first, for the refresh token may be spent.
func TestSecretOverlapLost(t *testing.T) {
	for name, fault := range map[string]authserver.Fault{
		"lost":     authserver.AfterProcessing(authserver.Status(http.StatusBadGateway)),
		"unusable": authserver.Answer(func(a map[string]any) { a["access_token"] = "a b" }),
	} {
		t.Run(name, func(t *testing.T) {
			p := rotating(t, 2*time.Second)
			file := filepath.Join(t.TempDir(), "secret")
			write := func(secret string) {
				if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(oddSecret)
			initial := p.auth.IssueRefreshToken()
			p.run(strings.Replace(p.refreshing(initial), "{env."+secretEnv+"}", "{file."+file+"}", 1), injecting)
			p.want(p.get("/"), http.StatusOK)
			var withOld atomic.Int32
			p.auth.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if _, password, _ := r.BasicAuth(); strings.Contains(password, "next") || withOld.Add(1) > 1 {
					next.ServeHTTP(w, r)
					return
				}
				fault(w, r, next)
			})
			write("the next secret")
			eventually(t, "an attempt with the old secret and one after it", func() bool { return withOld.Load() >= 2 })
			if name == "lost" && p.lines("the answer to a refresh was lost") == 0 {
				t.Error("the log does not tell of the lost answer")
			}
			if name == "unusable" && !p.auth.ChainAlive(initial) {
				t.Errorf("the chain ended: %v", p.auth.ChainEnd(initial))
			}
		})
	}
}
