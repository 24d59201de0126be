package interop

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

// browse opens an address as a person's browser does, and returns the redirect
// URI that it leads to, which is not opened.
func (s *server) browse(t *testing.T, address string) (*url.URL, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(next.URL.String(), s.issuer+"/") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return resp.Location()
}

func behindServer(t *testing.T, kind string) (*behind, *server) {
	t.Helper()
	s := startServer(t, kind, cellTTL, 0)
	return &behind{
		authority: s,
		name:      serverNames[kind],
		authURL:   s.issuer + "/authorize",
		scopes:    "read write",
		login:     "read write",
		ends:      true,
		ports:     freePorts(t, 30),
		initial:   s.initial,
		browse:    s.browse,
		stats:     s.stats,
	}, s
}

// keyClients sign with each of their keys, from each form of file; the audience
// is the one that the server takes.
func (s *server) keyClients(t *testing.T) []client {
	t.Helper()
	rsa, ec := s.keyFile(t, "key-rs256"), s.keyFile(t, "key-es256")
	audience := "audience " + s.assertionAudience()
	return []client{
		byPrivateKey("key-rs256", "RS256, PEM", rsa, "key_id key-rs256", audience),
		byPrivateKey("key-es256", "ES256, PEM", ec, "key_id key-es256", audience),
		byPrivateKey("key-es256", "ES256, JWK", jwkFile(t, ec, "key-es256"), audience),
		byJWTFile(t, "key-es256", "", func() string { return assertion(t, "key-es256", s.assertionAudience()) }),
	}
}

func (s *server) keyFile(t *testing.T, clientID string) string {
	t.Helper()
	ring, err := clientKeys()
	if err != nil {
		t.Fatal(err)
	}
	return ring.private[clientID]
}

