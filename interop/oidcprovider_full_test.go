package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fullProvider is an oidc-provider on loopback with all that it can do. Its
// clients are those of oidc-provider/clients.mjs.
type fullProvider struct {
	*process
	opts     fullOptions
	dir      string
	issuer   string
	port     int
	mtlsPort int // asks for a client's certificate; 0 without TLS

	certs      *certAuthority // nil without TLS
	selfSigned []certFiles    // of tls-self-signed, both good
	client     *http.Client   // trusts the server
}

// fullOptions are what a fullProvider is told.
type fullOptions struct {
	ttl        time.Duration // of access tokens; a minute where it is 0
	refreshTTL time.Duration // of refresh tokens; a day where it is 0
	delay      time.Duration // of each token request
	tls        bool          // HTTPS, client certificates, and clients that have them
	keep       bool          // what it granted outlives a kill
}

// startFullProvider starts one. Killed, it can be started again, on the same
// ports and with the same keys.
func startFullProvider(t *testing.T, opts fullOptions) *fullProvider {
	t.Helper()
	if opts.ttl == 0 {
		opts.ttl = time.Minute
	}
	if opts.refreshTTL == 0 {
		opts.refreshTTL = 24 * time.Hour
	}
	p := &fullProvider{opts: opts, dir: t.TempDir(), port: freePort(t), client: http.DefaultClient}
	if opts.tls {
		p.mtlsPort = freePort(t)
		p.certs = newCertAuthority(t, p.dir)
		p.certs.issue(t, "server", nil)
		var both []byte
		for _, name := range []string{"tls-self-signed", "tls-self-signed-2"} {
			files := selfSigned(t, p.dir, name)
			p.selfSigned = append(p.selfSigned, files)
			text, err := os.ReadFile(files.cert)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, text...)
		}
		if err := os.WriteFile(p.file("self-signed.crt"), both, 0o600); err != nil {
			t.Fatal(err)
		}
		p.client = p.certs.httpClient(t, nil)
	}
	p.start(t)
	t.Cleanup(func() {
		p.stop(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, &p.output)
		}
	})
	return p
}

func (p *fullProvider) file(name string) string { return filepath.Join(p.dir, name) }

// start runs the server, the first time or again.
func (p *fullProvider) start(t *testing.T) {
	t.Helper()
	args := []string{"server.mjs",
		"--port=" + strconv.Itoa(p.port),
		"--mtls-port=" + strconv.Itoa(p.mtlsPort),
		"--ttl=" + strconv.Itoa(int(p.opts.ttl/time.Second)),
		"--refresh-ttl=" + strconv.Itoa(int(p.opts.refreshTTL/time.Second)),
		"--delay=" + strconv.Itoa(int(p.opts.delay/time.Millisecond)),
		"--keys-dir=" + p.dir}
	if p.opts.keep {
		args = append(args, "--state="+p.file("state"))
	}
	if p.opts.tls {
		args = append(args,
			"--tls-cert="+p.file("server.crt"),
			"--tls-key="+p.file("server.key"),
			"--tls-ca="+p.certs.file,
			"--tls-self-signed="+p.file("self-signed.crt"))
	}
	cmd := exec.Command("node", args...)
	cmd.Dir = providerDir
	p.process = start(t, "oidc-provider", cmd)
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	ready, err := p.await(ctx, func(line string) bool { return strings.HasPrefix(line, `{"issuer"`) })
	if err != nil {
		t.Fatalf("%v\n%s", err, &p.output)
	}
	var at struct{ Issuer string }
	if err := json.Unmarshal([]byte(ready), &at); err != nil {
		t.Fatalf("oidc-provider: its ready line %q: %v", ready, err)
	}
	if p.issuer == "" { // it stays the same, and others are reading it
		p.issuer = at.Issuer
	}
}

func (p *fullProvider) tokenURL() string { return p.issuer + "/token" }

// mtlsURL is where the endpoints are that ask for a client's certificate.
func (p *fullProvider) mtlsURL() string { return "https://127.0.0.1:" + strconv.Itoa(p.mtlsPort) }

