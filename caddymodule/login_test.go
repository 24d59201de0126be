package caddymodule

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"golang.org/x/oauth2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// asCaddy has the test's own binary be caddy, for tests of the command line.
const asCaddy = "UPSTREAM_AUTH_TEST_AS_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	m.Run()
}

// output is what a program has written so far.
type output struct {
	mu      sync.Mutex
	content bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.content.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.content.String()
}

// program is caddy in a process of its own.
type program struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errors output
}

// caddy starts the command line.
func (p *parts) caddy(args ...string) *program {
	p.t.Helper()
	c := p.prepare(args...)
	c.start()
	return c
}

// prepare is caddy in a folder of its own, which is its user's home.
func (p *parts) prepare(args ...string) *program {
	p.t.Helper()
	c := &program{t: p.t, cmd: exec.Command(os.Args[0], args...)}
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = p.t.TempDir(), &c.out, &c.errors
	c.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "XDG_") || strings.HasPrefix(v, "HOME=") })
	// with the race detector a process would sleep for a second before it ends
	c.cmd.Env = append(c.cmd.Env, asCaddy+"=1", "HOME="+c.cmd.Dir, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return c
}

func (c *program) start() {
	c.t.Helper()
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
	})
}

// all is what it has written anywhere.
func (c *program) all() string { return c.out.String() + c.errors.String() }

// wait waits for the end, which is a success or not.
func (c *program) wait(success bool) string {
	c.t.Helper()
	if err := c.cmd.Wait(); (err == nil) != success {
		c.t.Errorf("ended with %v\n%s", err, c.all())
	}
	return c.all()
}

var loginAddress = regexp.MustCompile(`(?m)^http\S+/authorize\?\S+$`)

// address waits for the one at which a person is to log in.
func (c *program) address() string {
	c.t.Helper()
	var found string
	eventually(c.t, "an address to log in at", func() bool {
		found = loginAddress.FindString(c.out.String())
		if found == "" && c.errors.String() != "" && strings.Contains(c.errors.String(), "ERROR") {
			c.t.Fatalf("it ended: %s", c.all())
		}
		return found != ""
	})
	return found
}

