package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/interop/freeport"
)

const (
	glewlwydName = "glewlwyd 2.7.5"
	glewlwydDir  = "glewlwyd"

	// the tables, and the administrator, that the package brings
	glewlwydTables = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
)

// glewlwyd is one on loopback. Its clients are those of glewlwyd/setup.json.
type glewlwyd struct {
	*process
	opts   glewlwydOptions
	dir    string
	port   int
	behind *url.URL // its own
	url    string   // by which the tests' clients reach it: that of front, or its own with TLS
	issuer string   // of its OpenID Connect plugin
	front  *front   // counts; nil with TLS

	certs  *certAuthority // nil without TLS
	client *http.Client   // trusts the server
	alice  *http.Client   // the browser of the one person there is
}

// glewlwydOptions are what a glewlwyd is told.
type glewlwydOptions struct {
	ttl          time.Duration // of access tokens; a minute where it is 0
	refreshTTL   time.Duration // of refresh tokens; a day where it is 0
	nonce        bool          // DPoP proofs need a nonce of the server's, every other one a new one
	redirectURIs []string      // of all clients; redirectURI where there are none

	// TLS is glewlwyd's own, which wants to see the client's certificate, so
	// that nothing stands before it: no delay, no counts, no lost answers.
	tls   bool
	delay time.Duration // of each token request
}

// startGlewlwyd starts one. Killed, it can be started again, and goes on where
// it was.
func startGlewlwyd(t *testing.T, opts glewlwydOptions) *glewlwyd {
	t.Helper()
	for _, name := range []string{"glewlwyd", "sqlite3"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is needed, to run %s; on Debian: apt-get install --no-install-recommends glewlwyd sqlite3: %v", name, glewlwydName, err)
		}
	}
	if opts.ttl == 0 {
		opts.ttl = time.Minute
	}
	if opts.refreshTTL == 0 {
		opts.refreshTTL = 24 * time.Hour
	}
	if opts.redirectURIs == nil {
		opts.redirectURIs = []string{redirectURI}
	}
	g := &glewlwyd{opts: opts, dir: t.TempDir(), port: freePort(t), client: http.DefaultClient}
	g.behind = &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(g.port)}
	tables := exec.Command("sqlite3", "glewlwyd.db", ".read "+glewlwydTables)
	tables.Dir = g.dir
	if out, err := tables.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%s: its tables: %v\n%s", glewlwydName, err, out)
	}
	if opts.tls {
		g.certs = newCertAuthority(t, g.dir)
		g.certs.issue(t, "server", nil)
		g.client = g.certs.httpClient(t, nil)
		g.behind.Scheme = "https"
		g.url = g.behind.String()
	} else {
		g.front = startFront(t, g.behind, "/api/oidc/token", opts.delay)
		g.url = g.front.URL
	}
	g.issuer = g.url + "/api/oidc"
	g.start(t)
	t.Cleanup(func() {
		g.stop(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s printed:\n%s", g.name, &g.output)
		}
	})
	g.setUp(t)
	return g
}

