package authserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// KeysPath is where the public keys are that ID tokens are checked with.
const KeysPath = "/jwks"

// signer signs what a server issues.
type signer struct {
	signing jose.SigningKey
	public  jose.JSONWebKey
}

// newSigner makes a key: ES256, unless alg is RS256.
func newSigner(alg string) *signer {
	var private crypto.Signer
	var err error
	if alg == "RS256" {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	id := random()[:8]
	return &signer{
		signing: jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: jose.JSONWebKey{Key: private, KeyID: id}},
		public:  jose.JSONWebKey{Key: private.Public(), KeyID: id, Algorithm: alg, Use: "sig"},
	}
}

// sign makes a JWT of a type.
func (s *signer) sign(typ string, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // an edit of a test that puts in what JSON has no word for
	}
	signer, err := jose.NewSigner(s.signing, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		panic(err) // an alg that the key is not for
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// keys answers with the public keys (RFC 7517 §5).
func (s *Server) keys(w http.ResponseWriter, _ Request, _ error) {
	body, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.signer().public}})
	if err != nil {
		http.Error(w, "the keys cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Write(body)
}