// browse opens an address as a browser does, redirects and all.
func browse(t *testing.T, address string) answer {
	t.Helper()
	a, err := tryBrowse(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryBrowse(ctx context.Context, address string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return answer{}, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 30 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(content)}, err
}

// loginServer is one for logins, with refresh tokens that rotate.
func loginServer(t *testing.T, config authserver.Config) *parts {
	t.Helper()
	config.RefreshTokens, config.Rotate, config.ReuseDetection = true, authserver.RotateAlways, true
	p := newParts(t, config)
	t.Cleanup(p.nothingLeft)
	return p
}

// loginBlock is a credential's block for logins: the server, the grant with its
// options, and more of its own.
func (p *parts) loginBlock(grant string, more ...string) string {
	return fmt.Sprintf("issuer %s\ngrant authorization_code {\n%s\n}\nclient_id %s\nclient_auth client_secret_basic {env.%s}\n%s\n",
		p.server.URL(), grant, appClient, secretEnv, strings.Join(more, "\n"))
}

// callbackOn is the option for a free port of a host, of both families.
func callbackOn(t *testing.T, host string) string {
	t.Helper()
	return "redirect_uri http://" + net.JoinHostPort(host, freePort(t)) + "/callback"
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeport.Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// loginConfig is a whole Caddyfile with a loginBlock.
func (p *parts) loginConfig(more ...string) string {
	return p.caddyfile(p.loginBlock(callbackOn(p.t, "127.0.0.1"), more...), injecting)
}

// begin provisions the login for a Caddyfile's credential.
func (p *parts) begin(caddyfile string) (*login, *output) {
	p.t.Helper()
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := provisionCredential(raw, "crm")
	if err != nil {
		p.t.Fatal(err)
	}
	out := new(output)
	return &login{configured: c, out: out, wait: 20 * time.Second}, out
}

// login logs in with a browser that is given the address.
func (p *parts) login(caddyfile string, browser func(address string)) (string, error) {
	p.t.Helper()
	l, out := p.begin(caddyfile)
	defer l.close()
	l.open = browser
	err := l.run(p.t.Context())
	if err := p.tellsNothing(out.String() + fmt.Sprint(err)); err != nil {
		p.t.Error(err)
	}
	return out.String(), err
}

// secrets are all that must never be shown, as far as the server has seen or
// given it.
func (p *parts) secrets() []string {
	secrets := []string{oddSecret, url.QueryEscape(oddSecret)}
	for _, r := range p.auth.Log() {
		for _, name := range []string{"code", "code_verifier", "device_code", "refresh_token", "client_assertion", "token"} {
			if v := r.Form.Get(name); v != "" {
				secrets = append(secrets, v)
			}
		}
	}
	return secrets
}

// tellsNothing is an error if a text holds a secret.
func (p *parts) tellsNothing(text string) error {
	for _, secret := range p.secrets() {
		if strings.Contains(text, secret) {
			return fmt.Errorf("a secret is shown: %s", text)
		}
	}
	for _, prefix := range []string{"at-", "rt-"} { // the server's tokens
		if regexp.MustCompile(`\b` + prefix + `[A-Za-z0-9_-]{20}`).MatchString(text) {
			return fmt.Errorf("a token is shown: %s", text)
		}
	}
	return nil
}

// asked are the parameters of the last request to an address.
func (p *parts) asked(path string) url.Values {
	p.t.Helper()
	for _, r := range slices.Backward(p.auth.Log()) {
		if r.Path != path {
			continue
		}
		if r.Form != nil {
			return r.Form
		}
		q, err := url.ParseQuery(r.RawQuery)
		if err != nil {
			p.t.Fatal(err)
		}
		return q
	}
	p.t.Fatalf("nobody asked for %s", path)
	return nil
}

// TestLogin logs in with every form of a credential, and Caddy goes on with what
// is stored.
func TestLogin(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := writeFile(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	callback := callbackOn(t, "127.0.0.1")
	t.Setenv("TEST_CALLBACK", strings.Fields(callback)[1])
	t.Setenv("TEST_SCOPES", "openid read")
	t.Setenv("TEST_CLIENT", appClient)
	for name, tc := range map[string]struct {
		config   authserver.Config
		returned authserver.Fault // to the browser
		fault    authserver.Fault
		edit     []string // of the Caddyfile, old and new in turn
		sent     map[string]string
		shows    string
	}{
		"issuer":    {},
		"localhost": {edit: []string{callback, callbackOn(t, "localhost")}},
		"IPv6":      {edit: []string{callback, callbackOn(t, "::1")}},
		"the root":  {edit: []string{callback, strings.TrimSuffix(callback, "callback")}},
		"no path":   {edit: []string{callback, strings.TrimSuffix(callback, "/callback")}},
		"token_url": {edit: []string{"issuer $SERVER", "token_url $SERVER/token", callback, callback + "\nauthorization_url $SERVER/authorize"}},
		"openid":    {edit: []string{"client_id", "scopes openid read\nclient_id"}, sent: map[string]string{"scope": "openid read"}},
		"openid, no issuer": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token\nscopes openid", callback, callback + "\nauthorization_url $SERVER/authorize"},
			sent: map[string]string{"scope": "openid"},
		},
		"openid, RS256": {config: authserver.Config{SigningAlg: "RS256"}, edit: []string{"client_id", "scopes openid\nclient_id"}},
		"openid, no keys": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "jwks_uri") }},
			edit:   []string{"client_id", "scopes openid\nclient_id"},
		},
		"openid, no ID token": {
			fault: authserver.Answer(func(m map[string]any) { delete(m, "id_token") }),
			edit:  []string{"client_id", "scopes openid\nclient_id"},
		},
		"no iss promised": {
			config:   authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }},
			returned: authserver.WrongIssuer(""),
		},
		"fewer scopes": {
			fault: authserver.Answer(func(m map[string]any) { m["scope"] = "read" }),
			edit:  []string{"client_id", "scopes read write admin\nclient_id"},
			shows: "Of the scopes that were asked for, the server does not name: write admin\n",
		},
		"scopes that are not told": {
			fault: authserver.Answer(func(m map[string]any) { delete(m, "scope") }),
			edit:  []string{"client_id", "scopes read write\nclient_id"},
		},
		"metadata without PKCE": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "code_challenge_methods_supported") }},
		},
		"placeholders": {
			edit: []string{callback, "redirect_uri {env.TEST_CALLBACK}", "client_id app", "scopes {env.TEST_SCOPES}\nclient_id {env.TEST_CLIENT}"},
			sent: map[string]string{"scope": "openid read", "client_id": appClient},
		},
		"what is asked for": {
			edit: []string{"client_id", "audience https://api.example.com\nresource urn:a\nparam tenant 42\nparam key {env." + secretEnv + "}\nclient_id"},
			sent: map[string]string{"audience": "https://api.example.com", "resource": "urn:a", "tenant": "42", "key": "", "scope": ""},
		},
		"a query in authorization_url": {
			edit: []string{callback, callback + "\nauthorization_url $SERVER/authorize?prompt=consent&tenant=1&state=x&scope=y", "client_id", "scopes read\nparam tenant 42\nclient_id"},
			sent: map[string]string{"prompt": "consent", "tenant": "42", "scope": "read"},
		},
		"post": {edit: []string{"client_secret_basic", "client_secret_post"}},
		"private_key_jwt": {
			config: authserver.Config{Methods: []string{authserver.PrivateKeyJWT}, ClientKeys: authserver.PublicKeys(key.Public())},
			edit:   []string{"client_secret_basic {env." + secretEnv + "}", "private_key_jwt {\nkey_file " + keyFile + "\n}"},
		},
		"none": {
			config: authserver.Config{Methods: []string{authserver.None}, ClientID: appClient},
			edit:   []string{"client_auth client_secret_basic {env." + secretEnv + "}", "client_auth none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			p.auth.SetFault(tc.fault)
			p.auth.Authorization.SetFault(tc.returned)
			edit := slices.Clone(tc.edit)
			for i := range edit {
				edit[i] = strings.ReplaceAll(edit[i], "$SERVER", p.server.URL())
			}
			caddyfile := strings.NewReplacer(edit...).Replace(p.caddyfile(p.loginBlock(callback), injecting))
			if len(edit) > 0 && !strings.Contains(caddyfile, edit[1]) {
				t.Fatal("the edit does not fit")
			}
			var page answer
			out, err := p.login(caddyfile, func(address string) { page = browse(t, address) })
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if page.status != http.StatusOK || !strings.Contains(page.body, "done its part") {
				t.Errorf("the page: %d %s", page.status, page.body)
			}
			if !strings.Contains(out, "Logged in. The refresh token is stored in the folder "+p.storage) {
				t.Errorf("got %s", out)
			}
			if !strings.Contains(out, tc.shows) || tc.shows == "" && strings.Contains(out, "does not name") {
				t.Errorf("got %s, want %q", out, tc.shows)
			}
			asked, redeemed := p.asked(authserver.AuthorizePath), p.asked(authserver.TokenPath)
			if asked.Get("code_challenge") != oauth2.S256ChallengeFromVerifier(redeemed.Get("code_verifier")) || asked.Get("code_challenge_method") != "S256" {
				t.Errorf("PKCE: asked with %v", asked)
			}
			if asked.Get("redirect_uri") == "" || asked.Get("redirect_uri") != redeemed.Get("redirect_uri") || len(asked.Get("state")) < 26 {
				t.Errorf("asked with %v", asked)
			}
			if (asked.Get("nonce") != "") != strings.Contains(asked.Get("scope"), "openid") {
				t.Errorf("the nonce is %q", asked.Get("nonce"))
			}
			for parameter, want := range tc.sent {
				if got := asked.Get(parameter); got != want || len(asked[parameter]) > 1 {
					t.Errorf("asked with %s %q, want %q", parameter, asked[parameter], want)
				}
			}
			for parameter, values := range asked {
				if len(values) > 1 {
					t.Errorf("asked with %s %q", parameter, values)
				}
			}
			if err := p.load(caddyfile); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusOK)
		})
	}
}

