package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	add := func(name string, key crypto.Signer, err error) {
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	for name, bits := range map[string]int{"RSA": 2048, "RSA-1024": 1024} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		add(name, key, err)
	}
	for name, curve := range map[string]elliptic.Curve{
		"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(),
	} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(name, key, err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	add("Ed25519", key, err)
	return keys
})

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t testing.TB, name string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(testKeys()[name])
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func sec1(t testing.TB, name string) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(testKeys()[name].(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return block("EC PRIVATE KEY", der)
}

func pkcs1(name string) []byte {
	return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKeys()[name].(*rsa.PrivateKey)))
}

// jwk is a key as a private JWK, with members added, or taken out by nil.
func jwk(t testing.TB, name string, members map[string]any) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: testKeys()[name]})
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	for member, value := range members {
		object[member] = value
		if value == nil {
			delete(object, member)
		}
	}
	return encode(t, object)
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(t testing.TB, content []byte) *Key {
	t.Helper()
	key, err := ParseKey(content)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verify reads a JWT as a server would, by go-jose's verifier.
func verify(t *testing.T, token string, key any, alg string) (jose.Header, map[string]any) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return signed.Signatures[0].Protected, claims
}

// checkError wants an error that holds words, and nothing of a key.
func checkError(t *testing.T, err error, content string, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, expected one with %q", want)
	}
	for _, word := range want {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "%!") {
		t.Errorf("a slip in the message: %v", err)
	}
	for part := range strings.FieldsFuncSeq(content, func(r rune) bool { return strings.ContainsRune("\n\" ,:{}[]\\", r) }) {
		if len(part) >= 20 && strings.Contains(err.Error(), part) {
			t.Errorf("the error holds a part of what was read: %v", err)
		}
	}
}

