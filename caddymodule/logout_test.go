package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// logout logs out by the library.
func (p *parts) logout(caddyfile string) (string, error) {
	p.t.Helper()
	l, out := p.begin(caddyfile)
	defer l.close()
	err := l.logout(p.t.Context(), out)
	if problem := p.tellsNothing(out.String() + inText(err)); problem != nil {
		p.t.Error(problem)
	}
	return out.String(), err
}

// loggedIn is a Caddyfile with a login, and the refresh token that is stored.
func (p *parts) loggedIn(caddyfile string) (refreshToken string) {
	p.t.Helper()
	if _, err := p.login(caddyfile, func(address string) { browse(p.t, address) }); err != nil {
		p.t.Fatal(err)
	}
	l, _ := p.begin(caddyfile)
	defer l.close()
	return p.kept(l)
}

const (
	revoked    = "The server has revoked the refresh token."
	loggedOut  = "Logged out. A running Caddy uses the access token that it holds to its end, or until it is refused."
	notRevoked = "The server did not revoke the refresh token, which is forgotten here all the same: "
)

// TestLogout: the refresh token is revoked, where that can be, and forgotten in
// any case.
func TestLogout(t *testing.T) {
	noRevocation := func(m map[string]any) { delete(m, "revocation_endpoint") }
	for name, tc := range map[string]struct {
		config authserver.Config
		edit   []string
		fault  authserver.Fault
		says   string
		ended  bool // at the server
	}{
		"revoked": {says: revoked, ended: true},
		"public client": {
			config: authserver.Config{Methods: []string{authserver.None}, ClientID: appClient},
			edit:   []string{"client_auth client_secret_basic {env." + secretEnv + "}", "client_auth none"},
			says:   revoked, ended: true,
		},
		"post":        {edit: []string{"client_secret_basic", "client_secret_post"}, says: revoked, ended: true},
		"no endpoint": {config: authserver.Config{MetadataEdit: noRevocation}, says: "The server names no endpoint for revocation"},
		"no metadata": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token", "redirect_uri", "authorization_url $SERVER/authorize\nredirect_uri"},
			says: "The server names no endpoint for revocation (issuer in place of token_url finds it, where there is one), so the refresh token is forgotten here and stays valid there.",
		},
		"down":    {fault: authserver.Down(), says: notRevoked + "unreachable: HTTP 503"},
		"refused": {fault: authserver.Invalid("unsupported_token_type", "not\x1bthat"), says: notRevoked + "refused: HTTP 400, unsupported_token_type: not that"},
		"a redirect": {
			fault: authserver.Redirect(http.StatusTemporaryRedirect, "https://evil.example.com/"), says: notRevoked + "malformed: HTTP 307, a redirect, which is never followed",
		},
		"an echo": {
			fault: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				_ = r.ParseForm()
				authserver.Invalid("invalid_request", "no "+r.Form.Get("token"))(w, r, nil)
			},
			says: "invalid_request: no ***",
		},
		"words that are for other requests": {edit: []string{"client_id app", "client_id app\nrequest {\nbody json\n}"}, says: revoked, ended: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			edit := slices.Clone(tc.edit)
			for i := range edit {
				edit[i] = strings.ReplaceAll(edit[i], "$SERVER", p.server.URL())
			}
			caddyfile := p.loginConfig()
			later := strings.NewReplacer(edit...).Replace(caddyfile)
			if !strings.Contains(later, "body json") {
				caddyfile = later
			}
			refreshToken := p.loggedIn(caddyfile)
			p.auth.Revocation.SetFault(tc.fault)
			out, err := p.logout(later)
			if err != nil || !strings.Contains(out, tc.says) || !strings.HasSuffix(out, loggedOut+"\n") {
				t.Fatalf("got %v\n%s, want %q", err, out, tc.says)
			}
			if p.auth.ChainAlive(refreshToken) == tc.ended {
				t.Errorf("at the server it ended with %v", p.auth.ChainEnd(refreshToken))
			}
			if _, content := p.file(); strings.Contains(content, refreshToken) {
				t.Errorf("stored is %s", content)
			}
			if tc.ended {
				if asked := p.asked(authserver.RevokePath); asked.Get("token") != refreshToken || asked.Get("token_type_hint") != "refresh_token" || asked.Has("grant_type") || asked.Has("scope") {
					t.Errorf("asked with %v", asked)
				}
			}
			out, err = p.logout(later)
			if err != nil || out != "No refresh token is stored in the folder "+p.storage+".\n" {
				t.Errorf("a second time: got %v\n%s", err, out)
			}
			if _, err := p.login(caddyfile, func(address string) { browse(t, address) }); err != nil {
				t.Fatal(err)
			}
			if err := p.load(caddyfile); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusOK)
		})
	}
}

