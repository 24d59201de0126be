package authserver

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
)

// certificate is the one that the client showed, nil without.
func certificate(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// Thumbprint is that of a certificate as RFC 8705 §3.1 has it (x5t#S256), for
// Config.ClientThumbprint.
func Thumbprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// byCertificate tells how a client proves itself by its certificate (RFC 8705
// §2), "" if it does not.
func (s *Server) byCertificate(r Request) (method string) {
	cert := certificate(r.TLS)
	switch {
	case cert == nil || s.config.ClientID == "" || r.Form.Get("client_id") != s.config.ClientID:
		return ""
	case s.accepts(TLSClientAuth) && len(r.TLS.VerifiedChains) > 0 && s.config.ClientSubject != "" && cert.Subject.String() == s.config.ClientSubject:
		return TLSClientAuth
	case s.accepts(SelfSignedTLS) && Thumbprint(cert) == s.config.ClientThumbprint:
		return SelfSignedTLS
	}
	return ""
}

// showsCertificate tells whether a request upstream comes with the certificate
// that its token is bound to, if it is (RFC 8705 §3).
func showsCertificate(r *http.Request, tok *token) bool {
	if tok.cert == "" {
		return true
	}
	cert := certificate(r.TLS)
	return cert != nil && Thumbprint(cert) == tok.cert
}