// foreign is a JWT of another issuer, as of a cluster, in which the client is
// the subject.
func (s *server) foreign(t *testing.T) string {
	t.Helper()
	ring, err := clientKeys()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Signed(ring.signers["key-es256"]).Claims(foreignClaims("key-es256", s.assertionAudience())).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// jwtBearer is a cell in which a key's client asks in its own name.
func (b *behind) jwtBearer(found, what string, options ...string) *cell {
	return b.add(client{method: "none", what: what}, "jwt_bearer", found, block("grant jwt_bearer", options))
}

// jwtBearers are those that a server takes whose clients are the issuers.
func (b *behind) jwtBearers(t *testing.T, s *server, found string) {
	t.Helper()
	for _, id := range []string{"key-rs256", "key-es256"} {
		b.jwtBearer(found, "signed here, "+id, "key_file "+s.keyFile(t, id), "key_id "+id,
			"issuer "+id, "subject "+id, "audience "+s.assertionAudience())
	}
	b.jwtBearer(found, "a file's", "assertion {file."+renewedFile(t, func() string {
		return assertion(t, "key-es256", s.assertionAudience())
	})+"}")
}

// TestGrantsFosite: it has no metadata, so there is no issuer, no endpoint for
// revocation, and no device grant.
func TestGrantsFosite(t *testing.T) {
	t.Parallel()
	b, s := behindServer(t, fosite)
	b.login = "read write offline_access"
	clients := func() []client {
		return append([]client{
			byBasicAuth("basic", "secret-of-basic", "form", "form"),
			byBasicAuth("basic-odd", oddSecret, "form", "form, odd secret"),
			byBasicAuth("basic", "secret-of-basic", "raw", "raw"),
			bySecretPost("post", "secret-of-post", ""),
			bySecretPost("post-odd", oddSecret, "odd secret"),
		}, s.keyClients(t)...)
	}
	for _, cl := range clients() {
		b.clientCredentials(cl, "token_url")
	}
	for _, cl := range append(clients(), byNothing("public")) {
		b.refreshToken(t, cl, "token_url")
	}
	for _, cl := range append(clients(), byNothing("public")) {
		b.authorizationCode(cl, "token_url")
	}
	b.jwtBearers(t, s, "token_url")

	forAPI := byBasicAuth("basic", "secret-of-basic", "form", "audience")
	b.clientCredentials(forAPI, "token_url", "audience https://api.example.com").check = func(t *testing.T, _ *cell, token string) {
		t.Helper()
		s.checkAudience(t, token, "https://api.example.com")
	}
	b.clientCredentials(byJWTFile(t, "key-es256", "another issuer's", func() string { return s.foreign(t) }), "token_url").code = "invalid_client"
	b.run(t)
}

// checkAudience looks whom the server says that a token is for.
func (s *server) checkAudience(t *testing.T, token, want string) {
	t.Helper()
	var in struct{ Aud []string }
	req, err := newForm(t.Context(), s.issuer+"/introspect", url.Values{"token": {token}})
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(upstreamID, upstreamSecret)
	if err := askProvider(req, &in); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(in.Aud, want) {
		t.Errorf("the token is for %q; want %q", in.Aud, want)
	}
}

// TestGrantsGoOAuth2: it has no metadata, knows no signed assertions, and takes
// the client's id and secret raw. It checks no client when it refreshes.
func TestGrantsGoOAuth2(t *testing.T) {
	t.Parallel()
	b, _ := behindServer(t, goOAuth2)
	clients := []client{
		byBasicAuth("basic", "secret-of-basic", "form", "form"),
		byBasicAuth("basic", "secret-of-basic", "raw", "raw"),
		byBasicAuth("basic-odd", oddSecret, "raw", "raw, odd secret"),
		bySecretPost("post", "secret-of-post", ""),
		bySecretPost("post-odd", oddSecret, "odd secret"),
	}
	for _, cl := range clients {
		b.clientCredentials(cl, "token_url")
	}
	for _, cl := range append(clients, byNothing("public")) {
		b.refreshToken(t, cl, "token_url")
		b.authorizationCode(cl, "token_url")
	}
	b.clientCredentials(byBasicAuth("basic-odd", oddSecret, "form", "form, odd secret"), "token_url").code = "invalid_client"
	b.run(t)
}

// TestGrantsZitadel: it takes a signed assertion from a client with a code or a
// refresh token alone, and token exchange by Basic alone. Its metadata has RS256
// and no other algorithm, though it takes them; of those clients that its clients
// are here, it lets none that proves itself by Basic ask for a device.
func TestGrantsZitadel(t *testing.T) {
	t.Parallel()
	b, s := behindServer(t, zitadel)
	b.issuer = s.issuer
	b.login = "openid read write offline_access"
	b.device = s.issuer + "/device_authorization"
	b.confirm = func(*testing.T, string) {} // the person agrees before anybody asks
	secrets := []client{
		byBasicAuth("basic", "secret-of-basic", "form", "form"),
		byBasicAuth("basic-odd", oddSecret, "form", "form, odd secret"),
		byBasicAuth("basic", "secret-of-basic", "raw", "raw"),
		bySecretPost("post", "secret-of-post", ""),
		bySecretPost("post-odd", oddSecret, "odd secret"),
	}
	clients := func(found string) []client {
		all := append(slices.Clone(secrets), byNothing("public"))
		if found == "token_url" {
			return append(all, s.keyClients(t)...)
		}
		rsa := s.keyFile(t, "key-rs256")
		return append(all,
			byPrivateKey("key-rs256", "RS256, PEM", rsa, "key_id key-rs256"),
			byPrivateKey("key-rs256", "RS256, JWK, audience issuer", jwkFile(t, rsa, "key-rs256"), "audience issuer"),
			byJWTFile(t, "key-es256", "", func() string { return assertion(t, "key-es256", s.issuer) }))
	}
	for _, found := range b.found() {
		for _, cl := range secrets {
			b.clientCredentials(cl, found)
		}
		for _, cl := range clients(found) {
			b.refreshToken(t, cl, found)
		}
		for _, cl := range clients(found) {
			b.authorizationCode(cl, found)
		}
		for _, cl := range []client{secrets[3], byNothing("public")} {
			b.deviceCode(cl, found)
		}
		b.jwtBearers(t, s, found)
		b.exchanges(t, s, found)
	}
	b.refreshToken(t, byPrivateKey("key-es256", "ES256", s.keyFile(t, "key-es256")), "issuer").cause =
		"private_key_jwt: the key is EC on P-256 and signs with ES256, but the server says that it takes RS256"
	b.authorizationCode(secrets[0], "issuer", "refresh_at 75%").loggedOut("invalid_grant", func(t *testing.T, refreshToken string) {
		t.Helper()
		if got := s.refresh(t, refreshToken); got.Error != "invalid_grant 400" {
			t.Errorf("the server answers %+v; want invalid_grant", got)
		}
	})
	b.run(t)
}

// exchanges are those of RFC 8693.
func (b *behind) exchanges(t *testing.T, s *server, found string) {
	t.Helper()
	add := func(what string, options ...string) *cell {
		return b.add(byBasicAuth("basic", "secret-of-basic", "form", what), "token_exchange", found, block("grant token_exchange", options))
	}
	idToken := func(t *testing.T) string { t.Helper(); return s.login(t, "basic").IDToken }
	accessToken := func(t *testing.T) string { t.Helper(); return s.login(t, "jwt").AccessToken }
	aJWT := func(t *testing.T) string { t.Helper(); return assertion(t, "key-es256", s.issuer) }
	ofUser := func(what string, subject func(*testing.T) string, subjectType string, more ...string) {
		c := add(what, append([]string{"subject_token {env.SUBJECT}", "subject_token_type " + subjectType}, more...)...)
		c.prepare = func(t *testing.T, c *cell) {
			t.Helper()
			c.env["SUBJECT"], c.env["ACTOR"] = subject(t), aJWT(t)
		}
	}
	ofUser("an ID token", idToken, "id_token")
	ofUser("an access token", accessToken, "access_token", "requested_token_type access_token")
	ofUser("a JWT", aJWT, "jwt")
	ofUser("with an actor", idToken, "id_token", "actor_token {env.ACTOR}", "actor_token_type jwt")

	subjects := make([]string, 3)
	c := add("the client's own", "subject_token request")
	c.tokens = len(subjects)
	c.least = 4 * len(subjects)
	c.prepare = func(t *testing.T, _ *cell) {
		t.Helper()
		for i := range subjects {
			subjects[i] = accessToken(t)
		}
	}
	n := 0
	c.bearer = func() string {
		n++
		return subjects[(n-1)/len(ways)%len(subjects)]
	}
	c.seen = func(t *testing.T, all map[string]fullIntrospection) {
		t.Helper()
		if len(all) != len(subjects) {
			t.Errorf("%d tokens for %d clients", len(all), len(subjects))
		}
		for _, subject := range subjects {
			c.secrets.add("a client's token", subject)
			if _, passed := all[subject]; passed {
				t.Error("a client's own token came to the upstream")
			}
		}
	}
	c.refusals = map[string]int{"invalid_request": 1} // which is remembered
	c.end = func(t *testing.T, c *cell) {
		t.Helper()
		c.bearer = func() string { return "unheard-of" }
		began := time.Now()
		for _, way := range ways {
			a, err := c.get(t.Context(), way)
			if err != nil || a.status != http.StatusUnauthorized || !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Errorf("%s, a token that the server does not know: %d %v, %v; want 401 and invalid_token", way, a.status, a.header, err)
			}
		}
		if time.Since(began) >= time.Second { // for which it is remembered
			c.refusals["invalid_request"] = len(ways)
		}
	}
}

// foreignClaims are those of a JWT in which a client is the subject, and not the
// issuer.
func foreignClaims(clientID, audience string) jwt.Claims {
	now := time.Now()
	return jwt.Claims{
		Issuer:   "https://cluster.example.com",
		Subject:  clientID,
		Audience: jwt.Audience{audience},
		ID:       rand.Text(),
		IssuedAt: jwt.NewNumericDate(now.Add(-5 * time.Second)),
		Expiry:   jwt.NewNumericDate(now.Add(time.Minute)),
	}
}
