package interop

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// The resources of oidc-provider/server.mjs: tokens for the first are JWTs.
const (
	jwtResource    = "https://jwt.example.com/api"
	opaqueResource = "https://opaque.example.com/api"
)

// TestGrantsOIDCProvider: it can do all but jwt_bearer and token_exchange.
func TestGrantsOIDCProvider(t *testing.T) {
	p := startFullProvider(t, fullOptions{ttl: cellTTL, tls: true})
	b := &behind{
		authority: p,
		name:      providerName,
		issuer:    p.issuer,
		authURL:   p.issuer + "/auth?prompt=consent", // or there is no offline_access
		params:    []string{"param prompt consent"},
		device:    p.issuer + "/device/auth",
		lines:     []string{p.trust()},
		scopes:    "read write",
		login:     "openid offline_access read write",
		ports:     freePorts(t, 40),
		browse:    p.browse,
		stats:     p.stats,
		initial: func(t *testing.T, id string) string {
			t.Helper()
			return p.initial(t, id)
		},
		confirm: func(t *testing.T, code string) {
			t.Helper()
			p.confirm(t, code, true)
		},
	}
	for _, found := range b.found() {
		for _, cl := range p.provers(t, found) {
			b.clientCredentials(cl, found)
		}
		for _, cl := range append(p.provers(t, found), byNothing("public")) {
			b.refreshToken(t, cl, found)
		}
		// of each method the first one
		var methods []string
		for _, cl := range append(p.provers(t, found), byNothing("public")) {
			if !slices.Contains(methods, cl.method) {
				methods = append(methods, cl.method)
				b.authorizationCode(cl, found)
			}
		}
		for _, cl := range []client{byBasicAuth("basic", "secret-of-basic", "form", "form"), byNothing("public")} {
			b.deviceCode(cl, found)
		}
		fixed := byBasicAuth("fixed", "secret-of-fixed", "form", "not rotating")
		b.refreshToken(t, fixed, found).static = true
		p.certificateCells(t, b, found)
		p.resourceCells(t, b, found)
		p.dpopCells(t, b, found)
	}
	b.clientCredentials(byJWTFile(t, "key-es256", "another issuer's", func() string {
		return signJWT(t, jose.ES256, readKey(t, p.keyFile("key-es256")), (&jose.SignerOptions{}).WithHeader("kid", "key-es256"), foreignClaims("key-es256", p.issuer))
	}), "issuer").code = "invalid_client"
	b.authorizationCode(byBasicAuth("basic", "secret-of-basic", "form", "form"), "issuer", "refresh_at 75%").loggedOut("invalid_grant", func(t *testing.T, refreshToken string) {
		t.Helper()
		if in, err := p.inspect(t.Context(), refreshToken); err != nil || in.Active {
			t.Errorf("the server says %+v of the refresh token, %v; want it inactive", in, err)
		}
	})
	b.run(t)
}

// trust is how a credential knows the server; cert and key are what it shows.
func (p *fullProvider) trust(shown ...certFiles) string {
	options := []string{"ca " + p.certs.file}
	for _, files := range shown {
		options = append(options, "cert "+files.cert, "key "+files.key)
	}
	return block("tls", options)
}

// provers are the clients with a secret or a key, by all methods that the server
// has for these.
func (p *fullProvider) provers(t *testing.T, found string) []client {
	t.Helper()
	all := []client{
		byBasicAuth("basic", "secret-of-basic", "form", "form"),
		byBasicAuth("basic-odd", oddSecret, "form", "form, odd secret"),
		byBasicAuth("basic", "secret-of-basic", "raw", "raw"),
		bySecretPost("post", "secret-of-post", ""),
		bySecretPost("post-odd", oddSecret, "odd secret"),
		bySecretJWT("secret-jwt", secretOfJWT, "HS256"),
		bySecretJWT("secret-jwt", secretOfJWT, "HS512", "alg HS512"),
		byJWTFile(t, "key-es256", "", func() string {
			return clientAssertion(t, "key-es256", jose.ES256, readKey(t, p.keyFile("key-es256")), p.issuer)
		}),
		byPrivateKey("key-fapi", "ES256, FAPI, audience issuer", p.keyFile("key-fapi"), "key_id key-fapi", "audience "+p.issuer),
	}
	for id, alg := range keyAlgorithms {
		all = append(all,
			byPrivateKey(id, string(alg)+", PEM", p.keyFile(id), "key_id "+id, "alg "+string(alg)),
			byPrivateKey(id, string(alg)+", JWK", p.file(id+".jwk")))
	}
	audiences := []string{"token_endpoint"}
	if found == "issuer" {
		audiences = append(audiences, "issuer")
	}
	for _, audience := range audiences {
		all = append(all, byPrivateKey("key-es256", "ES256, audience "+audience, p.keyFile("key-es256"), "key_id key-es256", "audience "+audience))
	}
	return all
}

