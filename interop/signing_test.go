package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// newSigningKey makes a client's key: the private one in <client ID>.pem, the
// public one as a JWK, whose kid is the client's ID.
func newSigningKey(t *testing.T, dir, clientID string, alg jose.SignatureAlgorithm) jose.JSONWebKey {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, clientID+".pem"), "PRIVATE KEY", der)
	return jose.JSONWebKey{Key: key.Public(), KeyID: clientID, Algorithm: string(alg), Use: "sig"}
}

// readKey reads a private key (PKCS #8) from a PEM file.
func readKey(t *testing.T, file string) any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s: not PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return key
}

// signJWT signs claims by a key, a private one or a client's secret.
func signJWT(t *testing.T, alg jose.SignatureAlgorithm, key any, options *jose.SignerOptions, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// clientAssertion is a JWT in which a client speaks of itself (RFC 7523
// section 3). Its kid is the client's ID, unless a secret signs it.
func clientAssertion(t *testing.T, clientID string, alg jose.SignatureAlgorithm, key any, audience any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if _, secret := key.([]byte); !secret {
		options = options.WithHeader(jose.HeaderKey("kid"), clientID)
	}
	now := time.Now()
	return signJWT(t, alg, key, options, map[string]any{
		"iss": clientID,
		"sub": clientID,
		"aud": audience,
		"jti": rand.Text(),
		"iat": now.Add(-5 * time.Second).Unix(),
		"exp": now.Add(time.Minute).Unix(),
	})
}

// dpopKey makes proofs that its owner has it (RFC 9449).
type dpopKey struct {
	key   *ecdsa.PrivateKey
	nonce string // the last that a server gave
}

func newDPoPKey(t *testing.T) *dpopKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &dpopKey{key: key}
}

// readDPoPKey reads one, of ES256, from a PEM file.
func readDPoPKey(t *testing.T, file string) *dpopKey {
	t.Helper()
	key, is := readKey(t, file).(*ecdsa.PrivateKey)
	if !is {
		t.Fatalf("%s: want a key of ES256", file)
	}
	return &dpopKey{key: key}
}

// proof is for one request; token is the access token that goes with it, if any.
func (k *dpopKey) proof(t *testing.T, method, address, token string) string {
	t.Helper()
	claims := map[string]any{
		"jti": rand.Text(),
		"htm": method,
		"htu": address,
		"iat": time.Now().Unix(),
	}
	if k.nonce != "" {
		claims["nonce"] = k.nonce
	}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return signJWT(t, jose.ES256, k.key, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"), claims)
}

// thumbprint is what a token says that is bound to the key (RFC 7638).
func (k *dpopKey) thumbprint(t *testing.T) string {
	t.Helper()
	sum, err := (&jose.JSONWebKey{Key: k.key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}