// TestSign signs with each algorithm of each key, and has go-jose verify it.
func TestSign(t *testing.T) {
	for name, algorithms := range map[string][]string{
		"RSA":     {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
		"P-256":   {"ES256"},
		"P-384":   {"ES384"},
		"P-521":   {"ES512"},
		"Ed25519": {"EdDSA"},
	} {
		for form, content := range map[string][]byte{"PEM": pkcs8(t, name), "JWK": jwk(t, name, nil)} {
			key := parse(t, content)
			for _, alg := range algorithms {
				t.Run(name+" "+form+" "+alg, func(t *testing.T) {
					if got, err := key.Algorithm(alg, nil); err != nil || got != alg {
						t.Fatalf("Algorithm gives %q, %v", got, err)
					}
					token, err := key.Sign(map[string]any{"sub": "a<b>&c", "iat": 1700000000}, Options{Algorithm: alg, KeyID: "k 1", Type: "JWT"})
					if err != nil {
						t.Fatal(err)
					}
					header, claims := verify(t, token, testKeys()[name].Public(), alg)
					if header.KeyID != "k 1" || header.ExtraHeaders["typ"] != "JWT" || header.JSONWebKey != nil || header.Algorithm != alg {
						t.Errorf("the header is %+v", header)
					}
					if len(claims) != 2 || claims["sub"] != "a<b>&c" || claims["iat"] != 1700000000.0 {
						t.Errorf("the claims are %v", claims)
					}
				})
			}
		}
	}
}

func TestSignEmbedded(t *testing.T) {
	for name, alg := range map[string]string{"RSA": "PS256", "P-256": "ES256", "Ed25519": "EdDSA"} {
		key := parse(t, jwk(t, name, map[string]any{"kid": "k1"}))
		token, err := key.Sign(map[string]any{}, Options{Algorithm: alg, Type: "dpop+jwt", EmbedKey: true})
		if err != nil {
			t.Fatal(err)
		}
		header, _ := verify(t, token, testKeys()[name].Public(), alg)
		embedded := header.JSONWebKey
		if embedded == nil || !embedded.IsPublic() || header.ExtraHeaders["typ"] != "dpop+jwt" || header.KeyID != "" {
			t.Fatalf("%s: the header is %+v", name, header)
		}
		if sum, err := embedded.Thumbprint(crypto.SHA256); err != nil || len(sum) != 32 {
			t.Errorf("%s: thumbprint: %v", name, err)
		}
		if unadorned := parse(t, jwk(t, name, nil)); unadorned.Thumbprint() != key.Thumbprint() {
			t.Errorf("%s: a kid changes the thumbprint", name)
		}
	}
}

func TestSignOptionsLeftOut(t *testing.T) {
	token, err := parse(t, jwk(t, "P-256", map[string]any{"kid": "k1"})).Sign(map[string]any{}, Options{Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	header, _ := verify(t, token, testKeys()["P-256"].Public(), "ES256")
	if header.KeyID != "" || len(header.ExtraHeaders) != 0 {
		t.Errorf("the header is %+v", header)
	}
}

func TestSignFails(t *testing.T) {
	key := parse(t, pkcs8(t, "P-256"))
	for _, alg := range []string{"", "none", "RS256", "ES384", "HS256"} {
		if token, err := key.Sign(map[string]any{}, Options{Algorithm: alg}); err == nil {
			t.Errorf("%q signs: %s", alg, token)
		}
	}
	if _, err := key.Sign(map[string]any{"x": func() {}}, Options{Algorithm: "ES256"}); err == nil {
		t.Error("a function becomes a claim")
	}
}

// TestThumbprint has the example of RFC 7638 §3.1; the private part plays no
// role in it, so it is computed from the public one.
func TestThumbprint(t *testing.T) {
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	var public jose.JSONWebKey
	if err := json.Unmarshal([]byte(`{"kty":"RSA","e":"AQAB","n":"`+n+`","kid":"2011-04-29"}`), &public); err != nil {
		t.Fatal(err)
	}
	k, err := newKey(&rsa.PrivateKey{PublicKey: *public.Key.(*rsa.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Thumbprint(); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("the thumbprint is %s", got)
	}
}

func TestPublicJWK(t *testing.T) {
	for _, name := range []string{"RSA", "P-256", "P-384", "P-521", "Ed25519"} {
		public := parse(t, jwk(t, name, map[string]any{"kid": "k1"})).PublicJWK()
		if !public.IsPublic() || public.KeyID != "k1" {
			t.Errorf("%s: %+v", name, public)
		}
		raw := string(encode(t, public))
		for _, member := range []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"dq"`, `"qi"`} {
			if strings.Contains(raw, member+":") {
				t.Errorf("%s: the public JWK has %s", name, member)
			}
		}
	}
}

func TestAlgorithm(t *testing.T) {
	for _, test := range []struct {
		key, configured string
		supported       []string
		want            string
		wrong           []string // in the error, in place of want
	}{
		{key: "RSA", want: "RS256"},
		{key: "P-256", want: "ES256"},
		{key: "P-384", want: "ES384"},
		{key: "P-521", want: "ES512"},
		{key: "Ed25519", want: "EdDSA"},
		{key: "RSA", configured: "PS384", want: "PS384"},
		{key: "RSA", supported: []string{}, want: "RS256"},
		{key: "RSA", supported: []string{"ES256", "RS512", "RS256"}, want: "RS256"},
		{key: "RSA", supported: []string{"PS256", "ES256"}, want: "PS256"}, // FAPI 2.0
		{key: "RSA", supported: []string{"PS512", "PS256"}, want: "PS256"},
		{key: "RSA", configured: "PS512", supported: []string{"PS512", "PS256"}, want: "PS512"},
		{key: "P-256", supported: []string{"PS256", "ES256"}, want: "ES256"},
		{key: "RSA", configured: "ES256", wrong: []string{"alg is ES256", "the key is RSA", "one of RS256, RS384, RS512, PS256, PS384, PS512"}},
		{key: "P-256", configured: "RS256", wrong: []string{"alg is RS256", "EC on P-256", "expected ES256"}},
		{key: "P-384", configured: "ES256", wrong: []string{"alg is ES256", "EC on P-384", "expected ES384"}},
		{key: "Ed25519", configured: "ES256", wrong: []string{"alg is ES256", "Ed25519", "expected EdDSA"}},
		{key: "RSA", configured: "HS256", wrong: []string{"alg is HS256", "the key is RSA"}},
		{key: "RSA", configured: "none", wrong: []string{"alg is none", "the key is RSA"}},
		{key: "RSA", configured: "RS256", supported: []string{"PS256", "ES256"}, wrong: []string{"alg is RS256", "the server says that it takes PS256, ES256, and not RS256"}},
		{key: "P-384", supported: []string{"PS256", "ES256"}, wrong: []string{"EC on P-384", "ES384", "the server says that it takes PS256, ES256"}},
		{key: "RSA", supported: []string{"ES256", "<script>", strings.Repeat("A", 21), "", "a b"}, wrong: []string{"RS256", "the server says that it takes ES256"}},
		{key: "RSA", supported: slices.Repeat([]string{"ES256"}, 21), wrong: []string{"it takes " + strings.Repeat("ES256, ", 19) + "ES256"}},
		{key: "RSA", supported: []string{"\x1b[0m"}, wrong: []string{"the server says that it takes none that is known"}},
	} {
		got, err := parse(t, pkcs8(t, test.key)).Algorithm(test.configured, test.supported)
		if test.wrong != nil {
			checkError(t, err, "", test.wrong...)
			if strings.Count(err.Error(), "ES256") > 20 || strings.ContainsAny(err.Error(), "<\x1b") || strings.Contains(err.Error(), "AAAA") || strings.HasSuffix(err.Error(), ", ") {
				t.Errorf("the error repeats odd words: %q", err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%s, alg %q, server %q: got %q, %v; expected %s", test.key, test.configured, test.supported, got, err, test.want)
		}
	}
}

// TestAlgorithmOfJWK: a JWK that names its alg is used with no other.
func TestAlgorithmOfJWK(t *testing.T) {
	key := parse(t, jwk(t, "RSA", map[string]any{"alg": "PS256", "use": "sig"}))
	for _, configured := range []string{"", "PS256"} {
		if got, err := key.Algorithm(configured, []string{"RS256", "PS256"}); err != nil || got != "PS256" {
			t.Errorf("alg %q: got %q, %v", configured, got, err)
		}
	}
	_, err := key.Algorithm("RS256", nil)
	checkError(t, err, "", "alg is RS256", "RSA", "JWK says PS256", "expected PS256")
	_, err = key.Algorithm("", []string{"RS256", "ES256"})
	checkError(t, err, "", "JWK says PS256", "the server says that it takes RS256, ES256")

	key = parse(t, jwk(t, "Ed25519", map[string]any{"alg": "Ed25519"})) // RFC 9864
	if got, err := key.Algorithm("", nil); err != nil || got != "EdDSA" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := parse(t, pkcs8(t, "RSA")).Algorithm("PS512", nil); err != nil || got != "PS512" {
		t.Errorf("the alg of one key limits another: %q, %v", got, err)
	}
}

func TestCheckAlgorithm(t *testing.T) {
	for _, alg := range []string{"", "RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		if err := CheckAlgorithm(alg); err != nil {
			t.Errorf("%q: %v", alg, err)
		}
	}
	for _, alg := range []string{"none", "rs256", "HS256", "ES256K", "A128KW"} {
		checkError(t, CheckAlgorithm(alg), "", "'"+alg+"'", "RS256", "PS512", "ES512", "EdDSA")
	}
	for _, alg := range []string{"", "HS256", "HS384", "HS512"} {
		if err := CheckHMACAlgorithm(alg); err != nil {
			t.Errorf("%q: %v", alg, err)
		}
	}
	checkError(t, CheckHMACAlgorithm("RS256"), "", "'RS256'", "HS256, HS384, HS512")
}

func TestHMACAlgorithm(t *testing.T) {
	if got, err := HMACAlgorithm("", nil); err != nil || got != "HS256" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := HMACAlgorithm("", []string{"RS256", "HS512", "HS384"}); err != nil || got != "HS384" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := HMACAlgorithm("HS256", []string{"RS256"})
	checkError(t, err, "", "alg is HS256", "the server says that it takes RS256, and not HS256")
	_, err = HMACAlgorithm("", []string{"RS256"})
	checkError(t, err, "", "HS256, HS384, HS512", "RS256")
}
