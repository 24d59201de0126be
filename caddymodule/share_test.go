package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const measured = "handle /metrics {\nmetrics\n}\nhandle {\n" + injecting + "\n}"

// lockFiles are those in Caddy's storage.
func (p *parts) lockFiles() (files []string) {
	p.t.Helper()
	err := filepath.WalkDir(filepath.Join(p.storage, "locks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	return files
}

// stopped ends Caddy and checks that no lock is left.
func (p *parts) stopped() {
	p.t.Helper()
	p.stop()
	if left := p.lockFiles(); len(left) > 0 {
		p.t.Errorf("locks are left behind: %v", left)
	}
}

// TestShareRestart: a restart in the middle of an outage serves on, without a
// token request and without a wait.
func TestShareRestart(t *testing.T) {
	p := newParts(t, authserver.Config{})
	began := time.Now()
	p.run(p.credential("share"), measured)
	p.want(p.get("/"), http.StatusOK)
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("the first request was answered %s after the start", took)
	}
	p.stopped()
	if path, content := p.file(); !strings.Contains(content, `"access_token"`) {
		t.Errorf("%s holds no token", path)
	} else if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", path, info.Mode())
	}

	p.auth.SetFault(authserver.Down())
	before := p.auth.Requests()
	for range 3 {
		began := time.Now()
		p.run(p.credential("share"), measured)
		p.want(p.get("/"), http.StatusOK)
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("the first request was answered %s after the start", took)
		}
		if n := p.series()[`tokens_adopted_total{credential="crm"}`]; n < 1 {
			t.Errorf("%v tokens were taken over", n)
		}
		p.stopped()
	}
	if n := p.auth.Requests() - before; n != 0 {
		t.Errorf("%d token requests after a restart", n)
	}
}

// TestShareReload: another timeout makes no other token, another scope does.
func TestShareReload(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential("share", "scopes read"), injecting)
	p.want(p.get("/"), http.StatusOK)
	for n, more := range []string{"timeout 20s", "refresh_at 50%", "expiry_margin 20s"} {
		p.run(p.credential("share", "scopes read", more), injecting)
		p.want(p.get("/"), http.StatusOK)
		if p.auth.Requests() != 1 {
			t.Errorf("after reload %d: %d token requests, want 1", n+1, p.auth.Requests())
		}
	}
	p.run(p.credential("share", "scopes write"), injecting)
	p.want(p.get("/"), http.StatusOK)
	if p.auth.Requests() != 2 {
		t.Errorf("another scope: %d token requests, want 2", p.auth.Requests())
	}
	p.stopped()
}

// TestShareSealed: with a key the token is sealed, and one that is not is not
// taken over.
func TestShareSealed(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("tell-nobody-%d", n) }})
	sealing := func() {
		t.Helper()
		key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
		config := strings.Replace(p.caddyfile(p.credential("share"), injecting), "upstream_auth {", "upstream_auth {\nencryption_key "+key, 1)
		if err := p.load(config); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/"), http.StatusOK)
		p.stopped()
	}
	p.run(p.credential("share"), injecting)
	p.want(p.get("/"), http.StatusOK)
	p.stopped()
	if _, content := p.file(); !strings.Contains(content, "tell-nobody-1") {
		t.Fatal("without a key it is plain")
	}
	for range 2 {
		sealing()
		if _, content := p.file(); strings.Contains(content, "tell-nobody") {
			t.Error("the token is stored unsealed")
		}
	}
	if n := p.auth.Requests(); n != 2 {
		t.Errorf("%d token requests, want one without the key and one with it", n)
	}
	for _, token := range []string{"tell-nobody-1", "tell-nobody-2"} {
		if strings.Contains(p.logged(), token) {
			t.Error("the token stands in the log")
		}
	}
}

// TestShareRefreshToken: a rotating refresh token is spent once for each access
// token, by whoever has the lock, and a restart spends none.
func TestShareRefreshToken(t *testing.T) {
	p := rotating(t, 4*time.Second)
	initial := p.auth.IssueRefreshToken()
	p.run(p.refreshing(initial, "share", often), injecting)
	p.want(p.get("/"), http.StatusOK)
	eventually(t, "three refreshes", func() bool { return p.auth.Rotations() >= 3 })
	p.stopped()
	if !p.auth.ChainAlive(initial) || p.auth.Peak() != 1 {
		t.Errorf("the chain ended: %v; %d requests at once", p.auth.ChainEnd(initial), p.auth.Peak())
	}
	p.run(p.refreshing(initial, "share"), injecting)
	p.want(p.get("/"), http.StatusOK)
	p.stopped()
}