// TestLogoutServerAway: what cannot be revoked is forgotten, and so is what the
// server lets hang.
func TestLogoutServerAway(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	caddyfile := p.loginConfig()
	p.loggedIn(caddyfile)
	if err := p.server.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := p.logout(caddyfile)
	if err != nil || !strings.Contains(out, notRevoked+"unreachable: ") || !strings.HasSuffix(out, loggedOut+"\n") {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestLogoutUnreadable: what cannot be read is not revoked, and kept.
func TestLogoutUnreadable(t *testing.T) {
	const key = "\nencryption_key MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"
	for name, spoil := range map[string]func(content, caddyfile string) (string, string){
		"cut": func(content, caddyfile string) (string, string) { return content[:len(content)/2], caddyfile },
		"another key": func(content, caddyfile string) (string, string) {
			return content, strings.Replace(caddyfile, "MDEyMzQ1", "ODEyMzQ1", 1)
		},
		"no key": func(content, caddyfile string) (string, string) {
			return content, strings.Replace(caddyfile, key, "\n", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, authserver.Config{})
			caddyfile := strings.Replace(p.loginConfig(), "upstream_auth {\n", "upstream_auth {\n"+key, 1)
			p.loggedIn(caddyfile)
			path, content := p.file()
			content, caddyfile = spoil(content, caddyfile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := p.logout(caddyfile)
			if err != nil || p.auth.RequestsTo(authserver.RevokePath) != 0 {
				t.Errorf("got %v; revoked %d", err, p.auth.RequestsTo(authserver.RevokePath))
			}
			for _, says := range []string{
				"The refresh token cannot be read, and so not be revoked at the server.", "What was stored before could not be read",
				"upstream_auth/crm/" + filepath.Base(path) + ".kept-… in the folder " + p.storage, loggedOut,
			} {
				if !strings.Contains(out, says) {
					t.Errorf("got %s, want %q", out, says)
				}
			}
			p.keptAside(path, content)
			p.loggedIn(caddyfile) // goes on from there
		})
	}
}

// TestLogoutWhileRunning: a running Caddy uses the access token that it holds to
// its end, and says then what to do; a login mends it.
func TestLogoutWhileRunning(t *testing.T) {
	p := loginServer(t, authserver.Config{Lifetime: 3 * time.Second, MetadataEdit: func(m map[string]any) { delete(m, "revocation_endpoint") }})
	caddyfile := p.loginConfig()
	path := writeFile(t, "Caddyfile", []byte(caddyfile))
	p.loggedIn(caddyfile)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
	if text := p.caddy("upstream-auth", "logout", "crm", "--config", path).wait(true); !strings.Contains(text, loggedOut) || p.tellsNothing(text) != nil {
		t.Errorf("got %s", text)
	}
	p.want(p.get("/"), http.StatusOK)
	eventually(t, "the end of the token", func() bool { return p.get("/").status == http.StatusBadGateway })
	if p.lines("no refresh token is stored") == 0 || p.lines("run: caddy upstream-auth login crm") == 0 {
		t.Error("the log does not say what to do")
	}
	if p.api.Expired() > 0 {
		t.Errorf("%d requests with an expired token", p.api.Expired())
	}
	c := p.caddy("upstream-auth", "login", "crm", "--config", path, "--no-browser")
	browse(t, c.address())
	c.wait(true)
	since := time.Now()
	eventually(t, "a token", func() bool { return p.get("/").status == http.StatusOK })
	if took := time.Since(since); took > 5*time.Second {
		t.Errorf("a running Caddy noticed the login after %s, want 5s at most", took)
	}
}

// TestLogoutConfigured: a refresh token of the config is not taken after the
// logout, be it one that was used before or not; another one is.
func TestLogoutConfigured(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	config := func(initial string) string {
		return strings.Replace(p.caddyfile(p.refreshing(initial), injecting), "token_url "+p.server.URL()+authserver.TokenPath, "issuer "+p.server.URL(), 1)
	}
	ended := func(caddyfile, initial, says string) {
		t.Helper()
		out, err := p.logout(caddyfile)
		if err != nil || !strings.Contains(out, says) || !strings.Contains(out, revoked) || !strings.HasSuffix(out, loggedOut+"\n") {
			t.Errorf("got %v\n%s", err, out)
		}
		if p.auth.ChainAlive(initial) {
			t.Error("the refresh token is not revoked")
		}
		requests := p.auth.Requests()
		if err := p.load(caddyfile); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/"), http.StatusBadGateway)
		if n := p.auth.Requests(); n != requests {
			t.Errorf("%d token requests after the logout, with %v", n-requests, p.asked(authserver.TokenPath))
		}
		if p.lines("write a new one into the grant refresh_token") == 0 {
			t.Error("the log does not say what to do")
		}
		p.stop()
	}
	first := p.auth.IssueRefreshToken()
	ended(config(first), first, "No refresh token is stored in the folder "+p.storage)

	second := p.auth.IssueRefreshToken()
	if err := p.load(config(second)); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
	p.stop()
	ended(config(second), second, "")

	// what is not readable hides which were taken
	third := p.auth.IssueRefreshToken()
	caddyfile := config(third)
	path, _ := p.file()
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := p.logout(caddyfile); err != nil || !strings.Contains(out, "cannot be read") {
		t.Errorf("got %v\n%s", err, out)
	}
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusBadGateway)
	if !p.auth.ChainAlive(third) {
		t.Error("a refresh token that could not be known was revoked")
	}
}

// TestLogoutNothing: a grant that keeps nothing, and a storage that fails.
func TestLogoutNothing(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	_, err := p.logout(p.caddyfile(p.credential(), injecting))
	if want := "its grant is client_credentials, which keeps no refresh token"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := os.WriteFile(p.storage, []byte("a file in place of the folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.logout(p.loginConfig()); err == nil || !strings.Contains(err.Error(), "looking for the refresh token in the folder "+p.storage) {
		t.Errorf("got %v", err)
	}
}

// kept is the refresh token that is stored for a login.
func (p *parts) kept(l *login) string {
	p.t.Helper()
	s, err := l.requester.openSession(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	refreshToken, err := token.Kept(p.t.Context(), s.Store)
	if err != nil || refreshToken == "" {
		p.t.Fatalf("nothing is stored: %v", err)
	}
	return refreshToken
}