// TestLoginWhileRunning: a Caddy that turns requests away for lack of a login
// gets its token by one that is made beside it, with the same config and its
// ports in use, and again when the server has ended the first.
func TestLoginWhileRunning(t *testing.T) {
	for name, keys := range map[string]string{"plain": "", "sealed": "encryption_key MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, authserver.Config{Lifetime: 2 * time.Second})
			caddyfile := strings.Replace(p.loginConfig("scopes openid"), "upstream_auth {\n", "upstream_auth {\n"+keys+"\n", 1)
			path := writeFile(t, "Caddyfile", []byte(caddyfile))
			if err := p.load(caddyfile); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusBadGateway)
			if p.lines("run: caddy upstream-auth login crm") == 0 || p.lines("no refresh token is stored") == 0 {
				t.Error("the log does not say what to do")
			}
			login := func() {
				t.Helper()
				c := p.caddy("upstream-auth", "login", "crm", "--config", path, "--no-browser")
				if page := browse(t, c.address()); page.status != http.StatusOK {
					t.Errorf("the page: %d %s", page.status, page.body)
				}
				text := c.wait(true)
				since := time.Now()
				eventually(t, "a token", func() bool { return p.get("/").status == http.StatusOK })
				if took := time.Since(since); took > 5*time.Second {
					t.Errorf("a running Caddy noticed the login after %s, want 5s at most", took)
				}
				if err := p.tellsNothing(text); err != nil {
					t.Error(err)
				}
			}
			login()
			if _, content := p.file(); strings.Contains(content, "rt-") != (keys == "") {
				t.Errorf("stored is %s", content)
			}
			p.auth.RevokeChain(p.refreshTokenIssued())
			eventually(t, "the end of the token", func() bool { return p.get("/").status == http.StatusBadGateway })
			eventually(t, "advice", func() bool {
				return p.lines("the server takes the refresh token no more (invalid_grant, HTTP 400): run: caddy upstream-auth login crm; the new one is used within seconds") > 0
			})
			login()
			eventually(t, "a refresh", func() bool { return p.auth.Rotations() > 1 })
			p.want(p.get("/"), http.StatusOK)
			if err := p.tellsNothing(p.logged()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLoginCertificate: a client that shows a certificate goes where the server
// wants such clients (RFC 8705 §5), with all that it asks for itself.
func TestLoginCertificate(t *testing.T) {
	server, ca := selfSigned(t, "127.0.0.1")
	client, clientCert := selfSigned(t, "client")
	leaf, err := x509.ParseCertificate(client.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	var issuer, alias string
	p := loginServer(t, authserver.Config{
		IDTokenEdit: func(c map[string]any) { c["iss"] = issuer },
		Methods:     []string{authserver.SelfSignedTLS}, ClientThumbprint: authserver.Thumbprint(leaf),
		MetadataEdit: func(m map[string]any) {
			m["mtls_endpoint_aliases"] = map[string]any{
				"token_endpoint": alias + authserver.TokenPath, "revocation_endpoint": alias + authserver.RevokePath,
				"device_authorization_endpoint": alias + authserver.DeviceAuthorizationPath,
			}
		},
	})
	secure := func(conf *tls.Config) string {
		l, err := authserver.ListenTLS("127.0.0.1:0", p.auth, conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.URL()
	}
	alias = secure(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert})
	issuer = secure(&tls.Config{Certificates: []tls.Certificate{server}})
	caddyfile := strings.NewReplacer(
		p.server.URL(), issuer,
		"client_auth client_secret_basic {env."+secretEnv+"}", "client_auth tls_client_auth {\ncert "+writeFile(t, "cert", clientCert)+"\nkey "+writeFile(t, "key", keyPEM(t, client))+"\n}\n"+
			"tls {\nca "+writeFile(t, "ca", ca)+"\n}\n",
	).Replace(p.loginConfig("scopes openid"))
	p.loggedIn(caddyfile)
	if _, err := p.logout(caddyfile); err != nil {
		t.Error(err)
	}
	p.auth.DeviceAuthorization.SetFault(hasty(nil))
	if _, err := p.deviceLogin(caddyfile, func(code string) { p.auth.ApproveDevice(code) }); err != nil {
		t.Error(err)
	}
	want := map[string]int{authserver.TokenPath: 2, authserver.RevokePath: 1, authserver.DeviceAuthorizationPath: 1}
	for _, r := range p.auth.Log() {
		if _, ok := want[r.Path]; ok && r.Host == strings.TrimPrefix(alias, "https://") {
			want[r.Path]--
		}
	}
	for path, n := range want {
		if n != 0 {
			t.Errorf("%s was not asked where certificates are", path)
		}
	}
}

// TestLoginDPoP: the refresh token of a public client is bound to the key that
// the login was made with (RFC 9449 §5).
func TestLoginDPoP(t *testing.T) {
	p := loginServer(t, authserver.Config{DPoP: authserver.DPoPRequired, DPoPNonce: true, Methods: []string{authserver.None}, ClientID: appClient})
	key := filepath.Join(t.TempDir(), "key")
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, keyPEM(t, tls.Certificate{PrivateKey: ecKey}), 0o600); err != nil {
		t.Fatal(err)
	}
	caddyfile := p.caddyfile(strings.Replace(p.loginBlock(callbackOn(t, "127.0.0.1"), "dpop {\nkey_file "+key+"\n}"),
		"client_auth client_secret_basic {env."+secretEnv+"}", "client_auth none", 1), "reverse_proxy $API {\ntransport upstream_auth crm\n}")
	p.loggedIn(caddyfile)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
}

// refreshTokenIssued is one that was spent, so that its chain is known.
func (p *parts) refreshTokenIssued() string {
	p.t.Helper()
	var spent string
	eventually(p.t, "a refresh", func() bool {
		for _, r := range p.auth.Log() {
			if v := r.Form.Get("refresh_token"); v != "" {
				spent = v
			}
		}
		return spent != ""
	})
	return spent
}

// TestLoginNotBegun: what is wrong before anybody logs in.
func TestLoginNotBegun(t *testing.T) {
	callback := callbackOn(t, "127.0.0.1")
	for name, tc := range map[string]struct {
		edit   []string
		config authserver.Config
		says   string
	}{
		"another grant": {
			edit: []string{"grant authorization_code {\n" + callback + "\n}", "grant client_credentials"},
			says: "its grant is client_credentials, which needs no login",
		},
		"a configured refresh token": {
			edit: []string{"grant authorization_code {\n" + callback + "\n}", "grant refresh_token x"},
			says: "its grant is refresh_token, which begins with the refresh token that stands there",
		},
		"no redirect_uri": {edit: []string{callback, "retry_grace 1s"}, says: "redirect_uri is missing"},
		"redirect_uri of another host": {
			edit: []string{callback, "redirect_uri {env.TEST_CALLBACK}"}, says: "redirect_uri 'http://10.0.0.1:8400/callback' is not a loopback address",
		},
		"redirect_uri that is empty": {edit: []string{callback, "redirect_uri {env.TEST_EMPTY}"}, says: "redirect_uri"},
		"no authorization_url": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token", callback, callback + "\ndevice_authorization_url $SERVER/device_authorization"},
			says: "authorization_url is missing: write it into the grant, or issuer in place of token_url",
		},
		"no authorization endpoint": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "authorization_endpoint") }},
			says:   "the server's metadata names no such endpoint: write authorization_url into the grant",
		},
		"authorization_url in the clear": {
			edit: []string{callback, callback + "\nauthorization_url {env.TEST_CLEAR}"}, says: "authorization_url is http to idp.example.com",
		},
		"no client_id": {edit: []string{"client_id app", "client_id {env.TEST_EMPTY}"}, says: "client_id"},
		"client_id in a file alone": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token", callback, callback + "\nauthorization_url $SERVER/authorize", "client_id app\n", "", "client_secret_basic {env." + secretEnv + "}", "jwt_file /nowhere/jwt"},
			says: "client_id is missing: a login needs it",
		},
		"PKCE by plain alone": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { m["code_challenge_methods_supported"] = []string{"plain"} }},
			says:   "code_challenge_method S256 (RFC 7636), and the server's metadata has plain alone",
		},
		"another issuer": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { m["issuer"] = "https://idp.example.com" }},
			says:   "it is for the issuer https://idp.example.com",
		},
		"a scope that is empty": {edit: []string{"client_id", "scopes {env.TEST_EMPTY}\nclient_id"}, says: "scopes: "},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			t.Setenv("TEST_CALLBACK", "http://10.0.0.1:8400/callback")
			t.Setenv("TEST_CLEAR", "http://idp.example.com/authorize")
			t.Setenv("TEST_EMPTY", "")
			edit := slices.Clone(tc.edit)
			for i := range edit {
				edit[i] = strings.ReplaceAll(edit[i], "$SERVER", p.server.URL())
			}
			caddyfile := strings.NewReplacer(edit...).Replace(p.caddyfile(p.loginBlock(callback), injecting))
			out, err := p.login(caddyfile, func(string) { t.Error("a browser is opened") })
			if err == nil || !strings.Contains(err.Error(), tc.says) || out != "" {
				t.Errorf("got %v, want an error that says %q\n%s", err, tc.says, out)
			}
			p.nothingStored()
		})
	}
}

