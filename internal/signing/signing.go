// Package signing holds the keys that prove who a client is, and signs JWTs
// with them: client assertions (RFC 7523), DPoP proofs (RFC 9449). It looks into
// JWTs of others, too, before they are sent. No error holds a part of a key, of
// a secret or of a token.
package signing

import (
	"crypto"
	_ "crypto/sha256" // for the thumbprint
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Key is a private key: RSA of 2048 bits or more, ECDSA on P-256, P-384 or
// P-521, or Ed25519.
type Key struct {
	private    crypto.Signer
	public     jose.JSONWebKey
	thumbprint string
	issuer     string
	algorithms []string // what it signs with, the default first
	kind       string   // for a message
}

// newKey makes a Key of a private key of whatever type.
func newKey(private any) (*Key, error) {
	kind, algorithms, err := classify(private)
	if err != nil {
		return nil, err
	}
	k := &Key{private: private.(crypto.Signer), algorithms: algorithms, kind: kind}
	k.public = jose.JSONWebKey{Key: k.private.Public()}
	sum, err := k.public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("the key has no thumbprint: %w", err)
	}
	k.thumbprint = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// Thumbprint is the SHA-256 thumbprint of the public key (RFC 7638), in
// base64url.
func (k *Key) Thumbprint() string { return k.thumbprint }

// KeyID is the kid that the key came with, "" where it has none.
func (k *Key) KeyID() string { return k.public.KeyID }

// Issuer is the client_email of a Google service account, "" for another key.
func (k *Key) Issuer() string { return k.issuer }

// PublicJWK is the public key, with its kid where it has one.
func (k *Key) PublicJWK() jose.JSONWebKey { return k.public }

// Options are what stands in the header of a JWT. All but Algorithm may be "".
type Options struct {
	// Algorithm is the JWS algorithm (alg), one that Key.Algorithm gave.
	Algorithm string
	// KeyID is the kid.
	KeyID string
	// Type is the typ.
	Type string
	// EmbedKey puts the public key into the header (jwk).
	EmbedKey bool
}

// Sign makes a JWT, in the compact serialization.
func (k *Key) Sign(claims map[string]any, o Options) (string, error) {
	return sign(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(o.Algorithm), Key: k.private}, claims, o)
}

func sign(key jose.SigningKey, claims map[string]any, o Options) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the claims: %w", err)
	}
	opts := &jose.SignerOptions{EmbedJWK: o.EmbedKey}
	if o.KeyID != "" {
		opts.WithHeader("kid", o.KeyID)
	}
	if o.Type != "" {
		opts.WithType(jose.ContentType(o.Type))
	}
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		return "", fmt.Errorf("signing with %s: %w", o.Algorithm, err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing with %s: %w", o.Algorithm, err)
	}
	return signed.CompactSerialize()
}
