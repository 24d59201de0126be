package interop

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The tests here have no Caddy: they show that oidc-provider does what the tests
// of Caddy rely on.

// TestFullProviderGrants: each grant for each client, and what its tokens are
// bound to.
func TestFullProviderGrants(t *testing.T) {
	p := startFullProvider(t, fullOptions{tls: true})
	for _, c := range append(p.clients(t), p.boundClients(t)...) {
		t.Run(c.id, func(t *testing.T) {
			before := p.stats(t)
			type grant struct {
				name      string
				ask       func(*testing.T) soloAnswer
				refreshes bool // brings a refresh token
			}
			grants := []grant{
				{"refresh_token", func(t *testing.T) soloAnswer {
					t.Helper()
					return c.refresh(t, p.initial(t, c.id))
				}, true},
				{"authorization_code", func(t *testing.T) soloAnswer {
					t.Helper()
					return c.login(t)
				}, true},
				{deviceGrant, func(t *testing.T) soloAnswer {
					t.Helper()
					return c.device(t)
				}, true},
			}
			if c.method != "none" { // RFC 6749 section 4.4
				grants = append(grants, grant{"client_credentials", func(t *testing.T) soloAnswer {
					t.Helper()
					return c.ask(t, fields("grant_type", "client_credentials", "scope", "read write"))
				}, false})
			}
			for _, g := range grants {
				a := g.ask(t)
				if a.status != http.StatusOK || a.AccessToken == "" || a.ExpiresIn != 60 || (a.RefreshToken != "") != g.refreshes {
					t.Fatalf("%s: %d, error %q, expires_in %d, refresh token: %t", g.name, a.status, a.Error, a.ExpiresIn, a.RefreshToken != "")
				}
				in, err := p.inspect(t.Context(), a.AccessToken)
				if err != nil || !in.Active || in.ClientID != c.id || !strings.HasSuffix(in.Scope, "read write") {
					t.Errorf("%s: introspection says %+v, %v", g.name, in, err)
				}
				wantType, key, cert := "Bearer", "", ""
				if c.dpop != nil {
					wantType, key = "DPoP", c.dpop.thumbprint(t)
				}
				if c.cert != nil && c.id != "tls-unbound" {
					cert = c.cert.thumbprint(t)
				}
				if a.TokenType != wantType || in.TokenType != wantType || in.Cnf.Jkt != key || in.Cnf.X5tS256 != cert {
					t.Errorf("%s: token_type %q, bound to %+v; want %q, key %q, certificate %q", g.name, a.TokenType, in.Cnf, wantType, key, cert)
				}
			}
			after := p.stats(t)
			if n := after.Methods[c.method] - before.Methods[c.method]; n != len(grants) {
				t.Errorf("%d tokens by %s; want %d", n, c.method, len(grants))
			}
			for _, g := range grants {
				if n := after.Grants[g.name] - before.Grants[g.name]; n != 1 {
					t.Errorf("%d tokens by the grant %s; want one", n, g.name)
				}
			}
		})
	}
}