// nothingStored checks that no refresh token is kept.
func (p *parts) nothingStored() {
	p.t.Helper()
	if _, err := os.Stat(filepath.Join(p.storage, "upstream_auth")); !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("something is stored: %v", p.files())
	}
}

// TestLoginPort: the port of the redirect URI is another's, be it that of one
// family alone.
func TestLoginPort(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	for _, host := range []string{"127.0.0.1", "::1"} {
		port := freePort(t)
		taken, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		for _, at := range []string{host, "localhost"} {
			callback := "http://" + net.JoinHostPort(at, port) + "/callback"
			out, err := p.login(p.caddyfile(p.loginBlock("redirect_uri "+callback), injecting), func(string) { t.Error("a browser is opened") })
			if err == nil || !strings.Contains(err.Error(), "the redirect_uri "+callback+" cannot be listened on") || !strings.Contains(err.Error(), "end it, or take another one") || out != "" {
				t.Errorf("%s taken, for %s: got %v\n%s", host, at, err, out)
			}
		}
		for _, free := range []string{"127.0.0.1", "::1"} { // nothing is left open
			if l, err := net.Listen("tcp", net.JoinHostPort(free, port)); err == nil {
				_ = l.Close()
			} else if free != host {
				t.Error(err)
			}
		}
	}
	p.nothingStored()
}