// freePort is for a server that takes no 0 for a port, or comes again on the
// same one.
func freePort(t *testing.T) int {
	t.Helper()
	_, text, err := net.SplitHostPort(freeport.Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (g *glewlwyd) start(t *testing.T) {
	t.Helper()
	config, err := filepath.Abs(filepath.Join(glewlwydDir, "glewlwyd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("glewlwyd", "--config-file="+config, "--env-variables", "--port="+strconv.Itoa(g.port))
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "GLWD_EXTERNAL_URL="+g.url)
	if g.opts.tls {
		cmd.Env = append(cmd.Env,
			"GLWD_USE_SECURE_CONNECTION=1",
			"GLWD_SECURE_CONNECTION_PEM_FILE="+filepath.Join(g.dir, "server.crt"),
			"GLWD_SECURE_CONNECTION_KEY_FILE="+filepath.Join(g.dir, "server.key"),
			"GLWD_SECURE_CONNECTION_CA_FILE="+g.certs.file)
	}
	g.process = start(t, "glewlwyd", cmd)
	// it says that it has started a moment before it listens
	poll(t, startDeadline, "glewlwyd's port", func(ctx context.Context) error {
		select {
		case <-g.ended:
			t.Fatalf("glewlwyd ended: %s\n%s", g.cmd.ProcessState, &g.output)
		default:
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", g.behind.Host)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// keyFile holds the private key of a client of private_key_jwt, in PEM.
func (g *glewlwyd) keyFile(clientID string) string { return filepath.Join(g.dir, clientID+".pem") }

// setup is glewlwyd/setup.json.
type setup struct {
	ClientProperties []string `json:"client_properties"` // beyond those that the package brings
	Scopes           []string
	User             map[string]any
	Plugin           map[string]any
	Client           map[string]any // what all clients share, unless they say otherwise
	Clients          []map[string]any
}

// setUp tells the server, by its own API, what there is.
func (g *glewlwyd) setUp(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(glewlwydDir, "setup.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s setup
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("setup.json: %v", err)
	}
	admin := g.signIn(t, "admin", "password")

	var database map[string]any
	g.api(t, admin, http.MethodGet, "/mod/client/database", nil, &database)
	format := database["parameters"].(map[string]any)["data-format"].(map[string]any)
	for _, name := range s.ClientProperties {
		format[name] = map[string]any{"multiple": false, "read": true, "write": true}
	}
	g.api(t, admin, http.MethodPut, "/mod/client/database", database, nil)
	g.api(t, admin, http.MethodPut, "/mod/client/database/reset", nil, nil)

	for _, name := range s.Scopes {
		g.api(t, admin, http.MethodPost, "/scope/", map[string]any{"name": name, "password_required": true, "password_max_age": 0}, nil)
	}
	g.api(t, admin, http.MethodPost, "/mod/plugin/", map[string]any{
		"module": "oidc", "name": "oidc", "display_name": "OpenID Connect", "enabled": true, "parameters": g.parameters(t, s.Plugin),
	}, nil)
	g.api(t, admin, http.MethodPost, "/user/", s.User, nil)
	g.alice = g.signIn(t, s.User["username"].(string), s.User["password"].(string))
	for _, one := range s.Clients {
		client := maps.Clone(s.Client)
		maps.Copy(client, one)
		client["redirect_uri"] = g.opts.redirectURIs
		id := client["client_id"].(string)
		if alg, signs := keyAlgorithms[id]; signs {
			client["jwks"] = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{newSigningKey(t, g.dir, id, alg)}}
		}
		g.api(t, admin, http.MethodPost, "/client/", client, nil)
		// she agrees to all that it may ever ask for
		g.api(t, g.alice, http.MethodPut, "/auth/grant/"+id, map[string]any{"scope": "openid read write"}, nil)
	}
}

// parameters of the plugin, with those that differ from one server to the next.
func (g *glewlwyd) parameters(t *testing.T, p map[string]any) map[string]any {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "1", Algorithm: string(jose.ES256)}}})
	if err != nil {
		t.Fatal(err)
	}
	p["iss"] = g.issuer
	p["jwks-private"] = string(jwks)
	p["access-token-duration"] = int(g.opts.ttl / time.Second)
	p["refresh-token-duration"] = int(g.opts.refreshTTL / time.Second)
	p["oauth-dpop-nonce-mandatory"] = g.opts.nonce
	if g.opts.tls {
		p["client-cert-source"] = "TLS"
	} else {
		delete(p, "client-cert-use-endpoint-aliases")
	}
	return p
}

// keyAlgorithms are those of the clients that sign their assertions.
var keyAlgorithms = map[string]jose.SignatureAlgorithm{
	"key-rs256": jose.RS256,
	"key-ps256": jose.PS256,
	"key-es256": jose.ES256,
	"key-eddsa": jose.EdDSA,
}

// signIn is a browser in which somebody has a session.
func (g *glewlwyd) signIn(t *testing.T, name, password string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{
		Transport:     g.client.Transport,
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	g.api(t, browser, http.MethodPost, "/auth/", map[string]any{"username": name, "password": password}, nil)
	return browser
}

// api asks glewlwyd's own API.
func (g *glewlwyd) api(t *testing.T, client *http.Client, method, path string, body, answer any) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, g.behind.String()+"/api"+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", method, path, resp.Status, said)
	}
	if answer != nil {
		if err := json.Unmarshal(said, answer); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

func (g *glewlwyd) tokenURL() string { return g.issuer + "/token" }

// mtlsTokenURL is the one at which a certificate counts.
func (g *glewlwyd) mtlsTokenURL() string { return g.issuer + "/mtls/token" }

func (g *glewlwyd) authURL() string { return g.issuer + "/auth" }

func (g *glewlwyd) path(name string) string {
	return map[string]string{
		"device":     "/device_authorization",
		"resource":   "/userinfo",
		"revocation": "/revoke",
	}[name]
}

// stats are the front's, which does not see chains being revoked. There are none
// with TLS.
func (g *glewlwyd) stats() serverStats { return g.front.stats() }

// lose has the server process the next n token requests and close the
// connections without an answer.
func (g *glewlwyd) lose(n int) { g.front.lose(n) }

// initial begins a chain of refresh tokens for a client, for the scope "read
// write", bound to the key where there is one. It is not counted as a request
// of the client's.
func (g *glewlwyd) initial(t *testing.T, clientID string, key ...*dpopKey) string {
	t.Helper()
	c := g.clientOf(t, clientID)
	c.setup = true
	if len(key) > 0 {
		c.dpop = key[0]
	}
	var first soloAnswer
	if c.method == "none" && c.cert == nil {
		first = c.login(t, glewlwydLogin...) // the password grant wants a confidential client
	} else {
		first = c.ask(t, fields("grant_type", "password", "username", "alice", "password", "password-of-alice", "scope", "read write"))
	}
	if first.RefreshToken == "" {
		t.Fatalf("%s: no refresh token for %s: %d %q\n%s", g.name, clientID, first.status, first.Error, &g.output)
	}
	if g.front != nil {
		g.front.count(func(s *serverStats) { s.Chains++ })
	}
	return first.RefreshToken
}

// glewlwydLogin is what an authorization request says at glewlwyd: it has no
// offline_access and no need of it.
var glewlwydLogin = []string{"prompt", "", "scope", "read write"}

// browse opens the address of an authorization request as Alice does, who has a
// session and agrees, and returns the redirect URI that it leads to, which is
// not opened. With scope openid, glewlwyd wants a nonce.
func (g *glewlwyd) browse(t *testing.T, address string) (*url.URL, error) {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	query := at.Query()
	query.Set("g_continue", "") // what the login page adds in the end
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := g.alice.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", req.URL.Path, resp.Status, err)
	}
	return to, nil
}

// confirm has Alice type a device's code in. She cannot say no: glewlwyd has no
// way for that.
func (g *glewlwyd) confirm(t *testing.T, userCode string, agree bool) {
	t.Helper()
	if !agree {
		t.Fatal("glewlwyd: nobody can refuse a device")
	}
	to, err := g.browse(t, g.issuer+"/device?"+url.Values{"code": {userCode}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if prompt := to.Query().Get("prompt"); prompt != "deviceComplete" {
		t.Fatalf("glewlwyd: device code %s: %s", userCode, prompt)
	}
}

// introspect asks as a resource server does: a client's own secret is good for
// its own tokens alone, so this takes an access token of the upstream's.
func (g *glewlwyd) introspect(ctx context.Context, token string) (introspection, error) {
	in, err := g.inspect(ctx, token)
	return in.introspection, err
}

// inspect is introspect with what a token is bound to.
func (g *glewlwyd) inspect(ctx context.Context, token string) (fullIntrospection, error) {
	var in fullIntrospection
	req, err := newForm(ctx, g.behind.String()+"/api/oidc/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"introspect"}})
	if err != nil {
		return in, err
	}
	req.SetBasicAuth(upstreamID, upstreamSecret)
	var own tokens
	if err := fetch(g.client, req, &own); err != nil {
		return in, err
	}
	if req, err = newForm(ctx, g.issuer+"/introspect", url.Values{"token": {token}}); err != nil {
		return in, err
	}
	req.Header.Set("Authorization", "Bearer "+own.AccessToken)
	err = fetch(g.client, req, &in)
	return in, err
}
