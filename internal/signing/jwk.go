package signing

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// parseJSON reads a JWK, or the file of a Google service account.
func parseJSON(content []byte) (*Key, error) {
	var object map[string]any
	if err := json.Unmarshal(content, &object); err != nil {
		if content[0] == '[' {
			return nil, errors.New("a JSON list: expected one key, so write the object of that one alone")
		}
		return nil, errors.New("JSON that is cut off, damaged, or followed by something else: expected one object, a JWK")
	}
	if _, ok := object["kty"]; ok {
		return parseJWK(content, object)
	}
	if _, ok := object["keys"]; ok {
		return nil, errors.New("a JWK Set: expected one key, so write the object of that one alone, without \"keys\"")
	}
	switch object["type"] {
	case "service_account":
		return parseServiceAccount(object)
	case "authorized_user", "external_account", "impersonated_service_account":
		return nil, errors.New("a Google file without a private key: expected that of a service account (\"type\": \"service_account\")")
	}
	return nil, errors.New("JSON, but neither a JWK (which has \"kty\") nor a Google service account (\"type\": \"service_account\")")
}

// parseServiceAccount reads what Google gives out for a service account.
func parseServiceAccount(object map[string]any) (*Key, error) {
	text, _ := object["private_key"].(string)
	if text == "" {
		return nil, errors.New("a Google service account without private_key: make a key for it, of the type JSON")
	}
	private, err := parsePEM([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("private_key of a Google service account: %w", err)
	}
	k, err := newKey(private)
	if err != nil {
		return nil, fmt.Errorf("private_key of a Google service account: %w", err)
	}
	k.public.KeyID, _ = object["private_key_id"].(string)
	k.issuer, _ = object["client_email"].(string)
	return k, nil
}

// parseJWK reads a private JWK (RFC 7517, RFC 7518 §6, RFC 8037).
func parseJWK(content []byte, object map[string]any) (*Key, error) {
	kty, _ := object["kty"].(string)
	crv, _ := object["crv"].(string)
	if kty == "oct" {
		return nil, errors.New("a symmetric JWK (kty oct), which is a client's secret: use client_secret_jwt with it, or make a key pair")
	}
	curves, known := map[string][]string{"RSA": nil, "EC": {"P-256", "P-384", "P-521"}, "OKP": {"Ed25519"}}[kty]
	if !known {
		return nil, fmt.Errorf("a JWK whose kty is none of RSA, EC and OKP: expected %s", knownKeys)
	}
	if curves != nil && !slices.Contains(curves, crv) {
		return nil, fmt.Errorf("a JWK without a crv, or with another curve: expected %s", knownKeys)
	}
	if _, ok := object["d"]; !ok {
		return nil, errors.New("a JWK without its private part (d): that is the public key, which the server holds; expected the private one")
	}
	for _, name := range []string{"kty", "crv", "kid", "alg", "use", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y"} {
		if value, ok := object[name]; ok {
			if _, ok := value.(string); !ok {
				return nil, fmt.Errorf("a JWK whose %s is not a string", name)
			}
		}
	}
	if use, ok := object["use"].(string); ok && use != "sig" {
		return nil, errors.New("a JWK whose use is not sig: expected a key for signatures, not for encryption")
	}
	var parsed jose.JSONWebKey
	if err := json.Unmarshal(content, &parsed); err != nil {
		return nil, fmt.Errorf("a JWK with a mistake: %s", strings.TrimPrefix(err.Error(), "go-jose/go-jose: "))
	}
	if err := consistent(parsed.Key); err != nil {
		return nil, err
	}
	k, err := newKey(parsed.Key)
	if err != nil {
		return nil, err
	}
	k.public.KeyID = parsed.KeyID
	return k, k.bind(parsed.Algorithm)
}

// consistent checks what go-jose does not: that an EC key's public part
// belongs to its private one.
func consistent(private any) error {
	switch key := private.(type) {
	case *rsa.PrivateKey:
		key.Precompute() // or each signature would do it again
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			return errors.New("a JWK with a mistake: d is out of range")
		}
		derived, err := ecdsa.ParseRawPrivateKey(key.Curve, d)
		if err != nil || !derived.PublicKey.Equal(&key.PublicKey) {
			return errors.New("a JWK with a mistake: x and y do not belong to d")
		}
	}
	return nil
}

// bind limits a key to the algorithm that its JWK names (RFC 7517 §4.4).
func (k *Key) bind(alg string) error {
	if alg == "Ed25519" && k.kind == "Ed25519" { // the newer name, RFC 9864
		alg = "EdDSA"
	}
	switch {
	case alg == "":
		return nil
	case !slices.Contains(k.algorithms, alg):
		return fmt.Errorf("a JWK whose alg does not fit its key, which is %s: expected %s", k.kind, oneOf(k.algorithms))
	}
	k.algorithms = []string{alg}
	if k.kind == "RSA" { // of the others there is one anyway
		k.kind = "RSA and its JWK says " + alg
	}
	return nil
}