// TestLoginCallback: what the browser may bring instead of a code.
func TestLoginCallback(t *testing.T) {
	odd := authserver.Returned(func(q url.Values) {
		q.Del("code")
		q.Set("error", "access_denied\x1b[31m")
		q.Set("error_description", "<script>alert(1)</script>\r\nERROR 登录失败 \u202e\x00 "+strings.Repeat("x", 500))
	})
	for name, tc := range map[string]struct {
		fault authserver.Fault
		edit  func(map[string]any) // of the metadata
		says  []string
		page  string
	}{
		"the person says no": {
			fault: authserver.Denied(), says: []string{"the server refused the login: access_denied: the person said no"}, page: "The login failed",
		},
		"odd words": {fault: odd, says: []string{"access_denied [31m: <script>alert(1)</script>  ERROR 登录失败"}, page: "The login failed"},
		"an error without iss": {
			fault: authserver.Chain(authserver.WrongIssuer(""), authserver.Denied()), says: []string{"access_denied"}, page: "The login failed",
		},
		"another iss": {
			fault: authserver.WrongIssuer("https://evil.example.com"),
			says:  []string{"the browser came from another server than http://", "(iss is https://evil.example.com)"}, page: "The login failed",
		},
		"another iss that nobody promised": {
			fault: authserver.WrongIssuer("https://evil.example.com"),
			edit:  func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") },
			says:  []string{"the browser came from another server"}, page: "The login failed",
		},
		"no iss": {
			fault: authserver.WrongIssuer(""), says: []string{"the browser brought no iss, which the metadata of http://", "(RFC 9207)"}, page: "The login failed",
		},
		"no code": {
			fault: authserver.Returned(func(q url.Values) { q.Del("code") }), says: []string{"neither a code nor an error"}, page: "The login failed",
		},
		"two codes": {
			fault: authserver.Returned(func(q url.Values) { q.Add("code", "x") }), says: []string{"more than one code"}, page: "The login failed",
		},
		"two iss": {
			fault: authserver.Returned(func(q url.Values) { q.Add("iss", "x") }), says: []string{"more than one iss"}, page: "The login failed",
		},
		"the code of another login": {
			fault: authserver.Returned(func(q url.Values) { q.Set("code", "stolen-code") }),
			says:  []string{"exchanging the code for a token: refused: HTTP 400, invalid_grant: the code is unknown"}, page: "done its part",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, authserver.Config{MetadataEdit: tc.edit})
			p.auth.Authorization.SetFault(tc.fault)
			var page answer
			_, err := p.login(p.loginConfig(), func(address string) { page = browse(t, address) })
			if err == nil {
				t.Fatal("it is a success")
			}
			for _, says := range tc.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("got %v, want %q", err, says)
				}
			}
			if !strings.Contains(page.body, tc.page) || strings.Contains(page.body, "<script") {
				t.Errorf("the page: %s", page.body)
			}
			if strings.ContainsAny(err.Error(), "\x00\r\n\x1b\u202e") || len(err.Error()) > 1000 || strings.Contains(err.Error(), "stolen-code") {
				t.Errorf("got %q", err)
			}
			p.nothingStored()
		})
	}
}

