package interop

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// redirectURI has a port of its own (RFC 8252 section 7.3).
const redirectURI = "http://127.0.0.1:1/callback"

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// soloClient is a client without a Caddy.
type soloClient struct {
	id     string
	method string // client authentication, as the server counts it
	prove  func(req *http.Request, form url.Values)
	more   url.Values // in each form
	setup  bool       // makes ready for a test: a front does not count what it asks
	dpop   *dpopKey   // makes DPoP proofs where there is one
	cert   *certFiles // that http shows, if any
	http   *http.Client
	base   string // of the endpoints
	server soloServer
}

// soloServer is what differs between servers.
type soloServer interface {
	// authURL is where a person's browser is sent.
	authURL() string
	// path is that of an endpoint: device, resource, revocation.
	path(name string) string
	// browse opens an address as a person does who agrees to all, and returns
	// the redirect URI that it leads to, which is not opened.
	browse(t *testing.T, address string) (*url.URL, error)
	// confirm has the person type a device's code in, and agree or not.
	confirm(t *testing.T, userCode string, agree bool)
}

// soloAnswer is one of the token endpoint's.
type soloAnswer struct {
	tokens
	status int
	header http.Header
	empty  bool // no body
}

// post sends a form, with a DPoP proof where the client makes them.
func (c *soloClient) post(t *testing.T, path string, form url.Values) (int, http.Header, []byte, error) {
	t.Helper()
	form = maps.Clone(form)
	maps.Copy(form, c.more)
	req, err := newForm(t.Context(), c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.setup {
		req.Header.Set(setupHeader, "1")
	}
	c.prove(req, form)
	if c.dpop != nil {
		req.Header.Set("DPoP", c.dpop.proof(t, req.Method, req.URL.String(), ""))
	}
	req.Body = io.NopCloser(strings.NewReader(form.Encode()))
	req.ContentLength = int64(len(form.Encode()))
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if nonce := resp.Header.Get("DPoP-Nonce"); nonce != "" && c.dpop != nil {
		c.dpop.nonce = nonce
	}
	return resp.StatusCode, resp.Header, text, err
}

// ask sends a token request, once more where a nonce is wanted.
func (c *soloClient) ask(t *testing.T, form url.Values) soloAnswer {
	t.Helper()
	a := c.askOnce(t, form)
	if a.Error == "use_dpop_nonce" {
		a = c.askOnce(t, form)
	}
	return a
}

func (c *soloClient) askOnce(t *testing.T, form url.Values) soloAnswer {
	t.Helper()
	status, header, text, err := c.post(t, "/token", form)
	if err != nil {
		t.Fatal(err)
	}
	a := soloAnswer{status: status, header: header, empty: len(text) == 0}
	if a.empty {
		return a
	}
	if err := json.Unmarshal(text, &a.tokens); err != nil {
		t.Fatalf("%s: %d: %q", c.id, status, text)
	}
	return a
}

// refresh spends a refresh token.
func (c *soloClient) refresh(t *testing.T, refreshToken string, more ...string) soloAnswer {
	t.Helper()
	form := fields("grant_type", "refresh_token", "refresh_token", refreshToken)
	maps.Copy(form, fields(more...))
	return c.ask(t, form)
}

// get asks for something that is behind an access token: the status, and what
// WWW-Authenticate says.
func (c *soloClient) get(t *testing.T, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+c.server.path("resource"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if c.dpop != nil {
		req.Header.Set("Authorization", "DPoP "+token)
		req.Header.Set("DPoP", c.dpop.proof(t, req.Method, req.URL.String(), token))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if nonce := resp.Header.Get("DPoP-Nonce"); nonce != "" && c.dpop != nil {
		c.dpop.nonce = nonce
	}
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
}

// authorize asks for a code as a person's browser does, with PKCE: what came to
// the redirect URI, and the verifier.
func (c *soloClient) authorize(t *testing.T, more ...string) (got url.Values, verifier string) {
	t.Helper()
	verifier = rand.Text() + rand.Text() // 43 characters at least, RFC 7636 section 4.1
	challenge := sha256.Sum256([]byte(verifier))
	state := rand.Text()
	query := fields(
		"response_type", "code",
		"client_id", c.id,
		"redirect_uri", redirectURI,
		"scope", "openid offline_access read write",
		"prompt", "consent", // or there is no offline_access
		"state", state,
		"code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]),
		"code_challenge_method", "S256",
	)
	maps.Copy(query, fields(more...))
	at, err := c.server.browse(t, c.server.authURL()+"?"+query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	got = at.Query()
	if got.Get("state") != state {
		t.Errorf("sent to %s; want the state %s", at, state)
	}
	return got, verifier
}

// login gets a code and exchanges it.
func (c *soloClient) login(t *testing.T, more ...string) soloAnswer {
	t.Helper()
	got, verifier := c.authorize(t, more...)
	if got.Get("error") != "" {
		return soloAnswer{tokens: tokens{Error: got.Get("error")}}
	}
	return c.ask(t, fields("grant_type", "authorization_code", "code", got.Get("code"), "redirect_uri", redirectURI, "code_verifier", verifier))
}

// device gets a user code, has the person confirm it, and asks for the tokens.
func (c *soloClient) device(t *testing.T) soloAnswer {
	t.Helper()
	shown := c.begin(t)
	c.server.confirm(t, shown.UserCode, true)
	return c.ask(t, fields("grant_type", deviceGrant, "device_code", shown.DeviceCode))
}

// deviceAnswer is one of the device authorization endpoint (RFC 8628).
type deviceAnswer struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in"`
	Interval                int    // seconds
}

func (c *soloClient) begin(t *testing.T) deviceAnswer {
	t.Helper()
	status, _, text, err := c.post(t, c.server.path("device"), fields("client_id", c.id, "scope", "openid offline_access read write"))
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: device authorization: %d %s, %v", c.id, status, text, err)
	}
	var shown deviceAnswer
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	return shown
}

// fetch decodes what a server answers to a request that it should like.
func fetch(client *http.Client, req *http.Request, answer any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %s", req.URL.Path, resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// fields are the names and values of a form, in turn.
func fields(pairs ...string) url.Values {
	values := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values
}

// withBasic encodes both as RFC 6749 section 2.3.1 has it, withRawBasic does not.
func withBasic(id, secret string) func(*http.Request, url.Values) {
	return func(req *http.Request, _ url.Values) {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
}

func withRawBasic(id, secret string) func(*http.Request, url.Values) {
	return func(req *http.Request, _ url.Values) { req.SetBasicAuth(id, secret) }
}

func withPost(id, secret string) func(*http.Request, url.Values) {
	return func(_ *http.Request, form url.Values) {
		form.Set("client_id", id)
		form.Set("client_secret", secret)
	}
}

// withName is for none, and for a certificate.
func withName(id string) func(*http.Request, url.Values) {
	return func(_ *http.Request, form url.Values) { form.Set("client_id", id) }
}

// withAssertion signs for an audience, or a list of them; nil is the endpoint.
func withAssertion(t *testing.T, id string, alg jose.SignatureAlgorithm, key, audience any) func(*http.Request, url.Values) {
	t.Helper()
	return func(req *http.Request, form url.Values) {
		audience := audience
		if audience == nil {
			audience = req.URL.String()
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", clientAssertion(t, id, alg, key, audience))
	}
}
