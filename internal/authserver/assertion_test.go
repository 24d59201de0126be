package authserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const longSecret = secret + "-and-more-so-that-it-is-as-long-as-the-longest-hash-wants-it"

var (
	rsaKey     = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey      = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	otherKey   = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ed25519Key = sync.OnceValue(func() crypto.Signer { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) })
)

func must[K any](key K, err error) K {
	if err != nil {
		panic(err)
	}
	return key
}

// signed makes a JWT. header is names and values in turn.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, claims map[string]any, header ...any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	var opts jose.SignerOptions
	for i := 0; i < len(header); i += 2 {
		opts.WithHeader(jose.HeaderKey(header[i].(string)), header[i+1])
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &opts)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// assertionClaims are good ones with a jti of their own, with pairs of claims
// set; nil takes one away.
func assertionClaims(more ...any) map[string]any {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": client, "sub": client, "aud": "http://example.com/token", "jti": random(), "iat": now, "exp": now + 60,
	}
	for i := 0; i < len(more); i += 2 {
		if claims[more[i].(string)] = more[i+1]; more[i+1] == nil {
			delete(claims, more[i].(string))
		}
	}
	return claims
}

func assertionForm(assertion string, more ...string) string {
	return form(append(more, "client_assertion", assertion, "client_assertion_type", assertionType)...)
}