// told is a writer that notes when a text is written.
type told struct {
	text string
	done chan struct{}
	n    int
}

func (w *told) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(w.text)) {
		if w.n++; w.n == 1 {
			close(w.done)
		}
	}
	return len(b), nil
}

// TestLoginStray: an answer of another login, a page at another path and one
// that only looks are no answer; the right one then is.
func TestLoginStray(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	l, out := p.begin(p.loginConfig())
	defer l.close()
	waiting := &told{text: "not of this login (its state is another); still waiting", done: make(chan struct{})}
	l.out = io.MultiWriter(out, waiting)
	l.open = func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		callback := q.Get("redirect_uri")
		for _, path := range []string{callback + "/", callback + "x", strings.TrimSuffix(callback, "/callback"), strings.TrimSuffix(callback, "callback") + "favicon.ico"} {
			if a := browse(t, path+"?code=x&state="+q.Get("state")); a.status != http.StatusNotFound {
				t.Errorf("%s: got %d", path, a.status)
			}
		}
		p.auth.Authorization.FailNext(2, authserver.WrongState())
		for range 2 {
			if a := browse(t, address); a.status != http.StatusBadRequest || !strings.Contains(a.body, "not of the login that is under way") {
				t.Errorf("another state: got %d %s", a.status, a.body)
			}
		}
		for _, query := range []string{"", "?code=x", "?code=x&state=", "?code=x&state=" + q.Get("state") + "&state=" + q.Get("state"), "?error=x"} {
			if a := browse(t, callback+query); a.status != http.StatusBadRequest || !strings.Contains(a.body, "Not this login") {
				t.Errorf("%s: got %d %s", query, a.status, a.body)
			}
		}
		for _, method := range []string{http.MethodHead, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, callback+"?code=x&state="+q.Get("state"), nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: got %d", method, res.StatusCode)
			}
		}
		go func() {
			<-waiting.done
			if a, err := tryBrowse(t.Context(), address); err != nil || a.status != http.StatusOK {
				t.Errorf("the right one: got %d %s, %v", a.status, a.body, err)
			}
		}()
	}
	if err := l.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if waiting.n != 1 || !strings.Contains(out.String(), "Logged in.") {
		t.Errorf("got %s", out)
	}
	if n := p.auth.Requests(); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// TestLoginTwice: a browser that comes back once more changes nothing.
func TestLoginTwice(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	_, err := p.login(p.loginConfig(), func(address string) {
		if a := browse(t, address); a.status != http.StatusOK {
			t.Errorf("the first time: got %d %s", a.status, a.body)
		}
		if a := browse(t, address); a.status != http.StatusBadRequest || !strings.Contains(a.body, "answered before") {
			t.Errorf("the second time: got %d %s", a.status, a.body)
		}
	})
	if n := p.auth.Requests(); err != nil || n != 1 {
		t.Errorf("%d token requests, want 1; %v", n, err)
	}
}

// TestLoginPage: what is shown to the browser is fit for it.
func TestLoginPage(t *testing.T) {
	b := newCallback("s", nil)
	b.path = "/"
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?state=s&code=x", nil))
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if r := <-b.done; r.code != "x" || r.err != nil {
		t.Errorf("got %v", r.err)
	}
}

// TestLoginStolenCode: a code that belongs to another login's verifier is of no
// use (RFC 7636).
func TestLoginStolenCode(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	_, err := p.login(p.loginConfig(), func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("code_challenge", oauth2.S256ChallengeFromVerifier(oauth2.GenerateVerifier()))
		u.RawQuery = q.Encode()
		browse(t, u.String())
	})
	if err == nil || !strings.Contains(err.Error(), "invalid_grant: code_verifier does not fit the code_challenge") {
		t.Errorf("got %v", err)
	}
	p.nothingStored()
}