// certificateCells are those of RFC 8705, where the token is bound to the
// certificate, and for one of them the upstream wants to see it as well.
func (p *fullProvider) certificateCells(t *testing.T, b *behind, found string) {
	t.Helper()
	mtls := p.mtlsURL() + "/token"
	byCert := func(id, as, what string, files certFiles) (client, certFiles) {
		auth := block("tls_client_auth", []string{"cert " + files.cert, "key " + files.key})
		return client{credential: credential{id, "", auth, nil}, method: "tls_client_auth", as: as, what: what, tokenURL: mtls}, files
	}
	byName := p.certs.issue(t, "tls-dn", nil)
	const caIssued, self = "tls_client_auth", "self_signed_tls_client_auth"
	add := func(cl client, files certFiles) {
		for _, c := range []*cell{b.clientCredentials(cl, found), b.refreshToken(t, cl, found)} {
			c.boundTo(p, files)
		}
	}
	add(byCert("tls-dn", caIssued, "CA-issued", byName))
	add(byCert("tls-san", caIssued, "CA-issued, by alternative name", p.certs.issue(t, "tls-san", func(template *x509.Certificate) {
		template.Subject.CommonName = "anything"
		template.DNSNames = append(template.DNSNames, "tls-san.example.com")
	})))
	add(byCert("tls-self-signed", self, "self-signed", p.selfSigned[0]))
	unbound, _ := byCert("tls-unbound", caIssued, "CA-issued, bearer tokens", p.certs.issue(t, "tls-unbound", nil))
	b.clientCredentials(unbound, found)
	for _, cl := range []client{first(byCert("tls-dn", caIssued, "CA-issued", byName)), first(byCert("tls-self-signed", self, "self-signed", p.selfSigned[0]))} {
		b.authorizationCode(cl, found)
	}

	toUpstream, _ := byCert("tls-dn", caIssued, "CA-issued, and shown to the upstream", byName)
	c := b.clientCredentials(toUpstream, found)
	c.upstream = startBound(t, p, p.certs.issue(t, "upstream", nil))
	c.http = []string{"tls_client_auth " + byName.cert + " " + byName.key, "tls_trust_pool file " + p.certs.file}

	shown := p.certs.issue(t, "basic-bound", nil)
	bound := byBasicAuth("basic-bound", "secret-of-basic-bound", "form", "token bound to a certificate")
	bound.lines, bound.tokenURL = []string{p.trust(shown)}, mtls
	add(bound, shown)
	public := byNothing("public-bound")
	public.lines, public.tokenURL, public.what = []string{p.trust(shown)}, mtls, "token bound to a certificate"
	b.authorizationCode(public, found).boundTo(p, shown)
}

func first(cl client, _ certFiles) client { return cl }

// boundTo has the newest token looked at.
func (c *cell) boundTo(p *fullProvider, files certFiles) {
	c.check = func(t *testing.T, _ *cell, token string) {
		t.Helper()
		if in, err := p.inspect(t.Context(), token); err != nil || in.Cnf.X5tS256 != files.thumbprint(t) {
			t.Errorf("the token is bound to %+v, %v; want the certificate %s", in.Cnf, err, files.cert)
		}
	}
}

// resourceCells are those of RFC 8707.
func (p *fullProvider) resourceCells(t *testing.T, b *behind, found string) {
	t.Helper()
	basic := func(what string) client { return byBasicAuth("basic", "secret-of-basic", "form", what) }
	opaque := "resource " + opaqueResource
	cells := []*cell{
		b.clientCredentials(basic("resource"), found, opaque),
		b.authorizationCode(basic("resource"), found, opaque),
	}
	c := b.add(basic("resource"), "refresh_token", found, "grant refresh_token {env.INITIAL}", opaque)
	c.env["INITIAL"] = p.initial(t, "basic", url.Values{"resource": {opaqueResource}})
	c.tokens = refreshes
	for _, c := range append(cells, c) {
		c.check = func(t *testing.T, _ *cell, token string) {
			t.Helper()
			if in, err := p.inspect(t.Context(), token); err != nil || in.Aud != opaqueResource {
				t.Errorf("the token is for %q, %v; want %s", in.Aud, err, opaqueResource)
			}
		}
	}
	structured := b.clientCredentials(basic("resource, JWT"), found, "resource "+jwtResource)
	structured.upstream = startUpstream(t, &jwtAuthority{p, jwtResource})
}

// dpopCells are those of RFC 9449: the upstream checks each proof, and has nonces
// of its own.
func (p *fullProvider) dpopCells(t *testing.T, b *behind, found string) {
	t.Helper()
	keys := newProofKeys(t)
	basic := func(id, what string) client { return byBasicAuth(id, "secret-of-"+id, "form", "DPoP "+what) }
	add := func(c *cell) *cell {
		c.proven(startProven(t, p, 4))
		return c
	}
	for _, key := range keys {
		add(b.clientCredentials(basic("dpop", key.alg), found, key.line())).alg(key.alg)
	}
	add(b.clientCredentials(basic("dpop-nonce", "ES256, nonces"), found, keys[0].line()))
	add(b.refreshToken(t, basic("dpop-nonce", "ES256, nonces"), found, keys[0].line()))
	add(b.authorizationCode(basic("dpop-nonce", "ES256, nonces"), found, keys[0].line()))
	public := byNothing("dpop-public")
	public.what = "DPoP ES256, nonces"
	add(b.authorizationCode(public, found, keys[0].line()))
	c := add(b.add(public, "refresh_token", found, "grant refresh_token {env.INITIAL}", keys[0].line()))
	c.env["INITIAL"] = p.initial(t, "dpop-public", url.Values{"jkt": {keys[0].thumbprint}})
	c.tokens = refreshes

	if found == "issuer" {
		many := b.clientCredentials(basic("dpop-nonce", fmt.Sprintf("ES256, nonces, %d requests", manyProofs)), found, keys[0].line())
		many.proven(startProven(t, p, manyProofs/50))
		many.sendMany()
	}
}
