// Package dpop makes the proofs that a client holds the key which its tokens are
// bound to (RFC 9449), and keeps the nonces that servers want to see in them.
package dpop

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

// proofType is the typ of a proof (RFC 9449 §4.2).
const proofType = "dpop+jwt"

// Proof makes a proof for one request to u. alg is one that key.Algorithm gave.
// nonce is the last that the server gave, "" where it gave none; accessToken is
// the token that the request carries, "" for a token request.
func Proof(key *signing.Key, alg, method string, u *url.URL, nonce, accessToken string, now time.Time) (string, error) {
	htu, err := target(u)
	if err != nil {
		return "", err
	}
	claims := map[string]any{"jti": signing.NewID(), "htm": method, "htu": htu, "iat": now.Unix()}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if accessToken != "" {
		sum := sha256.Sum256([]byte(accessToken))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return key.Sign(claims, signing.Options{Algorithm: alg, Type: proofType, EmbedKey: true})
}

// target is the htu: u without query and fragment, in the form that servers
// compare (RFC 9449 §4.3, RFC 3986 §6.2.2 and §6.2.3).
func target(u *url.URL) (string, error) {
	origin, err := originOf(u)
	if err != nil {
		return "", err
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return origin + path, nil
}

var errURL = errors.New("a DPoP proof needs the URL of the request, http or https with a host")

// originOf is scheme and host in small letters, with the port unless it is the
// scheme's own.
func originOf(u *url.URL) (string, error) {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname())
	ports := map[string]string{"http": "80", "https": "443"}
	standard, ok := ports[scheme]
	if !ok || host == "" {
		return "", errURL
	}
	switch port := u.Port(); {
	case port != "" && port != standard:
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"): // IPv6
		host = "[" + host + "]"
	}
	return scheme + "://" + host, nil
}
