package signing

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
)

// minRSA is the least length of an RSA key, in bits (RFC 7518 §3.3 and §3.5).
const minRSA = 2048

var (
	rsaAlgorithms     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	ecAlgorithms      = map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}
	ed25519Algorithms = []string{"EdDSA"}
	hmacAlgorithms    = []string{"HS256", "HS384", "HS512"}
)

// classify tells what a private key is, and the algorithms that it signs with,
// the default first.
func classify(private any) (kind string, algorithms []string, err error) {
	switch key := private.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return "", nil, fmt.Errorf("an RSA key of %d bits: expected %d or more (RFC 7518 §3.3), make a new one", bits, minRSA)
		}
		return "RSA", rsaAlgorithms, nil
	case *ecdsa.PrivateKey:
		alg, ok := ecAlgorithms[key.Curve]
		if !ok {
			return "", nil, fmt.Errorf("a key on the elliptic curve %s: expected %s", key.Curve.Params().Name, knownKeys)
		}
		return "EC on " + key.Curve.Params().Name, []string{alg}, nil
	case ed25519.PrivateKey:
		return "Ed25519", ed25519Algorithms, nil
	case *ecdh.PrivateKey:
		return "", nil, fmt.Errorf("a key on X25519, which signs nothing: expected %s", knownKeys)
	}
	return "", nil, fmt.Errorf("a key of an unknown type: expected %s", knownKeys)
}

const knownKeys = "RSA of 2048 bits or more, EC on P-256, P-384 or P-521, or Ed25519"

// Algorithm is the JWS algorithm to sign with. configured is the option alg, ""
// for the key's own: RS256 for RSA, ES256, ES384 or ES512 by the curve, EdDSA
// for Ed25519, or the one that its JWK names. supported is what the server says
// that it takes, nil where it says nothing; if the default is not in it, the
// first of the key's algorithms that is.
func (k *Key) Algorithm(configured string, supported []string) (string, error) {
	return choose(configured, "the key is "+k.kind, k.algorithms, supported)
}

// HMACAlgorithm is Algorithm for a secret: HS256 by default.
func HMACAlgorithm(configured string, supported []string) (string, error) {
	return choose(configured, "a secret signs with HMAC", hmacAlgorithms, supported)
}

// choose chooses one of the own algorithms.
func choose(configured, holder string, own, supported []string) (string, error) {
	if configured != "" {
		if !slices.Contains(own, configured) {
			return "", fmt.Errorf("alg is %s, but %s: expected %s", configured, holder, oneOf(own))
		}
		own = []string{configured}
	}
	if len(supported) == 0 {
		return own[0], nil
	}
	for _, alg := range own {
		if slices.Contains(supported, alg) {
			return alg, nil
		}
	}
	if configured != "" {
		return "", fmt.Errorf("alg is %s, but the server says that it takes %s, and not %s", configured, printable(supported), configured)
	}
	return "", fmt.Errorf("%s and signs with %s, but the server says that it takes %s", holder, strings.Join(own, ", "), printable(supported))
}

// CheckAlgorithm refuses what is no algorithm of a key; "" is the default.
func CheckAlgorithm(alg string) error {
	known := slices.Concat(rsaAlgorithms, []string{"ES256", "ES384", "ES512"}, ed25519Algorithms)
	return check(alg, known)
}

// CheckHMACAlgorithm is CheckAlgorithm for a secret.
func CheckHMACAlgorithm(alg string) error { return check(alg, hmacAlgorithms) }

func check(alg string, known []string) error {
	if alg == "" || slices.Contains(known, alg) {
		return nil
	}
	return fmt.Errorf("is '%s', expected %s", alg, oneOf(known))
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}

// printable lists a server's algorithms, as many as have room in a message and
// look like one.
func printable(supported []string) string {
	const most, longest = 20, 20
	var names []string
	for _, alg := range supported {
		odd := strings.ContainsFunc(alg, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '-'
		})
		if !odd && alg != "" && len(alg) <= longest && len(names) < most {
			names = append(names, alg)
		}
	}
	if len(names) == 0 {
		return "none that is known"
	}
	return strings.Join(names, ", ")
}