// TestShareLocked: a lock that another keeps has a request wait for a second at
// most.
func TestShareLocked(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential("share"), injecting)
	p.want(p.get("/"), http.StatusOK)
	p.stopped()
	path, _ := p.file()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	files := &certmagic.FileStorage{Path: p.storage}
	name, err := filepath.Rel(p.storage, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Lock(t.Context(), filepath.ToSlash(name)+".lock"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.run(p.credential("share"), injecting)
	p.want(p.get("/"), http.StatusOK)
	if took := time.Since(began); took > 2500*time.Millisecond {
		t.Errorf("a request waited %s", took)
	}
	p.stop()
	if err := files.Unlock(t.Context(), filepath.ToSlash(name)+".lock"); err != nil {
		t.Errorf("the lock that another holds is gone: %v", err)
	}
}

// place is where a credential's token is stored, and whose lock is taken.
func (p *parts) place(credential string) (path, lock string) {
	p.t.Helper()
	c, err := provisionCredential(adapt(p.t, p.caddyfile(credential, "respond ok")), "crm")
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.close()
	s, err := c.requester.openShared(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	at := s.Store.(shelf)
	return at.Path(), at.turns.Path()
}

// TestSharePlaces: tokens that may differ are kept apart, and those that cannot
// are not.
func TestSharePlaces(t *testing.T) {
	p := newParts(t, authserver.Config{})
	t.Setenv("SHARE_TENANT", "one")
	dir := t.TempDir()
	jwt := func(claims string) string {
		part := base64.RawURLEncoding.EncodeToString
		file := filepath.Join(dir, "jwt")
		content := part([]byte(`{"alg":"none"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + file + "}"
	}
	asserting := func(claims string) string {
		return strings.Replace(p.credential("share"), "client_id", "grant jwt_bearer {\nassertion "+jwt(claims)+"\n}\nclient_id", 1)
	}
	at := func(credential string) string {
		t.Helper()
		path, lock := p.place(credential)
		if path != lock {
			t.Errorf("the lock of %s is that of %s", path, lock)
		}
		return path
	}
	base := at(p.credential("share"))
	for name, more := range map[string]string{
		"timeout":         "timeout 3s",
		"refresh_at":      "refresh_at 40%",
		"tls":             "tls {\nserver_name idp.example.com\n}",
		"rejected_on":     "rejected_on 401 403",
		"another failure": "share {\non_storage_failure hold\n}",
	} {
		credential := p.credential("share", more)
		if strings.HasPrefix(more, "share") {
			credential = p.credential(more)
		}
		if got := at(credential); got != base {
			t.Errorf("%s: it is stored elsewhere", name)
		}
	}
	seen := map[string]string{base: "nothing more"}
	apart := func(name, path string) {
		t.Helper()
		if other, ok := seen[path]; ok {
			t.Errorf("%s is stored where %s is", name, other)
		}
		seen[path] = name
	}
	for name, more := range map[string]string{
		"a scope":            "scopes read",
		"two scopes":         "scopes read write",
		"an audience":        "audience https://api.example.com",
		"a resource":         "resource https://api.example.com",
		"a param":            "param tenant 1",
		"another param":      "param tenant 2",
		"a param of the env": "param tenant {env.SHARE_TENANT}",
		"a header":           "request {\nheader X-Tenant 1\n}",
		"a shape":            "response {\naccess_token data.token\n}",
		"a literal env":      `param tenant "\{env.SHARE_TENANT\}"`,
	} {
		apart(name, at(p.credential("share", more)))
	}
	t.Setenv("SHARE_TENANT", "two")
	apart("a param of another env", at(p.credential("share", "param tenant {env.SHARE_TENANT}")))
	apart("another client", at(strings.Replace(p.credential("share"), "client_id "+appClient, "client_id another", 1)))
	apart("another server", at(strings.Replace(p.credential("share"), authserver.TokenPath, "/another", 1)))

	// what a clock tells makes no other token
	if a, b := at(p.credential("share", "param at {time.now.unix_ms}")), at(p.credential("share", "param at {time.now.unix_ms}")); a != b {
		t.Error("a clock has the token stored elsewhere each time")
	}
	// a JWT is replaced every hour
	first := at(asserting(`{"iss":"a","sub":"b","iat":1,"exp":2,"jti":"x"}`))
	if second := at(asserting(`{"iss":"a","sub":"b","iat":3,"exp":4,"jti":"y"}`)); first != second {
		t.Error("a JWT that was renewed has the token stored elsewhere")
	}
	apart("a JWT", first)
	apart("another subject's JWT", at(asserting(`{"iss":"a","sub":"c","iat":1,"exp":2}`)))
	apart("another issuer's JWT", at(asserting(`{"iss":"z","sub":"b","iat":1,"exp":2}`)))
	apart("a JWT for another scope", at(asserting(`{"iss":"a","sub":"b","scope":"all","iat":1,"exp":2}`)))
	apart("a JWT of another client", at(asserting(`{"iss":"a","sub":"b","azp":"other","iat":1,"exp":2}`)))
	apart("a JWT for another audience", at(asserting(`{"iss":"a","sub":"b","aud":["other"],"iat":1,"exp":2}`)))

	// a refresh token is one, whatever each asks for
	rt, lock := p.place(p.refreshing("initial", "share", "scopes read", "refresh_scopes"))
	other, otherLock := p.place(p.refreshing("initial", "share", "scopes write", "refresh_scopes"))
	if rt == other {
		t.Error("access tokens of two scopes are one")
	}
	if lock != otherLock {
		t.Error("two scopes have two locks for one refresh token")
	}
}

// TestShareRefused: what cannot be shared is an error at load.
func TestShareRefused(t *testing.T) {
	p := newParts(t, authserver.Config{})
	for more, want := range map[string]string{
		"share\nscopes {header.X-Scope}":         "share",
		"share {\non_storage_failure give_up\n}": "solo or hold",
		"share {\non_storage_failure\n}":         "on_storage_failure",
		"share {\non_failure solo\n}":            "on_failure",
		"share now":                              "share",
		"share\nshare":                           "share",
	} {
		err := p.load(p.caddyfile(p.credential(more), injecting))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", more, err, want)
		}
	}
}

// TestShareJSON: the forms of the contract beneath.
func TestShareJSON(t *testing.T) {
	p := newParts(t, authserver.Config{})
	config := string(adapt(t, p.caddyfile(p.credential("share"), injecting)))
	if !strings.Contains(config, `"share":{}`) {
		t.Fatalf("adapted to %s", config)
	}
	for form, want := range map[string]string{
		`null`:                          "",
		`{}`:                            "",
		`{"on_storage_failure":""}`:     "",
		`{"on_storage_failure":"solo"}`: "",
		`{"on_storage_failure":"hold"}`: "",
		`{"on_storage_failure":"both"}`: "solo or hold",
		`{"on_failure":"solo"}`:         "on_failure",
		`true`:                          "share",
		`"solo"`:                        "share",
	} {
		var cfg caddy.Config
		if err := json.Unmarshal([]byte(strings.Replace(config, `"share":{}`, `"share":`+form, 1)), &cfg); err != nil {
			t.Fatal(err)
		}
		err := caddy.Validate(&cfg)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", form, err, want)
		}
	}
	if n := p.auth.Requests(); n != 0 {
		t.Errorf("%d token requests while validating", n)
	}
}

// TestShareCommands: a command that writes the refresh token has the lock, and
// ends what was shared of the login before.
func TestShareCommands(t *testing.T) {
	p := rotating(t, time.Hour)
	credential := p.refreshing(p.auth.IssueRefreshToken(), "share")
	p.run(credential, injecting)
	p.want(p.get("/"), http.StatusOK)
	p.stopped()
	if n := len(p.files()); n != 2 {
		t.Errorf("%d files are stored, want an access token and a refresh token", n)
	}
	c, err := provisionCredential(adapt(t, p.caddyfile(credential, injecting)), "crm")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	err = c.requester.withLock(t.Context(), func() error {
		if n := len(p.lockFiles()); n != 1 {
			t.Errorf("%d locks are held", n)
		}
		return nil
	})
	if err != nil || len(p.lockFiles()) != 0 {
		t.Errorf("got %v, %v", err, p.lockFiles())
	}
	if n := len(p.files()); n != 1 {
		t.Errorf("%d files are stored, want the refresh token alone", n)
	}
}
