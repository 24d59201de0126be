package interop

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// The tests here have no Caddy: they show that glewlwyd does what the tests of
// Caddy rely on.

// clients are those that can be, with TLS or without.
func (g *glewlwyd) clients(t *testing.T) []*soloClient {
	t.Helper()
	var clients []*soloClient
	add := func(id, method string, prove func(*http.Request, url.Values)) *soloClient {
		c := &soloClient{id: id, method: method, prove: prove, http: g.client, base: g.issuer, server: g}
		clients = append(clients, c)
		return c
	}
	withCert := func(id string, files certFiles) {
		c := add(id, "none", withName(id))
		c.cert, c.http, c.base = &files, g.certs.httpClient(t, &files), g.issuer+"/mtls"
	}
	// the assertion says who it is from, but for a code or a refresh token
	// glewlwyd wants the name as well
	asserting := func(id string, alg jose.SignatureAlgorithm, key any) {
		add(id, "private_key_jwt", withAssertion(t, id, alg, key, nil)).more = fields("client_id", id)
	}
	add("basic", "client_secret_basic", withRawBasic("basic", "secret-of-basic"))
	add("basic-odd", "client_secret_basic", withRawBasic("basic-odd", oddSecret))
	add("basic-plus", "client_secret_basic", withRawBasic("basic-plus", plusSecret))
	add("post", "client_secret_post", withPost("post", "secret-of-post"))
	add("post-odd", "client_secret_post", withPost("post-odd", oddSecret))
	add("fixed", "client_secret_basic", withRawBasic("fixed", "secret-of-fixed"))
	add("dpop", "client_secret_basic", withRawBasic("dpop", "secret-of-dpop")).dpop = newDPoPKey(t)
	asserting("secret-jwt", jose.HS256, []byte(secretOfJWT))
	for id, alg := range keyAlgorithms {
		asserting(id, alg, readKey(t, g.keyFile(id)))
	}
	add("public", "none", withName("public"))
	if g.opts.tls {
		withCert("tls-dn", g.certs.certOf(t, "tls-dn", nil))
		withCert("tls-san", g.certs.certOf(t, "tls-san", func(template *x509.Certificate) {
			template.Subject.CommonName = "anything"
			template.DNSNames = []string{"tls-san.example.com"}
		}))
	}
	return clients
}

func (g *glewlwyd) clientOf(t *testing.T, id string) *soloClient {
	t.Helper()
	for _, c := range g.clients(t) {
		if c.id == id {
			return c
		}
	}
	t.Fatalf("no client %q", id)
	return nil
}

// TestGlewlwydGrants: each grant for each client, and what its tokens are bound
// to.
func TestGlewlwydGrants(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", secure), func(t *testing.T) {
			g := startGlewlwyd(t, glewlwydOptions{tls: secure})
			for _, c := range g.clients(t) {
				if secure && c.cert == nil && c.id != "basic" {
					continue // it is the connection that differs
				}
				t.Run(c.id, func(t *testing.T) { checkGlewlwydGrants(t, g, c) })
			}
		})
	}
}

func checkGlewlwydGrants(t *testing.T, g *glewlwyd, c *soloClient) {
	t.Helper()
	var before serverStats
	if g.front != nil {
		before = g.stats()
	}
	first := g.initial(t, c.id, c.dpop)
	answers := map[string]soloAnswer{
		"refresh_token":      c.refresh(t, first),
		"authorization_code": c.login(t, glewlwydLogin...),
		deviceGrant:          c.device(t),
	}
	if c.id != "public" {
		answers["client_credentials"] = c.ask(t, fields("grant_type", "client_credentials", "scope", "read write"))
	}
	for name, a := range answers {
		refreshes := name != "client_credentials" && (name != "refresh_token" || c.id != "fixed")
		if a.status != http.StatusOK || a.AccessToken == "" || a.ExpiresIn != 60 || (a.RefreshToken != "") != refreshes {
			t.Errorf("%s: %d %q, expires_in %d, refresh token: %t", name, a.status, a.Error, a.ExpiresIn, a.RefreshToken != "")
			continue
		}
		in, err := g.inspect(t.Context(), a.AccessToken)
		if err != nil || !in.Active || !strings.HasSuffix(in.Scope, "read write") {
			t.Errorf("%s: introspection says %+v, %v", name, in, err)
		}
		wantType, key, cert := "bearer", "", ""
		if c.dpop != nil {
			wantType, key = "DPoP", c.dpop.thumbprint(t)
		}
		if c.cert != nil {
			cert = c.cert.thumbprint(t)
		}
		if a.TokenType != wantType || in.Cnf.Jkt != key || in.Cnf.X5tS256 != cert {
			t.Errorf("%s: token_type %q, bound to %+v; want %q, key %q, certificate %q", name, a.TokenType, in.Cnf, wantType, key, cert)
		}
	}
	if g.front == nil {
		return
	}
	after := g.stats()
	if n := after.Methods[c.method] - before.Methods[c.method]; n != len(answers) || after.Granted-before.Granted != n {
		t.Errorf("%d tokens by %s; want %d", n, c.method, len(answers))
	}
	for name := range answers {
		if n := after.Grants[name] - before.Grants[name]; n != 1 {
			t.Errorf("%d tokens by the grant %s; want one", n, name)
		}
	}
}