// TestFullProviderProofs: what is no proof of the client.
func TestFullProviderProofs(t *testing.T) {
	p := startFullProvider(t, fullOptions{tls: true})
	es256 := func(id string, audience any) *soloClient {
		c := p.clientOf(t, id)
		c.prove = withAssertion(t, id, jose.ES256, readKey(t, p.keyFile(id)), audience)
		return c
	}
	secret := func(alg jose.SignatureAlgorithm) *soloClient {
		c := p.clientOf(t, "secret-jwt")
		c.prove = withAssertion(t, c.id, alg, []byte(secretOfJWT), p.issuer)
		return c
	}
	shows := func(id string, files *certFiles) *soloClient {
		c := p.clientOf(t, id)
		c.http = p.certs.httpClient(t, files)
		return c
	}
	wrong, raw, main := p.clientOf(t, "basic"), p.clientOf(t, "basic-odd"), p.clientOf(t, "tls-dn")
	wrong.prove = withBasic("basic", "another")
	raw.prove = func(req *http.Request, _ url.Values) { req.SetBasicAuth("basic-odd", oddSecret) }
	main.base = p.issuer
	other, forged := p.certs.issue(t, "other", nil), selfSigned(t, t.TempDir(), "tls-dn")
	bound := p.clientOf(t, "basic-bound")
	bound.base = p.issuer
	withoutKey := p.clientOf(t, "dpop")
	withoutKey.dpop = nil
	tests := []struct {
		name   string
		client *soloClient
		status int
		error  string // "" where there is a token
	}{
		{"wrong secret", wrong, 401, "invalid_client"},
		{"secret with % sent raw", raw, 400, "invalid_request"},
		{"HS384", secret(jose.HS384), 200, ""},
		{"HS512", secret(jose.HS512), 200, ""},
		{"audience the issuer", es256("key-es256", p.issuer), 200, ""},
		{"audience the token endpoint", es256("key-es256", p.tokenURL()), 200, ""},
		{"audiences, one of them the issuer", es256("key-es256", []string{"https://other.example.com", p.issuer}), 200, ""},
		{"audience another", es256("key-es256", "https://other.example.com"), 401, "invalid_client"},
		{"FAPI, audience the issuer", es256("key-fapi", p.issuer), 200, ""},
		{"FAPI, audience the token endpoint", es256("key-fapi", p.tokenURL()), 401, "invalid_client"},
		{"FAPI, a list of audiences", es256("key-fapi", []string{p.issuer}), 401, "invalid_client"},
		{"no certificate", shows("tls-dn", nil), 401, "invalid_client"},
		{"certificate with another name", shows("tls-dn", &other), 401, "invalid_client"},
		{"certificate at the endpoint that asks for none", main, 401, "invalid_client"},
		{"certificate with its name that nobody signed", shows("tls-dn", &forged), 401, "invalid_client"},
		{"self-signed, the second one", shows("tls-self-signed", &p.selfSigned[1]), 200, ""},
		{"self-signed, unknown", shows("tls-self-signed", &other), 401, "invalid_client"},
		{"token to be bound, no certificate", bound, 400, "invalid_grant"},
		{"token to be bound, no DPoP proof", withoutKey, 400, "invalid_grant"},
	}
	for _, tt := range tests {
		a := tt.client.ask(t, fields("grant_type", "client_credentials"))
		if a.status != tt.status || a.Error != tt.error {
			t.Errorf("%s: %d %q; want %d %q", tt.name, a.status, a.Error, tt.status, tt.error)
		}
	}

	once := p.clientOf(t, "key-rs256")
	form := fields("grant_type", "client_credentials")
	once.prove(nil, form)
	once.prove = func(*http.Request, url.Values) {}
	if first, second := once.ask(t, form), once.ask(t, form); first.Error != "" || second.Error != "invalid_client" {
		t.Errorf("an assertion, twice: %q and %q; want a token and invalid_client", first.Error, second.Error)
	}
}

// TestFullProviderNonce: a proof without the server's nonce is answered with
// one, at the token endpoint and at /me.
func TestFullProviderNonce(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	for _, id := range []string{"dpop-nonce", "dpop-public"} {
		c := p.clientOf(t, id)
		refreshToken := p.initial(t, id, url.Values{"scope": {"openid offline_access"}})
		form := fields("grant_type", "refresh_token", "refresh_token", refreshToken)
		if a := c.askOnce(t, form); a.status != 400 || a.Error != "use_dpop_nonce" || a.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s, no nonce: %d %q, DPoP-Nonce %q", id, a.status, a.Error, a.header.Get("DPoP-Nonce"))
		}
		a := c.askOnce(t, form)
		if a.Error != "" {
			t.Fatalf("%s, with the nonce: %d %q; want the refresh token to be good still", id, a.status, a.Error)
		}
		c.dpop.nonce = ""
		if status, says := c.get(t, a.AccessToken); status != 401 || !strings.Contains(says, `error="use_dpop_nonce"`) || c.dpop.nonce == "" {
			t.Errorf("%s, /me without a nonce: %d %s", id, status, says)
		}
		if status, says := c.get(t, a.AccessToken); status != 200 {
			t.Errorf("%s, /me: %d %s", id, status, says)
		}
	}
}

// TestFullProviderBound: a token that is bound is no good to another.
func TestFullProviderBound(t *testing.T) {
	p := startFullProvider(t, fullOptions{tls: true})
	other := p.certs.issue(t, "other", nil)
	for id, ours := range map[string]bool{ // whether its refresh tokens are bound as well
		"tls-dn": true, "basic-bound": false, "public-bound": true, "dpop": false, "dpop-public": true,
	} {
		c := p.clientOf(t, id)
		a := c.login(t)
		thief := *c
		if c.dpop != nil {
			thief.dpop = newDPoPKey(t)
			thief.dpop.nonce = c.dpop.nonce
		} else {
			thief.http = p.certs.httpClient(t, &other)
		}
		if status, says := c.get(t, a.AccessToken); status != 200 {
			t.Errorf("%s: /me: %d %s", id, status, says)
		}
		if status, says := thief.get(t, a.AccessToken); status != 401 || !strings.Contains(says, `error="invalid_token"`) {
			t.Errorf("%s: /me for another: %d %s", id, status, says)
		}
		if got := thief.refresh(t, a.RefreshToken); (got.Error != "") != ours {
			t.Errorf("%s: refresh by another: %d %q; want it refused: %t", id, got.status, got.Error, ours)
		}
	}
}