// TestLoginAnswer: what may come for the code.
func TestLoginAnswer(t *testing.T) {
	nonces := 0
	for name, tc := range map[string]struct {
		config authserver.Config
		fault  authserver.Fault
		keys   authserver.Fault
		says   string
	}{
		"no refresh token": {config: authserver.Config{NoRefreshToken: true}, says: "allow refresh tokens for this client at the server"},
		"no access token": {
			fault: authserver.Answer(func(m map[string]any) { delete(m, "access_token") }), says: "the answer has no access_token",
		},
		"down":       {fault: authserver.Down(), says: "exchanging the code for a token: unreachable: HTTP 503"},
		"a page":     {fault: authserver.Raw(http.StatusOK, "text/html", "<html>"), says: "the answer is a page"},
		"a redirect": {fault: authserver.Redirect(http.StatusTemporaryRedirect, "https://evil.example.com/"), says: "a redirect, which is never followed"},
		"echo": {
			fault: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				_ = r.ParseForm()
				authserver.Invalid("invalid_grant", "bad "+r.Form.Get("code")+" and "+r.Form.Get("code_verifier"))(w, r, nil)
			},
			says: "invalid_grant: bad *** and ***",
		},
		"signature": {
			fault: authserver.Answer(func(m map[string]any) {
				text := m["id_token"].(string)
				last := strings.LastIndexByte(text, '.') + 1
				m["id_token"] = text[:last] + strings.Repeat("A", len(text)-last)
			}),
			says: "the ID token that came with the access token cannot be trusted, so nothing is stored: failed to verify",
		},
		"no signature": {
			fault: authserver.Answer(func(m map[string]any) {
				parts := strings.Split(m["id_token"].(string), ".")
				m["id_token"] = "eyJhbGciOiJub25lIn0." + parts[1] + "."
			}),
			says: "so nothing is stored",
		},
		"no JWT": {
			fault: authserver.Answer(func(m map[string]any) { m["id_token"] = "s3cret\x1b[2J" }), says: "cannot be trusted, so nothing is stored",
		},
		"an algorithm that is not announced": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { m["id_token_signing_alg_values_supported"] = []string{"RS256"} }},
			says:   "cannot be trusted, so nothing is stored",
		},
		"for another client": {
			config: authserver.Config{IDTokenEdit: func(c map[string]any) { c["aud"] = "other" }}, says: `expected audience "app" got ["other"]`,
		},
		"of another server": {
			config: authserver.Config{IDTokenEdit: func(c map[string]any) { c["iss"] = "https://evil.example.com" }}, says: "issued by a different provider",
		},
		"expired": {
			config: authserver.Config{IDTokenEdit: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }}, says: "token is expired",
		},
		"another nonce": {
			config: authserver.Config{IDTokenEdit: func(c map[string]any) { nonces++; c["nonce"] = "other" }}, says: "is not of this login (its nonce is another), so nothing is stored",
		},
		"no nonce": {
			config: authserver.Config{IDTokenEdit: func(c map[string]any) { delete(c, "nonce") }}, says: "its nonce is another",
		},
		"another nonce, no keys": {
			config: authserver.Config{
				IDTokenEdit:  func(c map[string]any) { c["nonce"] = "other" },
				MetadataEdit: func(m map[string]any) { delete(m, "jwks_uri") },
			},
			says: "its nonce is another",
		},
		"keys that cannot be had": {
			keys: authserver.Raw(http.StatusInternalServerError, "text/plain", "\x1b[2J"+strings.Repeat("x", 5000)), says: "get keys failed: 500",
		},
		"keys elsewhere": {keys: authserver.Redirect(http.StatusFound, "https://evil.example.com/keys"), says: "get keys failed: 302"},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			p.auth.SetFault(tc.fault)
			p.auth.Keys.SetFault(tc.keys)
			_, err := p.login(p.loginConfig("scopes openid"), func(address string) { browse(t, address) })
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want an error that says %q", err, tc.says)
			}
			if text := err.Error(); strings.ContainsAny(text, "\x1b\n") || len(text) > 700 || strings.Contains(text, "s3cret") {
				t.Errorf("got %q", text)
			}
			p.nothingStored()
		})
	}
	if nonces != 1 {
		t.Errorf("%d ID tokens with another nonce", nonces)
	}
}

// TestLoginLate: nobody comes back, or the person gives up.
func TestLoginLate(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	l, _ := p.begin(p.loginConfig())
	defer l.close()
	l.wait = time.Millisecond
	err := l.run(t.Context())
	for _, says := range []string{"did not come back in time", "registered at the server exactly so", "--device", "http://127.0.0.1:"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.wait, l.open = time.Minute, func(string) { cancel() }
	if err := l.run(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: got %v", err)
	}
	// the code came in time, and the person gave up while it was exchanged
	ctx, cancel = context.WithCancel(t.Context())
	p.auth.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		cancel()
		next.ServeHTTP(w, r)
	})
	l.open = func(address string) { browse(t, address) }
	if err := l.run(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: got %v", err)
	}
	p.nothingStored()
}