// TestGlewlwydRefuses: it has few words, or none, for what it refuses.
func TestGlewlwydRefuses(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{})
	by := func(id string, prove func(*http.Request, url.Values)) *soloClient {
		c := g.clientOf(t, id)
		c.prove = prove
		return c
	}
	es256 := func(audience any) *soloClient {
		return by("key-es256", withAssertion(t, "key-es256", jose.ES256, readKey(t, g.keyFile("key-es256")), audience))
	}
	basic := g.clientOf(t, "basic")
	read := fields("grant_type", "client_credentials", "scope", "read")
	tests := []struct {
		name   string
		client *soloClient
		form   url.Values
		status int
		error  string // "" is an empty body where the status is not 200
	}{
		{"wrong secret", by("basic", withRawBasic("basic", "another")), read, 403, ""},
		{"wrong secret, posted", by("post", withPost("post", "another")), read, 403, ""},
		{"no such client", by("basic", withRawBasic("nobody", "x")), read, 403, ""},
		{"form-encoded secret", by("basic-odd", withBasic("basic-odd", oddSecret)), read, 403, ""},
		{"posted, registered for Basic", by("basic", withPost("basic", "secret-of-basic")), read, 403, ""},
		{"no proof", by("basic", withName("basic")), read, 403, ""},
		{"audience the token endpoint", es256(g.tokenURL()), read, 200, ""},
		{"audience the issuer", es256(g.issuer), read, 403, ""},
		{"a list of audiences", es256([]string{g.tokenURL()}), read, 403, ""},
		{"no scope", basic, fields("grant_type", "client_credentials"), 403, ""},
		{"a scope more than it has", basic, fields("grant_type", "client_credentials", "scope", "read admin"), 200, ""},
		{"no scope that it has", basic, fields("grant_type", "client_credentials", "scope", "admin"), 400, "scope_invalid"},
		{"resource", basic, fields("grant_type", "client_credentials", "scope", "read", "resource", "https://api.example.com"), 200, ""},
		{"unknown resource", basic, fields("grant_type", "client_credentials", "scope", "read", "resource", "https://other.example.com"), 400, "invalid_target"},
		{"unknown grant", basic, fields("grant_type", "unknown"), 400, ""},
		{"unknown refresh token", basic, fields("grant_type", "refresh_token", "refresh_token", strings.Repeat("x", 128)), 400, ""},
		{"another client's refresh token", basic, fields("grant_type", "refresh_token", "refresh_token", g.initial(t, "post")), 400, ""},
	}
	for _, tt := range tests {
		a := tt.client.ask(t, tt.form)
		if a.status != tt.status || a.Error != tt.error || a.empty != (tt.status != 200 && tt.error == "") {
			t.Errorf("%s: %d %q, empty: %t; want %d %q", tt.name, a.status, a.Error, a.empty, tt.status, tt.error)
		}
		if tt.status == 200 && a.Scope != "read" {
			t.Errorf("%s: scope %q; want read alone", tt.name, a.Scope)
		}
	}

	// without client_id the assertion is not enough
	c := g.clientOf(t, "key-rs256")
	c.more = nil
	if a := c.login(t, glewlwydLogin...); a.status != 400 || !a.empty {
		t.Errorf("code without client_id: %d %q", a.status, a.Error)
	}
	form := make(url.Values)
	c.prove(&http.Request{URL: mustParse(t, g.tokenURL())}, form)
	c.prove = func(*http.Request, url.Values) {}
	form.Set("grant_type", "client_credentials")
	form.Set("scope", "read")
	if first, second := c.ask(t, form), c.ask(t, form); first.status != 200 || second.status != 403 {
		t.Errorf("an assertion, twice: %d and %d; want 200 and 403", first.status, second.status)
	}
}