// TestFullProviderResources: RFC 8707, with a JWT for one resource.
func TestFullProviderResources(t *testing.T) {
	const (
		asJWT  = "https://jwt.example.com/api"
		opaque = "https://opaque.example.com/api"
	)
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "basic")
	for _, resource := range []string{asJWT, opaque} {
		for name, a := range map[string]soloAnswer{
			"client_credentials": c.ask(t, fields("grant_type", "client_credentials", "scope", "read", "resource", resource)),
			"authorization_code": c.login(t, "resource", resource, "scope", "offline_access read"),
			"refresh_token":      c.refresh(t, p.initial(t, c.id, url.Values{"scope": {"openid read"}, "resource": {resource}})),
		} {
			if a.Error != "" || a.Scope != "read" {
				t.Errorf("%s for %s: %d %q, scope %q", name, resource, a.status, a.Error, a.Scope)
			}
			if got := strings.Count(a.AccessToken, ".") == 2; got != (resource == asJWT) {
				t.Errorf("%s for %s: a JWT: %t", name, resource, got)
			}
			if resource == asJWT {
				continue // not for the introspection endpoint
			}
			if in, err := p.inspect(t.Context(), a.AccessToken); err != nil || in.Aud != resource {
				t.Errorf("%s for %s: introspection says %+v, %v", name, resource, in, err)
			}
		}
	}
	if a := c.ask(t, fields("grant_type", "client_credentials", "resource", "https://other.example.com")); a.status != 400 || a.Error != "invalid_target" {
		t.Errorf("unknown resource: %d %q", a.status, a.Error)
	}
	// oidc-provider spends the refresh token before it looks at the resource
	first := p.initial(t, c.id)
	if a := c.refresh(t, first, "resource", opaque); a.status != 400 || a.Error != "invalid_target" {
		t.Errorf("resource that was not granted: %d %q", a.status, a.Error)
	}
	if a := c.refresh(t, first); a.Error != "invalid_grant" {
		t.Errorf("the same refresh token without the resource: %d %q; want it spent", a.status, a.Error)
	}
}

// TestFullProviderScopes: a scope that nobody has, and fewer or more than were
// granted.
func TestFullProviderScopes(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "basic")
	if a := c.ask(t, fields("grant_type", "client_credentials", "scope", "read admin")); a.status != 400 || a.Error != "invalid_scope" {
		t.Errorf("admin: %d %q", a.status, a.Error)
	}
	if a := c.ask(t, fields("grant_type", "client_credentials", "scope", "read unheard-of")); a.Error != "" || a.Scope != "read" {
		t.Errorf("unknown: %d %q, scope %q; want it left out", a.status, a.Error, a.Scope)
	}
	a := c.refresh(t, p.initial(t, c.id), "scope", "read")
	if a.Error != "" || a.Scope != "read" {
		t.Errorf("fewer: %d %q, scope %q", a.status, a.Error, a.Scope)
	}
	if a = c.refresh(t, a.RefreshToken); a.Scope != "offline_access read write" {
		t.Errorf("next: %d %q, scope %q; want all again", a.status, a.Error, a.Scope)
	}
	if more := c.refresh(t, a.RefreshToken, "scope", "read openid"); more.Error != "invalid_scope" {
		t.Errorf("more: %d %q", more.status, more.Error)
	}
	if a = c.refresh(t, a.RefreshToken); a.Error != "" {
		t.Errorf("after invalid_scope: %d %q; want the refresh token to be good still", a.status, a.Error)
	}
}

