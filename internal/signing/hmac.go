package signing

import (
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// hmacSizes are the sizes of the hashes, in bytes.
var hmacSizes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// SignHMAC makes a JWT that is signed with a secret: HS256, HS384 or HS512. RFC
// 7518 §3.2 asks for a secret as long as the hash. Many that servers give out
// and take are shorter, so they are used all the same.
func SignHMAC(secret, alg string, claims map[string]any) (string, error) {
	size, ok := hmacSizes[alg]
	if !ok {
		return "", fmt.Errorf("alg: %w", CheckHMACAlgorithm(alg))
	}
	if secret == "" {
		return "", errors.New("an empty secret signs nothing")
	}
	key := []byte(secret)
	if len(key) < size {
		// HMAC itself appends zeros to a key (RFC 2104 §2), so these change
		// nothing but the length that go-jose looks at.
		key = append(key, make([]byte, size-len(key))...)
	}
	return sign(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, claims, Options{Algorithm: alg, Type: TypeJWT})
}
