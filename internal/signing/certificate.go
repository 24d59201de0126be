package signing

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Certificate makes the certificate with which a client proves itself (RFC 8705)
// of PEM: the certificate, its chain after it, and the private key. An error says
// which of the two is wrong, and what to do about it.
func Certificate(cert, key []byte, now time.Time) (tls.Certificate, error) {
	if err := checkCertificate(cert); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		if _, err := ParseKey(key); err != nil {
			return tls.Certificate{}, fmt.Errorf("key: %w", err)
		}
		if !strings.Contains(string(key), pemBegin) {
			return tls.Certificate{}, errors.New("key: a JWK, which TLS does not take: expected a private key in PEM")
		}
		return tls.Certificate{}, fmt.Errorf("cert and key do not fit: %w; expected the certificate first in its file, and the private key that it was made for", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cert: %w", err)
	}
	if from := leaf.NotBefore; now.Before(from) {
		return tls.Certificate{}, fmt.Errorf("cert: the certificate is valid from %s on, which is not yet: wait, or look at this machine's clock", date(from))
	}
	if until := leaf.NotAfter; now.After(until) {
		return tls.Certificate{}, fmt.Errorf("cert: the certificate ended on %s: have a new one issued", date(until))
	}
	return pair, nil
}

// checkCertificate says what a file holds in place of a certificate.
func checkCertificate(content []byte) error {
	found := false
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return nil
		}
		found = true
	}
	if found {
		return errors.New("cert: PEM without a certificate: expected the client's certificate (BEGIN CERTIFICATE); are cert and key in the wrong order?")
	}
	return errors.New("cert: not PEM: expected the client's certificate (BEGIN CERTIFICATE), which openssl x509 -inform DER -in <file> -out <new file> writes")
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