// keyFile holds the private key of a client of private_key_jwt, in PEM. Beside
// it is the same as a JWK, in <client ID>.jwk.
func (p *fullProvider) keyFile(clientID string) string { return p.file(clientID + ".pem") }

// control asks for something that is there for the tests.
func (p *fullProvider) control(t *testing.T, path, contentType string, body io.Reader, answer any) {
	t.Helper()
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.issuer+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header["Idempotency-Key"] = nil // has it sent again where the server has just closed the connection
	if err := fetch(p.client, req, answer); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

const formType = "application/x-www-form-urlencoded"

func (p *fullProvider) stats(t *testing.T) serverStats {
	t.Helper()
	var s serverStats
	p.control(t, "/stats", "", nil, &s)
	return s
}

// initial begins a chain of refresh tokens for a client, as a login does that
// asked for "offline_access read write"; more may name another scope, a
// resource, and the thumbprint jkt of the key that the chain is bound to.
func (p *fullProvider) initial(t *testing.T, clientID string, more ...url.Values) string {
	t.Helper()
	form := url.Values{"client_id": {clientID}}
	for _, values := range more {
		for name := range values {
			form[name] = values[name]
		}
	}
	var first tokens
	p.control(t, "/initial", formType, strings.NewReader(form.Encode()), &first)
	return first.RefreshToken
}

// lose has the server process the next n token requests and close the
// connections without an answer.
func (p *fullProvider) lose(t *testing.T, n int) {
	t.Helper()
	p.control(t, "/fault", "application/json", bytes.NewReader(fmt.Appendf(nil, `{"lost": %d}`, n)), nil)
}

// confirm has the person type a device's code in and agree, or not.
func (p *fullProvider) confirm(t *testing.T, userCode string, agree bool) {
	t.Helper()
	form := url.Values{"user_code": {userCode}}
	if !agree {
		form.Set("deny", "1")
	}
	p.control(t, "/confirm", formType, strings.NewReader(form.Encode()), nil)
}

// fullIntrospection is an answer of RFC 7662 with what a token is bound to.
type fullIntrospection struct {
	introspection
	Sub       string
	Aud       string
	TokenType string `json:"token_type"`
	Cnf       struct {
		Jkt     string // of a key (RFC 9449)
		X5tS256 string `json:"x5t#S256"` // of a certificate (RFC 8705)
	}
}

// inspect asks about an access token, or a refresh token, as the upstream does.
func (p *fullProvider) inspect(ctx context.Context, token string) (fullIntrospection, error) {
	var in fullIntrospection
	req, err := newForm(ctx, p.issuer+"/token/introspection", url.Values{"token": {token}})
	if err != nil {
		return in, err
	}
	req.SetBasicAuth(upstreamID, upstreamSecret)
	err = fetch(p.client, req, &in)
	return in, err
}

// introspect is inspect with what is the same for all servers.
func (p *fullProvider) introspect(ctx context.Context, token string) (introspection, error) {
	in, err := p.inspect(ctx, token)
	return in.introspection, err
}

// browse opens an address of the server's as a person's browser does, cookies
// included, and returns where it was sent in the end: the client's redirect
// URI, which is not opened. A login_hint of "nobody" is refused.
func (p *fullProvider) browse(t *testing.T, address string) (*url.URL, error) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	base := p.issuer + "/"
	browser := &http.Client{
		Transport: p.client.Transport,
		Jar:       jar,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) > 10 {
				return errors.New("it redirects for ever")
			}
			if !strings.HasPrefix(next.URL.String(), base) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	at, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s: no redirect: %s: %s", resp.Request.URL.Path, resp.Status, text)
	}
	return at, nil
}

func (p *fullProvider) authURL() string { return p.issuer + "/auth" }

func (p *fullProvider) path(name string) string {
	return map[string]string{
		"device":     "/device/auth",
		"resource":   "/me",
		"revocation": "/token/revocation",
	}[name]
}

var _ soloServer = (*fullProvider)(nil)