func mustParse(t *testing.T, address string) *url.URL {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestGlewlwydRotation: a refresh leaves the access token before it as it was;
// a refresh token that comes again ends the chain, and no access token.
func TestGlewlwydRotation(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{})
	c := g.clientOf(t, "basic")
	first := c.login(t, glewlwydLogin...)
	second := c.refresh(t, first.RefreshToken)
	if second.RefreshToken == first.RefreshToken {
		t.Error("the same refresh token")
	}
	g.checkActive(t, map[string]bool{first.AccessToken: true, second.AccessToken: true, first.RefreshToken: false, second.RefreshToken: true})
	for _, refreshToken := range []string{first.RefreshToken, second.RefreshToken} {
		if a := c.refresh(t, refreshToken); a.status != 400 || !a.empty {
			t.Errorf("spent refresh token, then its successor: %d %q", a.status, a.Error)
		}
	}
	g.checkActive(t, map[string]bool{first.AccessToken: true, second.AccessToken: true, second.RefreshToken: false})
	if s := g.stats(); s.Rotations != 1 || s.Refused["status 400"] != 2 {
		t.Errorf("counted %+v; want one rotation, two refusals", s)
	}

	// a client that cannot prove itself spends nothing
	third := g.initial(t, c.id)
	wrong := g.clientOf(t, "basic")
	wrong.prove = withRawBasic("basic", "another")
	if a := wrong.refresh(t, third); a.status != 400 || !a.empty {
		t.Errorf("wrong secret: %d %q", a.status, a.Error)
	}
	if a := c.refresh(t, third, "scope", "read"); a.status != 200 || a.Scope != "read write" {
		t.Errorf("then the right one: %d %q, scope %q; want all scopes, whatever is asked for", a.status, a.Error, a.Scope)
	}

	fixed := g.clientOf(t, "fixed")
	same := g.initial(t, fixed.id)
	for range 2 {
		if a := fixed.refresh(t, same); a.status != 200 || a.RefreshToken != "" {
			t.Errorf("not rotating: %d %q, a refresh token: %t", a.status, a.Error, a.RefreshToken != "")
		}
	}

	revoked := c.login(t, glewlwydLogin...)
	if status, _, text, err := c.post(t, g.path("revocation"), fields("token", revoked.RefreshToken)); err != nil || status != 200 {
		t.Errorf("revocation: %d %s, %v", status, text, err)
	}
	g.checkActive(t, map[string]bool{revoked.AccessToken: true, revoked.RefreshToken: false})
}

func (g *glewlwyd) checkActive(t *testing.T, want map[string]bool) {
	t.Helper()
	for token, active := range want {
		if in, err := g.introspect(t.Context(), token); err != nil || in.Active != active {
			t.Errorf("token is active: %t, %v; want %t", in.Active, err, active)
		}
	}
}

// TestGlewlwydNonce: a nonce is good for two proofs, and the next one comes with
// the token.
func TestGlewlwydNonce(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{nonce: true})
	newSigningKey(t, g.dir, "dpop-key", jose.ES256)
	c := g.clientOf(t, "dpop")
	c.dpop = readDPoPKey(t, g.keyFile("dpop-key"))
	refreshToken := g.initial(t, c.id, readDPoPKey(t, g.keyFile("dpop-key")))
	form := fields("grant_type", "refresh_token", "refresh_token", refreshToken)
	if a := c.askOnce(t, form); a.status != 400 || a.Error != "use_dpop_nonce" || c.dpop.nonce == "" {
		t.Fatalf("no nonce: %d %q", a.status, a.Error)
	}
	nonces := make(map[string]bool)
	for range 6 {
		nonces[c.dpop.nonce] = true
		a := c.askOnce(t, form)
		if a.status != 200 || a.TokenType != "DPoP" {
			t.Fatalf("with the newest nonce: %d %q", a.status, a.Error)
		}
		form.Set("refresh_token", a.RefreshToken)
	}
	if len(nonces) < 3 {
		t.Errorf("%d nonces for six requests; want three at least", len(nonces))
	}

	thief := g.clientOf(t, "dpop")
	thief.dpop.nonce = c.dpop.nonce
	if a := thief.askOnce(t, form); a.status != 403 || a.Error != "invalid_dpop_proof" {
		t.Errorf("another key: %d %q", a.status, a.Error)
	}
	thief.dpop = nil
	if a := thief.askOnce(t, form); a.status != 403 || a.Error != "invalid_dpop_proof" {
		t.Errorf("no proof: %d %q", a.status, a.Error)
	}
	if a := c.ask(t, form); a.status != 200 {
		t.Errorf("its own key: %d %q; want the refresh token to be good still", a.status, a.Error)
	}
	a := c.login(t, "prompt", "", "scope", "openid", "nonce", "n")
	if status, says := c.get(t, a.AccessToken); status != 200 {
		t.Errorf("userinfo: %d %s", status, says)
	}
	thief.dpop = newDPoPKey(t)
	if status, _ := thief.get(t, a.AccessToken); status != 401 {
		t.Errorf("userinfo for another key: %d", status)
	}
}