// TestFullProviderRotation: a refresh leaves the access token before it as it
// was; a refresh token that comes again ends the chain and all its tokens.
func TestFullProviderRotation(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "basic")
	first := c.login(t)
	second := c.refresh(t, first.RefreshToken)
	if second.RefreshToken == first.RefreshToken || second.IDToken == "" {
		t.Errorf("refresh: the same refresh token, or no ID token: %+v", second)
	}
	p.checkActive(t, map[string]bool{first.AccessToken: true, second.AccessToken: true, first.RefreshToken: false, second.RefreshToken: true})
	if a := c.refresh(t, first.RefreshToken); a.status != 400 || a.Error != "invalid_grant" {
		t.Errorf("spent refresh token: %d %q", a.status, a.Error)
	}
	p.checkActive(t, map[string]bool{first.AccessToken: false, second.AccessToken: false, second.RefreshToken: false})
	if a := c.refresh(t, second.RefreshToken); a.Error != "invalid_grant" {
		t.Errorf("its successor: %d %q", a.status, a.Error)
	}
	if s := p.stats(t); s.Rotations != 1 || s.ChainsRevoked != 1 || s.Refused["invalid_grant"] != 2 {
		t.Errorf("server counted %+v; want one rotation, one chain revoked, two refusals", s)
	}

	for name, refreshToken := range map[string]string{"unknown": "x", "another client's": p.initial(t, "post")} {
		if a := c.refresh(t, refreshToken); a.status != 400 || a.Error != "invalid_grant" {
			t.Errorf("%s: %d %q", name, a.status, a.Error)
		}
	}

	fixed := p.clientOf(t, "fixed")
	same := p.initial(t, fixed.id)
	for range 2 {
		if a := fixed.refresh(t, same); a.Error != "" || a.RefreshToken != same {
			t.Errorf("not rotating: %d %q, the same: %t", a.status, a.Error, a.RefreshToken == same)
		}
	}
}

func (p *fullProvider) checkActive(t *testing.T, want map[string]bool) {
	t.Helper()
	for token, active := range want {
		if in, err := p.introspect(t.Context(), token); err != nil || in.Active != active {
			t.Errorf("token is active: %t, %v; want %t", in.Active, err, active)
		}
	}
}

// TestFullProviderRace: two that spend one refresh token at the same moment are
// both left with nothing.
func TestFullProviderRace(t *testing.T) {
	p := startFullProvider(t, fullOptions{delay: 50 * time.Millisecond})
	c := p.clientOf(t, "basic")
	for range 5 {
		refreshToken := p.initial(t, c.id)
		var both [2]soloAnswer
		var wg sync.WaitGroup
		for i := range both {
			wg.Go(func() { both[i] = c.refresh(t, refreshToken) })
		}
		wg.Wait()
		for _, a := range both {
			if a.Error == "" {
				a = c.refresh(t, a.RefreshToken)
			}
			if a.Error != "invalid_grant" {
				t.Errorf("%d %q; want invalid_grant, at the next refresh at the latest", a.status, a.Error)
			}
		}
	}
	if s := p.stats(t); s.MaxInFlight != 2 || s.ChainsRevoked != 5 || s.Chains != 5 {
		t.Errorf("server counted %+v; want two at a time, five chains, all revoked", s)
	}
}

// TestFullProviderLost: an answer that nobody gets has spent its refresh token.
func TestFullProviderLost(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "basic")
	first := p.initial(t, c.id)
	p.lose(t, 1)
	if _, _, _, err := c.post(t, "/token", fields("grant_type", "refresh_token", "refresh_token", first)); err == nil {
		t.Error("an answer; want none")
	}
	s := p.stats(t)
	if len(s.Lost) != 1 || s.Granted != 1 {
		t.Fatalf("server counted %+v; want one answer lost", s)
	}
	if lost := s.Lost[0]; lost.Spent != fingerprint(first) || lost.Next == "" || lost.ClientID != c.id || lost.GrantType != "refresh_token" || lost.Error != "" {
		t.Errorf("lost %+v; want the refresh token %s of %s", lost, fingerprint(first), c.id)
	}
	if a := c.refresh(t, first); a.Error != "invalid_grant" {
		t.Errorf("again: %d %q", a.status, a.Error)
	}
}

// TestFullProviderRestart: what a killed server granted, it still knows.
func TestFullProviderRestart(t *testing.T) {
	p := startFullProvider(t, fullOptions{tls: true, keep: true})
	key, basic := p.clientOf(t, "key-ps256"), p.clientOf(t, "basic")
	first := basic.login(t)
	second := basic.refresh(t, first.RefreshToken)
	issuer, mtlsURL := p.issuer, p.mtlsURL()
	p.stop(t, syscall.SIGKILL)
	p.start(t)
	if p.issuer != issuer || p.mtlsURL() != mtlsURL {
		t.Errorf("at %s and %s; want %s and %s", p.issuer, p.mtlsURL(), issuer, mtlsURL)
	}
	if a := key.refresh(t, p.initial(t, key.id)); a.Error != "" {
		t.Errorf("key of before: %d %q", a.status, a.Error)
	}
	p.checkActive(t, map[string]bool{second.AccessToken: true, first.RefreshToken: false})
	if a := basic.refresh(t, second.RefreshToken); a.Error != "" {
		t.Errorf("refresh token of before: %d %q", a.status, a.Error)
	}
	if a := basic.refresh(t, first.RefreshToken); a.Error != "invalid_grant" || p.stats(t).ChainsRevoked != 1 {
		t.Errorf("one that was spent before: %d %q", a.status, a.Error)
	}
}

