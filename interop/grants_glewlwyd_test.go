package interop

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// behindGlewlwyd has DPoP proofs need a nonce.
func behindGlewlwyd(t *testing.T, tls bool) (*behind, *glewlwyd) {
	t.Helper()
	ports := freePorts(t, 30)
	redirectURIs := []string{redirectURI}
	for _, port := range ports {
		redirectURIs = append(redirectURIs, "http://"+port+"/callback")
	}
	g := startGlewlwyd(t, glewlwydOptions{ttl: cellTTL, nonce: true, tls: tls, redirectURIs: redirectURIs})
	b := &behind{
		authority: &askedInTurn{glewlwyd: g},
		name:      glewlwydName,
		issuer:    g.issuer,
		authURL:   g.authURL(),
		device:    g.issuer + g.path("device"),
		scopes:    "read write",
		login:     "read write",
		ports:     ports,
		browse:    g.browse,
		initial: func(t *testing.T, id string) string {
			t.Helper()
			return g.initial(t, id, nil)
		},
		confirm: func(t *testing.T, code string) {
			t.Helper()
			g.confirm(t, code, true)
		},
	}
	if !tls {
		b.stats = func(*testing.T) serverStats { return g.stats() }
	}
	return b, g
}

// askedInTurn is a glewlwyd whose upstream asks like all others through what
// stands before it, and has a token of its own for that, for a while.
type askedInTurn struct {
	*glewlwyd

	mu    sync.Mutex
	own   string
	until time.Time
}

// inspect takes the place of glewlwyd's own.
func (a *askedInTurn) inspect(ctx context.Context, token string) (fullIntrospection, error) {
	var in fullIntrospection
	own, err := a.ownToken(ctx)
	if err != nil {
		return in, err
	}
	req, err := newForm(ctx, a.issuer+"/introspect", url.Values{"token": {token}})
	if err != nil {
		return in, err
	}
	req.Header.Set("Authorization", "Bearer "+own)
	err = fetch(a.client, req, &in)
	return in, err
}

func (a *askedInTurn) ownToken(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.until) {
		return a.own, nil
	}
	req, err := newForm(ctx, a.tokenURL(), url.Values{"grant_type": {"client_credentials"}, "scope": {"introspect"}})
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(upstreamID, upstreamSecret)
	req.Header.Set(setupHeader, "1")
	var got tokens
	if err := fetch(a.client, req, &got); err != nil {
		return "", err
	}
	a.own, a.until = got.AccessToken, time.Now().Add(a.opts.ttl/2)
	return a.own, nil
}

