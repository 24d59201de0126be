package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"slices"
	"strings"
	"testing"
)

// macOf is the signature that a server computes, by the standard library.
func macOf(alg, secret, token string) []byte {
	newHash := map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}[alg]
	mac := hmac.New(newHash, []byte(secret))
	mac.Write([]byte(token[:strings.LastIndexByte(token, '.')]))
	return mac.Sum(nil)
}

func signatureOf(t *testing.T, token string) []byte {
	t.Helper()
	signature, err := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func TestSignHMAC(t *testing.T) {
	for alg, size := range hmacSizes {
		// a secret longer than the hash's block is hashed first (RFC 2104 §2)
		for _, length := range []int{1, 8, 31, size - 1, size, size + 1, 64, 129, 200} {
			secret := strings.Repeat("s", length)
			token, err := SignHMAC(secret, alg, map[string]any{"sub": "app"})
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", alg, length, err)
			}
			if !slices.Equal(macOf(alg, secret, token), signatureOf(t, token)) {
				t.Errorf("%s, %d bytes: the signature is another than HMAC's", alg, length)
			}
			if length >= size { // go-jose takes no shorter one
				header, claims := verify(t, token, []byte(secret), alg)
				if claims["sub"] != "app" || header.ExtraHeaders["typ"] != "JWT" {
					t.Errorf("%s: %+v, %v", alg, header, claims)
				}
			}
		}
	}
	_, err := SignHMAC("", "HS256", nil)
	checkError(t, err, "", "empty secret")
	_, err = SignHMAC("s3cr3t-hunter2-s3cr3t", "RS256", nil)
	checkError(t, err, "s3cr3t-hunter2-s3cr3t", "alg", "'RS256'", "HS256")
}