// TestFullProviderPerson: what a person does, or does not do.
func TestFullProviderPerson(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "public")
	// RFC 9207
	if got, _ := c.authorize(t); got.Get("iss") != p.issuer || got.Get("code") == "" {
		t.Errorf("sent back with %v; want a code, and the issuer %s", got, p.issuer)
	}
	if a := c.login(t, "login_hint", "nobody"); a.Error != "access_denied" {
		t.Errorf("nobody: %d %q", a.status, a.Error)
	}
	// OpenID Connect Core section 11
	if a := c.login(t, "prompt", ""); a.Error != "" || a.RefreshToken != "" {
		t.Errorf("without prompt=consent: %d %q, refresh token: %t", a.status, a.Error, a.RefreshToken != "")
	}
	shown := c.begin(t)
	if want := shown.VerificationURI + "?user_code=" + shown.UserCode; shown.VerificationURIComplete != want || shown.ExpiresIn != 600 {
		t.Errorf("device: %+v", shown)
	}
	poll := func() soloAnswer { return c.ask(t, fields("grant_type", deviceGrant, "device_code", shown.DeviceCode)) }
	if a := poll(); a.status != 400 || a.Error != "authorization_pending" {
		t.Errorf("before the person answered: %d %q", a.status, a.Error)
	}
	p.confirm(t, shown.UserCode, false)
	if a := poll(); a.status != 400 || a.Error != "access_denied" {
		t.Errorf("after a no: %d %q", a.status, a.Error)
	}
}

// TestFullProviderRevocation: RFC 7009, with the rest of the chain.
func TestFullProviderRevocation(t *testing.T) {
	p := startFullProvider(t, fullOptions{})
	c := p.clientOf(t, "basic")
	for _, which := range []string{"refresh_token", "access_token"} {
		a := c.login(t)
		token := map[string]string{"refresh_token": a.RefreshToken, "access_token": a.AccessToken}[which]
		if status, _, text, err := c.post(t, p.path("revocation"), fields("token", token)); err != nil || status != 200 {
			t.Errorf("%s: %d %s, %v", which, status, text, err)
		}
		p.checkActive(t, map[string]bool{a.AccessToken: false, a.RefreshToken: false})
	}
	if s := p.stats(t); s.ChainsRevoked != 0 {
		t.Errorf("%d chains revoked; want those alone counted that ended at the token endpoint", s.ChainsRevoked)
	}
}

// TestFullProviderMetadata: what discovery finds.
func TestFullProviderMetadata(t *testing.T) {
	p := startFullProvider(t, fullOptions{tls: true})
	var meta struct {
		Issuer      string
		Token       string   `json:"token_endpoint"`
		Device      string   `json:"device_authorization_endpoint"`
		Revocation  string   `json:"revocation_endpoint"`
		Methods     []string `json:"token_endpoint_auth_methods_supported"`
		Algorithms  []string `json:"token_endpoint_auth_signing_alg_values_supported"`
		DPoP        []string `json:"dpop_signing_alg_values_supported"`
		Iss         bool     `json:"authorization_response_iss_parameter_supported"`
		Bound       bool     `json:"tls_client_certificate_bound_access_tokens"`
		MTLSAliases struct {
			Token string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	p.control(t, "/.well-known/openid-configuration", "", nil, &meta)
	if meta.Issuer != p.issuer || meta.Token != p.tokenURL() || meta.Device != p.issuer+"/device/auth" || meta.Revocation != p.issuer+"/token/revocation" {
		t.Errorf("endpoints: %+v", meta)
	}
	if meta.MTLSAliases.Token != p.mtlsURL()+"/token" || !meta.Iss || !meta.Bound {
		t.Errorf("extensions: %+v", meta)
	}
	methods := make(map[string]bool)
	for _, c := range append(p.clients(t), p.boundClients(t)...) {
		methods[c.method] = true
	}
	for method := range maps.Keys(methods) {
		if !slices.Contains(meta.Methods, method) {
			t.Errorf("methods %q; want %q among them", meta.Methods, method)
		}
	}
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		if !slices.Contains(meta.Algorithms, alg) || !slices.Contains(meta.DPoP, alg) {
			t.Errorf("algorithms %q, for DPoP %q; want %s in both", meta.Algorithms, meta.DPoP, alg)
		}
	}
}
