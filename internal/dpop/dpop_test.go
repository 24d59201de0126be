package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func parseURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func parseKey(t *testing.T, private any) *signing.Key {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signing.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verify reads a proof as a server does, by the key in it (RFC 9449 §4.3).
func verify(t *testing.T, proof string, key *signing.Key, alg string) map[string]any {
	t.Helper()
	signed, err := jose.ParseSignedCompact(proof, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatal(err)
	}
	head := signed.Signatures[0].Protected
	if head.JSONWebKey == nil || !head.JSONWebKey.IsPublic() || head.KeyID != "" || head.ExtraHeaders["typ"] != "dpop+jwt" {
		t.Fatalf("the header is %+v", head)
	}
	payload, err := signed.Verify(head.JSONWebKey)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := head.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil || base64.RawURLEncoding.EncodeToString(sum) != key.Thumbprint() {
		t.Errorf("the proof has another key: %v", err)
	}
	rawHeader, err := base64.RawURLEncoding.DecodeString(proof[:strings.IndexByte(proof, '.')])
	if err != nil || strings.Contains(string(rawHeader), `"d":`) {
		t.Errorf("the header holds the private key, or no base64: %v", err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestProof(t *testing.T) {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1562262616, 999_999_999)
	for name, test := range map[string]struct {
		private                         any
		alg, method, url, nonce, access string
		want                            map[string]any // beside jti
	}{
		"token request": {
			ecKey, "ES256", "POST", "https://server.example.com/token", "", "",
			map[string]any{"htm": "POST", "htu": "https://server.example.com/token", "iat": 1562262616.0},
		},
		// the access token and its hash are those of RFC 9449 §7.1
		"request to an API": {
			rsaKey, "PS256", "GET", "https://resource.example.org/protectedresource?a=b#c", "eyJ7S_zG.eyJH0-Z.HX4w-7v", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
			map[string]any{
				"htm": "GET", "htu": "https://resource.example.org/protectedresource", "iat": 1562262616.0,
				"nonce": "eyJ7S_zG.eyJH0-Z.HX4w-7v", "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
			},
		},
		"Ed25519": {
			edKey, "EdDSA", "DELETE", "http://127.0.0.1:8080/x", "n", "",
			map[string]any{"htm": "DELETE", "htu": "http://127.0.0.1:8080/x", "iat": 1562262616.0, "nonce": "n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			key := parseKey(t, test.private)
			seen := make(map[any]bool)
			for range 3 {
				proof, err := Proof(key, test.alg, test.method, parseURL(t, test.url), test.nonce, test.access, now)
				if err != nil {
					t.Fatal(err)
				}
				claims := verify(t, proof, key, test.alg)
				if id, ok := claims["jti"].(string); !ok || len(id) < 16 {
					t.Errorf("jti is %v", claims["jti"])
				}
				seen[claims["jti"]] = true
				delete(claims, "jti")
				if !maps.Equal(claims, test.want) {
					t.Errorf("the claims are %v, expected %v", claims, test.want)
				}
			}
			if len(seen) != 3 {
				t.Errorf("%d different jti in 3 proofs", len(seen))
			}
		})
	}
	key := parseKey(t, ecKey)
	if _, err := Proof(key, "RS256", "GET", parseURL(t, "https://a.example.com"), "", "", now); err == nil {
		t.Error("an EC key signs with RS256")
	}
	if _, err := Proof(key, "ES256", "GET", parseURL(t, "/path"), "", "", now); err == nil {
		t.Error("a proof for no host")
	}
}

func TestTarget(t *testing.T) {
	for raw, want := range map[string]string{
		"https://a.example.com":                       "https://a.example.com/",
		"https://a.example.com/":                      "https://a.example.com/",
		"HTTPS://A.Example.COM/Path":                  "https://a.example.com/Path",
		"https://a.example.com:443/x":                 "https://a.example.com/x",
		"https://a.example.com:/x":                    "https://a.example.com/x",
		"https://a.example.com:80/x":                  "https://a.example.com:80/x",
		"http://a.example.com:80/x":                   "http://a.example.com/x",
		"http://a.example.com:8080/x":                 "http://a.example.com:8080/x",
		"https://[2001:DB8::1]/x":                     "https://[2001:db8::1]/x",
		"https://[2001:db8::1]:8443/x":                "https://[2001:db8::1]:8443/x",
		"https://user:s3cr3t@a.example.com/x":         "https://a.example.com/x",
		"https://a.example.com/x?a=b&c=d#e":           "https://a.example.com/x",
		"https://a.example.com/x?":                    "https://a.example.com/x",
		"https://a.example.com?a=b":                   "https://a.example.com/",
		"https://a.example.com/a%2Fb%20c/%C3%BC":      "https://a.example.com/a%2Fb%20c/%C3%BC",
		"https://a.example.com/a/../b//c/":            "https://a.example.com/a/../b//c/",
		"https://a.example.com/%7Euser/;p=1,2/(x)'*!": "https://a.example.com/%7Euser/;p=1,2/(x)'*!",
	} {
		if got, err := target(parseURL(t, raw)); err != nil || got != want {
			t.Errorf("%s: got %s, %v; expected %s", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "/x", "//a.example.com/x", "ftp://a.example.com/x", "https:///x", "https://:443/x", "https:a.example.com", "mailto:a@example.com"} {
		if got, err := target(parseURL(t, raw)); err == nil {
			t.Errorf("%q becomes %q", raw, got)
		}
	}
}