// withoutClient takes client_id and client_secret out of a form.
func withoutClient(form string) string {
	var kept []string
	for pair := range strings.SplitSeq(form, "&") {
		if !strings.HasPrefix(pair, "client_id=") && !strings.HasPrefix(pair, "client_secret=") {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

func TestAssertionMethods(t *testing.T) {
	config := Config{ClientID: client, ClientSecret: secret, Methods: []string{PrivateKeyJWT, SecretJWT},
		ClientKeys: PublicKeys(rsaKey().Public(), ecKey().Public(), ed25519Key().Public())}
	long := config
	long.ClientSecret = longSecret
	for name, test := range map[string]struct {
		config Config
		alg    jose.SignatureAlgorithm
		key    any
		want   int
	}{
		"RS256":                    {config, jose.RS256, rsaKey(), 200},
		"PS512":                    {config, jose.PS512, rsaKey(), 200},
		"ES256":                    {config, jose.ES256, ecKey(), 200},
		"EdDSA":                    {config, jose.EdDSA, ed25519Key(), 200},
		"HS256, a short secret":    {config, jose.HS256, secretKey(secret, jose.HS256).Key, 200},
		"HS512":                    {long, jose.HS512, []byte(longSecret), 200},
		"another key":              {config, jose.ES256, otherKey(), 400},
		"another secret":           {config, jose.HS256, []byte(longSecret), 400},
		"a secret not accepted":    {Config{ClientID: client, ClientSecret: longSecret, Methods: []string{PrivateKeyJWT}}, jose.HS256, []byte(longSecret), 400},
		"a key not accepted":       {Config{ClientID: client, ClientSecret: secret, ClientKeys: config.ClientKeys, Methods: []string{SecretJWT}}, jose.ES256, ecKey(), 400},
		"no keys":                  {Config{ClientID: client, Methods: []string{PrivateKeyJWT}}, jose.ES256, ecKey(), 400},
		"no secret":                {Config{ClientID: client, Methods: []string{SecretJWT}}, jose.HS256, make([]byte, 32), 400},
		"assertions not accepted":  {Config{ClientID: client, ClientSecret: secret, ClientKeys: config.ClientKeys}, jose.ES256, ecKey(), 400},
		"no client, and no claims": {Config{ClientKeys: config.ClientKeys, Methods: []string{PrivateKeyJWT}}, jose.ES256, ecKey(), 400},
	} {
		claims := assertionClaims()
		if name == "no client, and no claims" {
			claims = assertionClaims("iss", nil, "sub", nil)
		}
		w := ask(New(test.config), TokenPath, withoutClient(assertionForm(signed(t, test.alg, test.key, claims))))
		if w.Code != test.want || w.Code == 400 && members(t, w)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestAssertionClaims(t *testing.T) {
	good := New(Config{ClientID: client, ClientSecret: secret, Methods: []string{PrivateKeyJWT, Post}, ClientKeys: PublicKeys(ecKey().Public())})
	own := New(Config{ClientID: client, Methods: []string{PrivateKeyJWT}, ClientKeys: PublicKeys(ecKey().Public()), Issuer: "https://idp.example", AssertionAudiences: []string{"https://aud.example"}})
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		server *Server
		claims []any
		form   []string
		want   string
	}{
		"good":                  {good, nil, nil, ""},
		"client_id too":         {good, nil, []string{"client_id", client}, ""},
		"the issuer's audience": {good, []any{"aud", "http://example.com"}, nil, ""},
		"a list of audiences":   {good, []any{"aud", []string{"x", "http://example.com"}}, nil, ""},
		"a configured audience": {own, []any{"aud", "https://aud.example"}, nil, ""},
		"no iat":                {good, []any{"iat", nil}, nil, ""},
		"iat a little ahead":    {good, []any{"iat", now + 20, "nbf", now + 20}, nil, ""},
		"the issuer, where another is configured": {own, []any{"aud", "https://idp.example"}, nil, "audience"},
		"another audience":                        {good, []any{"aud", "https://other.example"}, nil, "audience"},
		"no audience":                             {good, []any{"aud", nil}, nil, "audience"},
		"another iss":                             {good, []any{"iss", "x"}, nil, "iss and sub"},
		"another sub":                             {good, []any{"sub", "x"}, nil, "iss and sub"},
		"no jti":                                  {good, []any{"jti", nil}, nil, "jti"},
		"no exp":                                  {good, []any{"exp", nil}, nil, "exp"},
		"expired":                                 {good, []any{"exp", now - 1}, nil, "expired"},
		"iat far ahead":                           {good, []any{"iat", now + 60}, nil, "iat"},
		"nbf far ahead":                           {good, []any{"nbf", now + 60}, nil, "nbf"},
		"unreadable claims":                       {good, []any{"exp", "soon"}, nil, "claims"},
		"another client_id":                       {good, nil, []string{"client_id", "x"}, "client_id"},
		"a secret as well":                        {good, nil, []string{"client_secret", secret, "client_id", client}, "more than one"},
	} {
		body := withoutClient(assertionForm(signed(t, jose.ES256, ecKey(), assertionClaims(test.claims...))))
		for i := 0; i < len(test.form); i += 2 {
			body += "&" + test.form[i] + "=" + strings.NewReplacer(" ", "+", "+", "%2B", "%", "%25", "&", "%26").Replace(test.form[i+1])
		}
		w := ask(test.server, TokenPath, body)
		text, _ := members(t, w)["error_description"].(string)
		if (w.Code == 200) != (test.want == "") || !strings.Contains(text, test.want) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, body := range map[string]string{
		"no type":      "grant_type=client_credentials&client_assertion=" + signed(t, jose.ES256, ecKey(), assertionClaims()),
		"another type": "grant_type=client_credentials&client_assertion_type=x&client_assertion=" + signed(t, jose.ES256, ecKey(), assertionClaims()),
		"no JWT":       withoutClient(assertionForm("x.y.z")),
		"unsigned":     withoutClient(assertionForm("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhcHAgMSJ9.")),
	} {
		if w := ask(good, TokenPath, body); w.Code != 400 || members(t, w)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestAssertionReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, Methods: []string{PrivateKeyJWT}, ClientKeys: PublicKeys(ecKey().Public())})
		claims := assertionClaims()
		body := withoutClient(assertionForm(signed(t, jose.ES256, ecKey(), claims)))
		for i, want := range []int{200, 400} {
			if w := ask(s, TokenPath, body); w.Code != want {
				t.Errorf("the time %d: %d %s", i, w.Code, w.Body)
			}
		}
		forged := maps.Clone(claims)
		forged["jti"] = "next"
		ask(s, TokenPath, withoutClient(assertionForm(signed(t, jose.ES256, otherKey(), forged))))
		if w := ask(s, TokenPath, withoutClient(assertionForm(signed(t, jose.ES256, ecKey(), forged)))); w.Code != 200 {
			t.Errorf("a jti that a stranger used first is answered %d %s", w.Code, w.Body)
		}
		next := assertionForm(signed(t, jose.ES256, ecKey(), assertionClaims()))
		wait(60 * time.Second)
		if w := ask(s, TokenPath, withoutClient(next)); w.Code != 400 {
			t.Errorf("at its end it is answered %d", w.Code)
		}
	})
}

func TestKeyIDs(t *testing.T) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: ecKey().Public(), KeyID: "a"}, {Key: otherKey().Public()}}}
	s := New(Config{ClientID: client, Methods: []string{PrivateKeyJWT}, ClientKeys: set})
	for _, test := range []struct {
		key  any
		kid  []any
		want int
	}{
		{ecKey(), []any{"kid", "a"}, 200},
		{ecKey(), nil, 200},
		{ecKey(), []any{"kid", "b"}, 400},
		{otherKey(), []any{"kid", "b"}, 200},
		{otherKey(), []any{"kid", "a"}, 200},
	} {
		w := ask(s, TokenPath, withoutClient(assertionForm(signed(t, jose.ES256, test.key, assertionClaims(), test.kid...))))
		if w.Code != test.want {
			t.Errorf("kid %v: %d %s", test.kid, w.Code, w.Body)
		}
	}
}