// TestGrantsGlewlwyd: it takes the client's id and secret raw, and assertions
// that are meant for its token endpoint alone.
func TestGrantsGlewlwyd(t *testing.T) {
	b, g := behindGlewlwyd(t, false)
	clients := func() []client {
		const aud = "audience token_endpoint"
		all := []client{
			byBasicAuth("basic", "secret-of-basic", "form", "form"),
			byBasicAuth("basic-odd", oddSecret, "raw", "raw, odd secret"),
			bySecretPost("post", "secret-of-post", ""),
			bySecretPost("post-odd", oddSecret, "odd secret"),
			bySecretJWT("secret-jwt", secretOfJWT, "HS256", aud),
			byJWTFile(t, "key-es256", "", func() string {
				return clientAssertion(t, "key-es256", jose.ES256, readKey(t, g.keyFile("key-es256")), g.tokenURL())
			}),
			byPrivateKey("key-es256", "ES256, PEM", g.keyFile("key-es256"), "key_id key-es256", aud),
			byPrivateKey("key-es256", "ES256, JWK", jwkFile(t, g.keyFile("key-es256"), "key-es256"), aud),
			byPrivateKey("key-rs256", "RS256, PEM", g.keyFile("key-rs256"), "key_id key-rs256", aud),
			byPrivateKey("key-ps256", "PS256, PEM", g.keyFile("key-ps256"), "key_id key-ps256", "alg PS256", aud),
			byPrivateKey("key-eddsa", "EdDSA, PEM", g.keyFile("key-eddsa"), "key_id key-eddsa", aud),
		}
		for i := range all {
			if all[i].method == "client_secret_jwt" {
				all[i].as = "private_key_jwt" // what stands before it cannot tell
			}
		}
		return all
	}
	for _, found := range b.found() {
		for _, cl := range clients() {
			b.clientCredentials(cl, found)
		}
		for _, cl := range append(clients(), byNothing("public")) {
			b.refreshToken(t, cl, found)
		}
		var methods []string
		for _, cl := range append(clients(), byNothing("public")) {
			if !slices.Contains(methods, cl.method) {
				methods = append(methods, cl.method)
				b.authorizationCode(cl, found)
			}
		}
		basic := byBasicAuth("basic", "secret-of-basic", "form", "form")
		for _, cl := range []client{basic, byNothing("public")} {
			b.deviceCode(cl, found)
		}
		fixed := byBasicAuth("fixed", "secret-of-fixed", "form", "not rotating")
		b.refreshToken(t, fixed, found).static = true
		key := newProofKeys(t)[0]
		bound := byBasicAuth("dpop", "secret-of-dpop", "form", "DPoP ES256, nonces")
		for _, c := range []*cell{b.clientCredentials(bound, found, key.line()), b.authorizationCode(bound, found, key.line())} {
			c.proven(startProven(t, g, 4))
		}
		basic.what = "resource"
		b.clientCredentials(basic, found, "resource https://api.example.com").check = func(t *testing.T, _ *cell, token string) {
			t.Helper()
			if in, err := g.inspect(t.Context(), token); err != nil || in.Aud != "https://api.example.com" {
				t.Errorf("the token is for %q, %v", in.Aud, err)
			}
		}
	}
	b.clientCredentials(byJWTFile(t, "key-es256", "another issuer's", func() string {
		options := (&jose.SignerOptions{}).WithHeader(jose.HeaderKey("kid"), "key-es256")
		return signJWT(t, jose.ES256, readKey(t, g.keyFile("key-es256")), options, foreignClaims("key-es256", g.tokenURL()))
	}), "issuer").status = http.StatusForbidden
	openID := byBasicAuth("basic", "secret-of-basic", "form", "with an ID token")
	b.authorizationCode(openID, "issuer", "scopes openid read write")
	b.authorizationCode(byBasicAuth("basic", "secret-of-basic", "form", "form"), "issuer", "refresh_at 75%").loggedOut("status 400", func(t *testing.T, refreshToken string) {
		t.Helper()
		if a := g.clientOf(t, "basic").refresh(t, refreshToken); a.AccessToken != "" {
			t.Error("the server still takes the refresh token")
		}
	})
	b.run(t)
}

// TestGrantsGlewlwydTLS: nothing stands before it there that could count.
func TestGrantsGlewlwydTLS(t *testing.T) {
	b, g := behindGlewlwyd(t, true)
	b.lines = []string{block("tls", []string{"ca " + g.certs.file})}
	for _, found := range b.found() {
		for _, c := range g.clients(t) {
			if c.cert == nil {
				continue
			}
			auth := block("tls_client_auth", []string{"cert " + c.cert.cert, "key " + c.cert.key})
			cl := client{credential: credential{c.id, "", auth, nil}, method: "tls_client_auth", what: "CA-issued, " + c.id, tokenURL: g.mtlsTokenURL()}
			b.clientCredentials(cl, found)
			b.refreshToken(t, cl, found)
			b.authorizationCode(cl, found)
		}
	}
	for _, c := range b.cells {
		c.check = func(t *testing.T, _ *cell, token string) {
			t.Helper()
			in, err := g.inspect(t.Context(), token)
			if want := g.certs.certOf(t, c.clientID, nil).thumbprint(t); err != nil || in.Cnf.X5tS256 != want {
				t.Errorf("the token is bound to %+v, %v; want %s", in.Cnf, err, want)
			}
		}
	}
	b.run(t)
}