// TestGlewlwydCertificates: who shows none, or another's, gets nothing.
func TestGlewlwydCertificates(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{tls: true})
	other, forged := g.certs.issue(t, "other", nil), selfSigned(t, t.TempDir(), "tls-dn")
	for _, id := range []string{"tls-dn", "tls-san"} {
		for name, files := range map[string]*certFiles{"none": nil, "another": &other, "forged": &forged} {
			c := g.clientOf(t, id)
			c.http = g.certs.httpClient(t, files)
			if a := c.ask(t, fields("grant_type", "client_credentials", "scope", "read")); a.status != 403 || !a.empty {
				t.Errorf("%s, %s: %d %q", id, name, a.status, a.Error)
			}
		}
	}
	c := g.clientOf(t, "tls-dn")
	c.base = g.issuer
	if a := c.ask(t, fields("grant_type", "client_credentials", "scope", "read")); a.status != 403 {
		t.Errorf("at the other endpoint: %d %q", a.status, a.Error)
	}
	var meta struct {
		Aliases struct {
			Token string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.issuer+"/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetch(g.client, req, &meta); err != nil || meta.Aliases.Token != g.mtlsTokenURL() {
		t.Errorf("alias %q, %v; want %q", meta.Aliases.Token, err, g.mtlsTokenURL())
	}
}

// TestGlewlwydLost: an answer that nobody gets has spent its refresh token, and
// so has one that a kill comes before; what was granted outlives the kill.
func TestGlewlwydLost(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{})
	c := g.clientOf(t, "basic")
	first := g.initial(t, c.id)
	g.lose(1)
	if _, _, _, err := c.post(t, "/token", fields("grant_type", "refresh_token", "refresh_token", first)); err == nil {
		t.Error("an answer; want none")
	}
	s := g.stats()
	if len(s.Lost) != 1 || s.Granted != 1 || s.Chains != 1 {
		t.Fatalf("counted %+v; want one answer lost", s)
	}
	if lost := s.Lost[0]; lost.Spent != fingerprint(first) || lost.Next == "" || lost.ClientID != c.id || lost.Error != "" {
		t.Errorf("lost %+v; want the refresh token %s of %s", lost, fingerprint(first), c.id)
	}
	if a := c.refresh(t, first); a.status != 400 {
		t.Errorf("again: %d %q", a.status, a.Error)
	}

	kept := c.refresh(t, g.initial(t, c.id))
	g.stop(t, syscall.SIGKILL)
	if _, _, _, err := c.post(t, "/token", fields("grant_type", "refresh_token", "refresh_token", kept.RefreshToken)); err == nil {
		t.Error("an answer of a server that was killed")
	}
	g.start(t)
	g.checkActive(t, map[string]bool{kept.AccessToken: true})
	if a := c.refresh(t, kept.RefreshToken); a.status != 200 {
		t.Errorf("after the kill: %d %q", a.status, a.Error)
	}
}

// TestGlewlwydPerson: what a login has to know.
func TestGlewlwydPerson(t *testing.T) {
	g := startGlewlwyd(t, glewlwydOptions{})
	c := g.clientOf(t, "public")
	got, verifier := c.authorize(t, glewlwydLogin...)
	if got.Get("iss") != g.issuer || got.Get("code") == "" {
		t.Errorf("sent back with %v; want a code, and the issuer %s", got, g.issuer)
	}
	form := fields("grant_type", "authorization_code", "code", got.Get("code"), "redirect_uri", redirectURI, "code_verifier", verifier)
	a := c.ask(t, form)
	if again := c.ask(t, form); a.status != 200 || again.status != 403 || again.Error != "invalid_code" {
		t.Errorf("code: %d %q, again: %d %q", a.status, a.Error, again.status, again.Error)
	}
	if got := c.refresh(t, a.RefreshToken); got.status != 400 {
		t.Errorf("refresh token of a code that came again: %d", got.status)
	}
	// a nonce is the client's choice in OpenID Connect Core section 3.1.2.1, and not here
	if got, _ := c.authorize(t, "prompt", "", "scope", "openid"); got.Get("error") != "invalid_request" {
		t.Errorf("openid without a nonce: %v", got)
	}
	if a := c.login(t, "prompt", "", "scope", "openid read", "nonce", "n"); a.status != 200 || a.IDToken == "" || a.RefreshToken == "" {
		t.Errorf("openid with one: %d %q, ID token: %t, refresh token: %t", a.status, a.Error, a.IDToken != "", a.RefreshToken != "")
	}

	shown := c.begin(t)
	poll := fields("grant_type", deviceGrant, "device_code", shown.DeviceCode)
	if a := c.ask(t, poll); a.status != 400 || a.Error != "authorization_pending" {
		t.Errorf("before the person answered: %d %q", a.status, a.Error)
	}
	if a := c.ask(t, poll); a.status != 400 || a.Error != "slow_down" {
		t.Errorf("sooner than %d s: %d %q", shown.Interval, a.status, a.Error)
	}
}
