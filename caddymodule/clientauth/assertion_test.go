package clientauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, errEC := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(errRSA, errEC); err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"RSA": rsaKey, "P-256": ecKey}
})

func keyPEM(t *testing.T, name string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(testKeys()[name])
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func keyJWK(t *testing.T, name, kid string) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: testKeys()[name], KeyID: kid})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// requestWithFiles is request, with files to be read.
func requestWithFiles(id string, values map[string]string, files map[string][]byte) (*Request, *[]string) {
	r, secrets := request(id, values)
	r.ReadFile = func(path string) ([]byte, error) {
		path, err := r.Resolve(path)
		if err != nil {
			return nil, err
		}
		content, ok := files[path]
		if !ok {
			return nil, errors.New("open " + path + ": no such file")
		}
		return content, nil
	}
	return r, secrets
}

// sent reads the assertion of a request as a server would, and checks what is
// the same for each method.
func sent(t *testing.T, r *Request, secrets []string) (header jose.Header, claims map[string]any, signed *jose.JSONWebSignature) {
	t.Helper()
	assertion := r.Params.Get("client_assertion")
	if !slices.Contains(secrets, assertion) || assertion == "" {
		t.Errorf("the assertion is not masked")
	}
	if got := r.Params["client_assertion_type"]; !slices.Equal(got, []string{"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}) {
		t.Errorf("client_assertion_type is %q", got)
	}
	if len(r.Header) != 1 {
		t.Errorf("headers are %v", r.Header)
	}
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{"RS256", "PS256", "PS384", "ES256", "HS256", "HS384", "HS512"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims); err != nil {
		t.Fatal(err)
	}
	return signed.Signatures[0].Protected, claims, signed
}

const (
	tokenURL = "https://idp.example.com/token"
	issuer   = "https://idp.example.com"
)

func TestPrivateKeyJWT(t *testing.T) {
	files := map[string][]byte{
		"/run/rsa.pem": keyPEM(t, "RSA"), "/run/ec.pem": keyPEM(t, "P-256"), "/run/ec.jwk": keyJWK(t, "P-256", "jwk-1"),
	}
	values := map[string]string{"{env.KEY}": "/run/ec.jwk", "{env.KID}": "env-1", "{env.AUD}": "https://aud.example.com"}
	for _, test := range []struct {
		name       string
		method     PrivateKeyJWT
		issuer     string
		algorithms []string
		key, alg   string
		kid, aud   string
	}{
		{name: "RSA", method: PrivateKeyJWT{KeyFile: "/run/rsa.pem"}, key: "RSA", alg: "RS256", aud: tokenURL},
		{name: "issuer by default", method: PrivateKeyJWT{KeyFile: "/run/ec.pem"}, issuer: issuer, key: "P-256", alg: "ES256", aud: issuer},
		{name: "issuer", method: PrivateKeyJWT{KeyFile: "/run/ec.pem", Audience: "issuer"}, issuer: issuer, key: "P-256", alg: "ES256", aud: issuer},
		{name: "token endpoint", method: PrivateKeyJWT{KeyFile: "/run/ec.pem", Audience: "token_endpoint"}, issuer: issuer, key: "P-256", alg: "ES256", aud: tokenURL},
		{name: "audience", method: PrivateKeyJWT{KeyFile: "/run/ec.pem", Audience: "api://x"}, issuer: issuer, key: "P-256", alg: "ES256", aud: "api://x"},
		{name: "kid", method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", KeyID: "k1"}, key: "RSA", alg: "RS256", kid: "k1", aud: tokenURL},
		{name: "kid of the JWK", method: PrivateKeyJWT{KeyFile: "/run/ec.jwk"}, key: "P-256", alg: "ES256", kid: "jwk-1", aud: tokenURL},
		{name: "another kid", method: PrivateKeyJWT{KeyFile: "/run/ec.jwk", KeyID: "k1"}, key: "P-256", alg: "ES256", kid: "k1", aud: tokenURL},
		{
			name: "placeholders", method: PrivateKeyJWT{KeyFile: "{env.KEY}", KeyID: "{env.KID}", Audience: "{env.AUD}"},
			key: "P-256", alg: "ES256", kid: "env-1", aud: "https://aud.example.com",
		},
		{name: "alg", method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", Alg: "PS384"}, key: "RSA", alg: "PS384", aud: tokenURL},
		{name: "FAPI", method: PrivateKeyJWT{KeyFile: "/run/rsa.pem"}, algorithms: []string{"PS256", "ES256"}, key: "RSA", alg: "PS256", aud: tokenURL},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, secrets := requestWithFiles("app", values, files)
				r.Issuer, r.Algorithms = test.issuer, test.algorithms
				if err := test.method.Authenticate(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				header, claims, signed := sent(t, r, *secrets)
				if _, err := signed.Verify(testKeys()[test.key].Public()); err != nil {
					t.Error(err)
				}
				if header.Algorithm != test.alg || header.KeyID != test.kid || header.JSONWebKey != nil {
					t.Errorf("the header is %+v", header)
				}
				checkClientClaims(t, claims, test.aud)
				if r.Params.Get("client_id") != "app" || len(r.Params) != 4 {
					t.Errorf("parameters are %v", slices.Collect(maps.Keys(r.Params)))
				}
			})
		})
	}
}