// TestLoginOver: a login in place of one that is there, or of what cannot be
// read.
func TestLoginOver(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	caddyfile := p.loginConfig()
	login := func() string {
		t.Helper()
		out, err := p.login(caddyfile, func(address string) { browse(t, address) })
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	login()
	path, first := p.file()
	out := login()
	_, second := p.file()
	if first == second || strings.Contains(out, "could not be read") {
		t.Errorf("stored is %s\n%s", second, out)
	}
	cut := second[:len(second)/2]
	if err := os.WriteFile(path, []byte(cut), 0o600); err != nil {
		t.Fatal(err)
	}
	out = login()
	if !strings.Contains(out, "could not be read") || !strings.Contains(out, filepath.Base(path)+".kept-") || !strings.Contains(out, "Logged in.") {
		t.Errorf("got %s", out)
	}
	p.keptAside(path, cut)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
}

// keptAside checks that there is a copy beside a file.
func (p *parts) keptAside(path, content string) {
	p.t.Helper()
	files := p.files()
	delete(files, path)
	if kept := slices.Collect(maps.Values(files)); len(kept) != 1 || kept[0] != content {
		p.t.Errorf("kept aside are %q, want %q", kept, content)
	}
}

// TestLoginStorage: a storage that takes nothing is told, and where it is.
func TestLoginStorage(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	if err := os.WriteFile(p.storage, []byte("a file in place of the folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := p.login(p.loginConfig(), func(address string) { browse(t, address) })
	if err == nil || !strings.Contains(err.Error(), "storing the refresh token in the folder "+p.storage) {
		t.Errorf("got %v", err)
	}
}

// TestLoginCommand: the command line's own part.
func TestLoginCommand(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	path := writeFile(t, "Caddyfile", []byte(p.loginConfig()))
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no credential":      {[]string{"login"}, "accepts 1 arg(s), received 0"},
		"two credentials":    {[]string{"login", "crm", "erp", "--config", path}, "accepts 1 arg(s), received 2"},
		"unknown credential": {[]string{"login", "erp", "--config", path}, "credential 'erp' is not defined; defined are: crm"},
		"no time":            {[]string{"login", "crm", "--config", path, "--timeout", "0s"}, "--timeout: 0s is out of range"},
		"nobody comes":       {[]string{"login", "crm", "--config", path, "--timeout", "100ms", "--no-browser"}, "login for credential 'crm': the browser did not come back in time"},
		"no Caddyfile":       {[]string{"login", "crm"}, "there is no Caddyfile in this folder: name the configuration with --config"},
		"no such file":       {[]string{"login", "crm", "--config", path + "x"}, "no such file"},
		"unknown adapter":    {[]string{"login", "crm", "--config", path, "--adapter", "x"}, "unrecognized config adapter: x"},
		"no environment":     {[]string{"login", "crm", "--config", path, "--envfile", path + "x"}, "--envfile: open "},
		"unknown at logout":  {[]string{"logout", "erp", "--config", path}, "credential 'erp' is not defined; defined are: crm"},
		"nothing to log out": {[]string{"logout"}, "accepts 1 arg(s), received 0"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.caddy(append([]string{"upstream-auth"}, tc.args...)...)
			if text := c.wait(false); !strings.Contains(text, tc.says) {
				t.Errorf("got %s, want %q", text, tc.says)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		c := p.caddy("upstream-auth", "login", "crm", "--config", path, "--no-browser")
		c.address()
		if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if text := c.wait(false); !strings.Contains(text, "login for credential 'crm': interrupted: nothing is stored") {
			t.Errorf("got %s", text)
		}
	})
	p.nothingStored()
}

// TestLoginOpens: the desktop is asked to show the address, as it stands.
func TestLoginOpens(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	c := p.prepare("upstream-auth", "login", "crm", "--config", writeFile(t, "Caddyfile", []byte(p.loginConfig("param a $(id)"))))
	opened := filepath.Join(c.cmd.Dir, "opened")
	for _, name := range []string{"xdg-open", "open"} { // of Linux and of macOS
		if err := os.WriteFile(filepath.Join(c.cmd.Dir, name), []byte("#!/bin/sh\nprintf '%s|%s' $# \"$1\" >\"$HOME/opened.new\" && mv \"$HOME/opened.new\" \"$HOME/opened\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c.cmd.Env = append(c.cmd.Env, "PATH="+c.cmd.Dir+":"+os.Getenv("PATH"))
	c.start()
	var got []byte
	eventually(t, "a browser", func() (done bool) {
		var err error
		got, err = os.ReadFile(opened)
		return err == nil
	})
	address := c.address()
	if string(got) != "1|"+address {
		t.Errorf("opened is %s, want %s", got, address)
	}
	browse(t, address)
	c.wait(true)
}

// TestPrinted: words of a server are one line that does nothing to a terminal.
func TestPrinted(t *testing.T) {
	for in, want := range map[string]string{
		"plain words":                            "plain words",
		"登录失败":                                   "登录失败",
		"a\nb\r\tc\x1b]0;x\a\u009b1m":            "a b  c ]0;x  1m",
		"\u202eevil\u200b\ufeff":                 " evil  ",
		"bad \xff\xfe":                           "bad  ",
		strings.Repeat("é", 300):                 strings.Repeat("é", 200),
		"<b>stays: a terminal reads no HTML</b>": "<b>stays: a terminal reads no HTML</b>",
	} {
		if got := printed(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzCallback: whatever a browser brings, it is answered once, and what is said
// of it fits a terminal.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"state=s&code=x", "state=s&error=a&error_description=%1b%00", "state=s&iss=https://idp.example.com&code=x", "state=s;code=x", "state=s&state=s", "%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		b := newCallback("s", &oauth.Metadata{Issuer: "https://idp.example.com", IssParameterSupported: true})
		b.path = "/"
		for range 2 {
			b.ServeHTTP(httptest.NewRecorder(), &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}})
		}
		select {
		case r := <-b.done:
			if (r.code == "") == (r.err == nil) {
				t.Errorf("got a code and an error, or none of both")
			}
			if r.err != nil && strings.ContainsFunc(r.err.Error(), func(c rune) bool { return c < 0x20 || c == 0x7f }) {
				t.Errorf("got %q", r.err)
			}
		case <-b.stray:
		default:
			t.Error("neither an answer nor a stray one")
		}
	})
}