func TestFederated(t *testing.T) {
	s := New(Config{
		ClientID: client, ClientSecret: secret, FederatedKeys: PublicKeys(rsaKey().Public()),
		FederatedIssuer: "https://cluster.example", FederatedSubject: "system:serviceaccount:a:b", FederatedAudience: "api://exchange",
	})
	claims := func(more ...any) map[string]any {
		return assertionClaims(append([]any{"iss", "https://cluster.example", "sub", "system:serviceaccount:a:b", "aud", []string{"api://exchange"}}, more...)...)
	}
	body := withoutClient(assertionForm(signed(t, jose.RS256, rsaKey(), claims("jti", nil))))
	for i := range 2 { // the same file, read again
		if w := ask(s, TokenPath, body); w.Code != 200 {
			t.Errorf("the time %d: %d %s", i, w.Code, w.Body)
		}
	}
	if w := ask(s, TokenPath, body+"&client_id=app+1"); w.Code != 200 {
		t.Errorf("with its client_id: %d %s", w.Code, w.Body)
	}
	for name, text := range map[string]string{
		"another key":      signed(t, jose.ES256, ecKey(), claims()),
		"another issuer":   signed(t, jose.RS256, rsaKey(), claims("iss", "x")),
		"another subject":  signed(t, jose.RS256, rsaKey(), claims("sub", "x")),
		"another audience": signed(t, jose.RS256, rsaKey(), claims("aud", "http://example.com/token")),
		"expired":          signed(t, jose.RS256, rsaKey(), claims("exp", time.Now().Unix()-1)),
		"the client's own": signed(t, jose.RS256, rsaKey(), assertionClaims()),
		"HMAC":             signed(t, jose.HS256, []byte(longSecret), claims()),
	} {
		if w := ask(s, TokenPath, withoutClient(assertionForm(text))); w.Code != 400 || members(t, w)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if m := members(t, get(s, OAuthMetadataPath, nil)); !reflect.DeepEqual(m["token_endpoint_auth_methods_supported"], []any{Basic, Post, PrivateKeyJWT}) {
		t.Errorf("the methods are %v", m["token_endpoint_auth_methods_supported"])
	}
}

func TestMetadataOfAssertions(t *testing.T) {
	for _, test := range []struct {
		methods     []string
		first, last any
	}{
		{[]string{PrivateKeyJWT, SecretJWT}, "RS256", "HS512"},
		{[]string{SecretJWT}, "HS256", "HS512"},
		{[]string{PrivateKeyJWT}, "RS256", "EdDSA"},
		{[]string{Basic}, nil, nil},
	} {
		m := members(t, get(New(Config{Methods: test.methods}), OAuthMetadataPath, nil))
		algorithms, _ := m["token_endpoint_auth_signing_alg_values_supported"].([]any)
		if (algorithms == nil) != (test.first == nil) || algorithms != nil && (algorithms[0] != test.first || algorithms[len(algorithms)-1] != test.last) {
			t.Errorf("%v: %v", test.methods, algorithms)
		}
	}
}
