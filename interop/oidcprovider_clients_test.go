package interop

import (
	"crypto/x509"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

const secretOfJWT = "secret-of-secret-jwt-which-is-as-long-as-the-longest-of-its-hashes"

// clients are those that need no certificate, each with a key of its own where
// it makes DPoP proofs.
func (p *fullProvider) clients(t *testing.T) []*soloClient {
	t.Helper()
	signing := func(id string, alg jose.SignatureAlgorithm) *soloClient {
		return &soloClient{id: id, method: "private_key_jwt", prove: withAssertion(t, id, alg, readKey(t, p.keyFile(id)), p.issuer)}
	}
	clients := []*soloClient{
		{id: "basic", method: "client_secret_basic", prove: withBasic("basic", "secret-of-basic")},
		{id: "basic-odd", method: "client_secret_basic", prove: withBasic("basic-odd", oddSecret)},
		{id: "basic-plus", method: "client_secret_basic", prove: withBasic("basic-plus", plusSecret)},
		{id: "post", method: "client_secret_post", prove: withPost("post", "secret-of-post")},
		{id: "post-odd", method: "client_secret_post", prove: withPost("post-odd", oddSecret)},
		{id: "fixed", method: "client_secret_basic", prove: withBasic("fixed", "secret-of-fixed")},
		{id: "secret-jwt", method: "client_secret_jwt", prove: withAssertion(t, "secret-jwt", jose.HS256, []byte(secretOfJWT), p.issuer)},
		signing("key-rs256", jose.RS256),
		signing("key-ps256", jose.PS256),
		signing("key-es256", jose.ES256),
		signing("key-eddsa", jose.EdDSA),
		signing("key-fapi", jose.ES256),
		{id: "public", method: "none", prove: withName("public")},
		{id: "dpop", method: "client_secret_basic", prove: withBasic("dpop", "secret-of-dpop"), dpop: newDPoPKey(t)},
		{id: "dpop-nonce", method: "client_secret_basic", prove: withBasic("dpop-nonce", "secret-of-dpop-nonce"), dpop: newDPoPKey(t)},
		{id: "dpop-public", method: "none", prove: withName("dpop-public"), dpop: newDPoPKey(t)},
	}
	for _, c := range clients {
		c.server, c.http, c.base = p, p.client, p.issuer
	}
	return clients
}

// boundClients are those that show a certificate.
func (p *fullProvider) boundClients(t *testing.T) []*soloClient {
	t.Helper()
	withCert := func(id, method string, files certFiles) *soloClient {
		return &soloClient{id: id, method: method, cert: &files, prove: withName(id)}
	}
	signed := func(name string) certFiles { return p.certs.certOf(t, name, nil) }
	san := p.certs.certOf(t, "tls-san", func(template *x509.Certificate) {
		template.Subject.CommonName = "anything"
		template.DNSNames = append(template.DNSNames, "tls-san.example.com")
	})
	clients := []*soloClient{
		withCert("tls-dn", "tls_client_auth", signed("tls-dn")),
		withCert("tls-san", "tls_client_auth", san),
		withCert("tls-unbound", "tls_client_auth", signed("tls-unbound")),
		withCert("tls-self-signed", "self_signed_tls_client_auth", p.selfSigned[0]),
		withCert("basic-bound", "client_secret_basic", signed("basic-bound")),
		withCert("public-bound", "none", signed("public-bound")),
	}
	for _, c := range clients {
		c.server, c.http, c.base = p, p.certs.httpClient(t, c.cert), p.mtlsURL()
		if c.id == "basic-bound" {
			c.prove = withBasic(c.id, "secret-of-basic-bound")
		}
	}
	return clients
}

// clientOf is one of those.
func (p *fullProvider) clientOf(t *testing.T, id string) *soloClient {
	t.Helper()
	all := p.clients(t)
	if p.opts.tls {
		all = append(all, p.boundClients(t)...)
	}
	for _, c := range all {
		if c.id == id {
			return c
		}
	}
	t.Fatalf("no client %q", id)
	return nil
}
