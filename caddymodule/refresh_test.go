package caddymodule

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// rotating is a server that gives a new refresh token each time, and ends the
// login of whoever comes with a spent one.
func rotating(t *testing.T, life time.Duration) *parts {
	t.Helper()
	return newParts(t, authserver.Config{RefreshTokens: true, Rotate: authserver.RotateAlways, ReuseDetection: true, Lifetime: life})
}

// refreshing is a credential's block that begins with a refresh token.
func (p *parts) refreshing(initial string, more ...string) string {
	return fmt.Sprintf("token_url %s%s\ngrant refresh_token %s\nclient_id %s\nclient_auth client_secret_basic {env.%s}\n%s\n",
		p.server.URL(), authserver.TokenPath, initial, appClient, secretEnv, strings.Join(more, "\n"))
}

const injecting = "upstream_auth crm\nreverse_proxy $API"

// files are the stored files that are not Caddy's own.
func (p *parts) files() map[string]string {
	p.t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(p.storage, "upstream_auth"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		out[path] = string(content)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// file is the only one of them.
func (p *parts) file() (path, content string) {
	p.t.Helper()
	files := p.files()
	if len(files) != 1 {
		p.t.Fatalf("%d files are stored, want 1", len(files))
	}
	for path, content := range files {
		return path, content
	}
	return "", ""
}

// TestRefreshToken: one that rotates is kept, through renewals, a restart and a
// config that still names the first.
func TestRefreshToken(t *testing.T) {
	p := rotating(t, 3*time.Second)
	initial := p.auth.IssueRefreshToken()
	p.run(p.refreshing(initial, often), injecting)
	p.want(p.get("/"), http.StatusOK)
	eventually(t, "three refreshes", func() bool { return p.auth.Rotations() >= 3 })
	p.stop()
	rotations := p.auth.Rotations()
	if path, content := p.file(); strings.Contains(content, initial) {
		t.Errorf("the spent refresh token is still stored in %s", path)
	} else if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", path, info.Mode())
	}
	p.run(p.refreshing(initial), injecting)
	p.want(p.get("/"), http.StatusOK)
	if p.auth.Rotations() <= rotations || !p.auth.ChainAlive(initial) {
		t.Errorf("after a restart: %d refreshes, chain ended: %v", p.auth.Rotations(), p.auth.ChainEnd(initial))
	}
	for _, secret := range []string{initial, oddSecret} {
		if strings.Contains(p.logged(), secret) {
			t.Error("a secret stands in the log")
		}
	}
}

// TestRefreshReload: a credential that changes while a refresh is under way
// goes on with what that refresh brings.
func TestRefreshReload(t *testing.T) {
	p := rotating(t, time.Hour)
	initial := p.auth.IssueRefreshToken()
	p.auth.SetFault(authserver.Slow(300 * time.Millisecond))
	for n := range 5 { // each with a request of the one before under way
		if err := p.load(p.caddyfile(p.refreshing(initial, fmt.Sprintf("timeout %ds", 30+n)), injecting)); err != nil {
			t.Fatal(err)
		}
	}
	p.want(p.get("/"), http.StatusOK)
	if !p.auth.ChainAlive(initial) || p.auth.Peak() != 1 {
		t.Errorf("the chain ended: %v; %d requests at once, want 1", p.auth.ChainEnd(initial), p.auth.Peak())
	}
}

// TestRefreshRollback: a config that brings a spent refresh token back changes
// nothing, one with a new token does.
func TestRefreshRollback(t *testing.T) {
	p := rotating(t, time.Hour)
	first, second := p.auth.IssueRefreshToken(), p.auth.IssueRefreshToken()
	for _, initial := range []string{first, second, first} {
		if err := p.load(p.caddyfile(p.refreshing(initial), injecting)); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/"), http.StatusOK)
		p.stop()
	}
	if !p.auth.ChainAlive(first) || !p.auth.ChainAlive(second) || p.auth.Rotations() != 3 {
		t.Errorf("ended: %v, %v; %d refreshes, want 3", p.auth.ChainEnd(first), p.auth.ChainEnd(second), p.auth.Rotations())
	}
}

// TestRefreshEnded: a login that the server has ended is told with what mends
// it, and a new one is used without a reload.
func TestRefreshEnded(t *testing.T) {
	p := rotating(t, 2*time.Second)
	dir := t.TempDir()
	secret := filepath.Join(dir, "first")
	write := func(content string) {
		if err := os.WriteFile(secret, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	initial := p.auth.IssueRefreshToken()
	write(initial)
	p.run(p.refreshing("{file."+secret+"}"), injecting)
	p.want(p.get("/"), http.StatusOK)
	p.auth.RevokeChain(initial)
	eventually(t, "the end of the token", func() bool { return p.get("/").status == http.StatusBadGateway })
	if n := p.lines("the server takes the refresh token no more (invalid_grant, HTTP 400): write a new one into the grant refresh_token"); n == 0 {
		t.Error("the log does not say what to do")
	}
	started := time.Now()
	write(p.auth.IssueRefreshToken())
	eventually(t, "a token after a new login", func() bool { return p.get("/").status == http.StatusOK })
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s to notice a new refresh token, want 5s at most", took)
	}
}

// TestRefreshAnswerLost: the refresh token rests while the access token is
// valid, and the loss is told.
func TestRefreshAnswerLost(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true, Rotate: authserver.RotateAlways, Grace: time.Hour, Lifetime: 4 * time.Second})
	p.run(p.refreshing(p.auth.IssueRefreshToken(), often), injecting)
	p.want(p.get("/"), http.StatusOK)
	p.auth.FailNext(1, authserver.AfterProcessing(authserver.Status(http.StatusBadGateway)))
	eventually(t, "the loss of an answer", func() bool { return p.lines("token request failed; the token held stays in use") == 1 })
	if p.lines("the answer to a refresh was lost") == 0 {
		t.Error("the log does not tell that an answer was lost")
	}
	requests := p.auth.Requests()
	p.want(p.get("/"), http.StatusOK)
	if n := p.auth.Requests(); n != requests {
		t.Errorf("the refresh token was tried again while the access token was valid")
	}
	eventually(t, "another refresh", func() bool { return p.auth.Requests() > requests })
	eventually(t, "a good token", func() bool { return p.get("/").status == http.StatusOK })
	if p.api.Expired() > 0 {
		t.Errorf("%d requests with an expired token", p.api.Expired())
	}
}

// TestRefreshSealed: what is stored shows nothing, opens with an older key, and
// not with another one.
func TestRefreshSealed(t *testing.T) {
	p := rotating(t, time.Hour)
	keys := []string{"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="}
	initial := p.auth.IssueRefreshToken()
	with := func(keys string) string {
		return strings.Replace(p.caddyfile(p.refreshing(initial), injecting), "upstream_auth {\n", "upstream_auth {\nencryption_key "+keys+"\n", 1)
	}
	for _, key := range []string{keys[0], keys[1] + " " + keys[0], keys[1]} {
		if err := p.load(with(key)); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/"), http.StatusOK)
		if _, content := p.file(); strings.Contains(content, "refresh_token") || !strings.Contains(content, "sealed") {
			t.Errorf("stored is %s", content)
		}
		p.stop()
	}
	path, before := p.file()
	if err := p.load(with(keys[0])); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusBadGateway)
	if _, after := p.file(); after != before {
		t.Error("what could not be read was written over")
	}
	if p.lines("encryption_key") == 0 || !strings.Contains(p.logged(), filepath.Base(path)) {
		t.Error("the log names neither the file nor the key")
	}
}