// checkClientClaims checks the claims of RFC 7523 §3, in a bubble's time.
func checkClientClaims(t *testing.T, claims map[string]any, aud string) {
	t.Helper()
	now := float64(time.Now().Unix())
	want := map[string]any{"iss": "app", "sub": "app", "aud": aud, "iat": now - 5, "exp": now + 60}
	jti, ok := claims["jti"].(string)
	if !ok || len(jti) < 22 {
		t.Errorf("jti is %v", claims["jti"])
	}
	delete(claims, "jti")
	if !maps.Equal(claims, want) {
		t.Errorf("the claims are %v, expected %v", claims, want)
	}
}

// TestAssertionIsFresh: each attempt has a jti of its own and reads key and
// secret anew, and a retry sends one assertion and not two.
func TestAssertionIsFresh(t *testing.T) {
	files := map[string][]byte{"/run/key": keyPEM(t, "RSA")}
	values := map[string]string{"{env.S}": "old"}
	r, secrets := requestWithFiles("app", values, files)
	for _, method := range []Method{&PrivateKeyJWT{KeyFile: "/run/key"}, &ClientSecretJWT{Secret: "{env.S}"}} {
		seen := make(map[any]bool)
		for range 3 {
			if err := method.Authenticate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			_, claims, _ := sent(t, r, *secrets)
			seen[claims["jti"]] = true
		}
		if len(seen) != 3 || len(r.Params["client_assertion"]) != 1 {
			t.Errorf("%T: %d different jti, %d assertions", method, len(seen), len(r.Params["client_assertion"]))
		}
	}
	files["/run/key"], values["{env.S}"] = keyPEM(t, "P-256"), strings.Repeat("new-", 8)
	if err := (&PrivateKeyJWT{KeyFile: "/run/key"}).Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	_, _, signed := sent(t, r, *secrets)
	if _, err := signed.Verify(testKeys()["P-256"].Public()); err != nil {
		t.Errorf("the new key is not used: %v", err)
	}
	if err := (&ClientSecretJWT{Secret: "{env.S}"}).Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	_, _, signed = sent(t, r, *secrets)
	if _, err := signed.Verify([]byte(values["{env.S}"])); err != nil {
		t.Errorf("the new secret is not used: %v", err)
	}
}

func TestPrivateKeyJWTFails(t *testing.T) {
	files := map[string][]byte{
		"/run/rsa.pem": keyPEM(t, "RSA"), "/run/garbage": []byte("s3cr3t-hunter2"),
		"/run/public": bytes.Replace(keyPEM(t, "RSA"), []byte("PRIVATE"), []byte("PUBLIC"), 2),
	}
	values := map[string]string{"{env.KEY}": string(keyPEM(t, "P-256"))}
	for name, test := range map[string]struct {
		method     PrivateKeyJWT
		algorithms []string
		noID       bool
		want       []string
	}{
		"no file":          {method: PrivateKeyJWT{KeyFile: "/run/missing"}, want: []string{"key_file", "/run/missing", "no such file"}},
		"no placeholder":   {method: PrivateKeyJWT{KeyFile: "{env.NOT_SET}"}, want: []string{"key_file", "{env.NOT_SET}"}},
		"the key itself":   {method: PrivateKeyJWT{KeyFile: "{env.KEY}"}, want: []string{"key_file", "{env.KEY}", "path"}},
		"garbage":          {method: PrivateKeyJWT{KeyFile: "/run/garbage"}, want: []string{"key_file", "/run/garbage", "neither PEM nor JSON"}},
		"public":           {method: PrivateKeyJWT{KeyFile: "/run/public"}, want: []string{"key_file", "/run/public", "a public key"}},
		"alg of another":   {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", Alg: "ES256"}, want: []string{"alg is ES256", "RSA", "RS256"}},
		"alg not taken":    {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", Alg: "RS256"}, algorithms: []string{"PS256"}, want: []string{"alg is RS256", "server", "PS256"}},
		"no alg in common": {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem"}, algorithms: []string{"ES256"}, want: []string{"RSA", "server", "ES256"}},
		"kid":              {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", KeyID: "{env.NOT_SET}"}, want: []string{"key_id", "{env.NOT_SET}"}},
		"audience":         {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", Audience: "{env.NOT_SET}"}, want: []string{"audience", "{env.NOT_SET}"}},
		"no issuer":        {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem", Audience: "issuer"}, want: []string{"audience is issuer", "token_url", "token_endpoint"}},
		"no client_id":     {method: PrivateKeyJWT{KeyFile: "/run/rsa.pem"}, noID: true, want: []string{"client_id is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := requestWithFiles("app", values, files)
			r.Algorithms = test.algorithms
			if test.noID {
				r.ClientID = ""
			}
			err := test.method.Authenticate(t.Context(), r)
			if err == nil {
				t.Fatal("no error")
			}
			checkError(t, err, append(test.want, "private_key_jwt"), "s3cr3t-hunter2")
			checkError(t, err, nil, "PRIVATE KEY-----")
			if len(r.Params) != 1 {
				t.Errorf("parameters are %v", r.Params)
			}
		})
	}
}

func TestClientSecretJWT(t *testing.T) {
	for name, test := range map[string]struct {
		method     ClientSecretJWT
		issuer     string
		algorithms []string
		alg, aud   string
		secret     string
	}{
		"default":        {method: ClientSecretJWT{Secret: "{env.S}"}, alg: "HS256", aud: tokenURL, secret: strings.Repeat(oddSecret, 5)},
		"issuer":         {method: ClientSecretJWT{Secret: "{env.S}"}, issuer: issuer, alg: "HS256", aud: issuer, secret: strings.Repeat(oddSecret, 5)},
		"token endpoint": {method: ClientSecretJWT{Secret: "{env.S}", Audience: "token_endpoint"}, issuer: issuer, alg: "HS256", aud: tokenURL, secret: strings.Repeat(oddSecret, 5)},
		"audience":       {method: ClientSecretJWT{Secret: "{env.S}", Audience: "api"}, issuer: issuer, alg: "HS256", aud: "api", secret: strings.Repeat(oddSecret, 5)},
		"alg":            {method: ClientSecretJWT{Secret: "{env.S}", Alg: "HS512"}, alg: "HS512", aud: tokenURL, secret: strings.Repeat(oddSecret, 5)},
		"server's alg":   {method: ClientSecretJWT{Secret: "{env.S}"}, algorithms: []string{"RS256", "HS384"}, alg: "HS384", aud: tokenURL, secret: strings.Repeat(oddSecret, 5)},
		"short secret":   {method: ClientSecretJWT{Secret: "{env.S}"}, alg: "HS256", aud: tokenURL, secret: oddSecret},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, secrets := request("app", map[string]string{"{env.S}": test.secret})
				r.Issuer, r.Algorithms = test.issuer, test.algorithms
				if err := test.method.Authenticate(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				header, claims, signed := sent(t, r, *secrets)
				if header.Algorithm != test.alg || header.KeyID != "" {
					t.Errorf("the header is %+v", header)
				}
				if len(test.secret) >= 64 {
					if _, err := signed.Verify([]byte(test.secret)); err != nil {
						t.Error(err)
					}
				} else if !signedBy(test.secret, r.Params.Get("client_assertion")) {
					t.Error("the signature is not that of the short secret")
				}
				checkClientClaims(t, claims, test.aud)
				if !slices.Contains(*secrets, test.secret) {
					t.Error("the secret is not masked")
				}
				if r.Params.Get("client_id") != "app" || r.Params.Has("client_secret") {
					t.Errorf("parameters are %v", slices.Collect(maps.Keys(r.Params)))
				}
			})
		})
	}
}

// signedBy verifies HS256 by the standard library: go-jose takes no short secret.
func signedBy(secret, token string) bool {
	content, signature := token[:strings.LastIndex(token, ".")], token[strings.LastIndex(token, ".")+1:]
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(content))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) == signature
}

func TestClientSecretJWTFails(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	for name, test := range map[string]struct {
		method     ClientSecretJWT
		id         string
		algorithms []string
		want       []string
	}{
		"secret":       {method: ClientSecretJWT{Secret: "{env.NOT_SET}"}, id: "app", want: []string{"client secret", "{env.NOT_SET}"}},
		"alg":          {method: ClientSecretJWT{Secret: secret}, id: "app", algorithms: []string{"RS256"}, want: []string{"HS256", "server", "RS256"}},
		"no issuer":    {method: ClientSecretJWT{Secret: secret, Audience: "issuer"}, id: "app", want: []string{"audience is issuer"}},
		"no client_id": {method: ClientSecretJWT{Secret: secret}, want: []string{"client_id is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := request(test.id, nil)
			r.Algorithms = test.algorithms
			err := test.method.Authenticate(t.Context(), r)
			if err == nil {
				t.Fatal("no error")
			}
			checkError(t, err, test.want, secret)
			if len(r.Params) != 1 {
				t.Errorf("parameters are %v", r.Params)
			}
		})
	}
}
