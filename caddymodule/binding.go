package caddymodule

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/dpop"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// binding is what a token is bound to: a key whose possession each request
// proves (DPoP), or the certificate of the connection (RFC 8705 §3). It comes
// with the token and goes with it: a key or a certificate that is replaced is
// used upstream from the token on that was obtained with it.
type binding struct {
	key    *signing.Key // nil without DPoP
	alg    string
	nonces *dpop.Nonces

	certificate *tls.Certificate // nil without one
}

// Thumbprint names the key and the certificate (RFC 7638, RFC 8705 §3.1).
func (b *binding) Thumbprint() string {
	name := ""
	if b.key != nil {
		name = b.key.Thumbprint()
	}
	if b.certificate != nil && len(b.certificate.Certificate) > 0 {
		sum := sha256.Sum256(b.certificate.Certificate[0])
		name += " " + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return name
}

// ownBinding is what a token that is asked for now would be bound to.
func (q *requester) ownBinding(r *resolver) (*binding, error) {
	way, err := q.connection.open(r, newProof(r, nil), q.credential.method)
	if err != nil {
		return nil, err
	}
	b := &binding{nonces: q.nonces, certificate: q.connection.certificate(way, q.credential.method)}
	if d := q.credential.DPoP; d != nil {
		err = d.bind(b, r, nil)
	}
	return b, err
}

// prove puts a proof on a request to a URL, with the nonce that was given there
// last. accessToken is "" for a token request.
func (b *binding) prove(header http.Header, method string, u *url.URL, accessToken string) (nonce string, err error) {
	nonce = b.nonces.Get(u)
	proof, err := dpop.Proof(b.key, b.alg, method, u, nonce, accessToken, time.Now())
	if err != nil {
		return "", err
	}
	header["Dpop"] = []string{proof}
	return nonce, nil
}

// boundWay takes attempts with bound tokens to an upstream.
type boundWay struct {
	mu        sync.Mutex
	certified []certified // the newest last
}

// certified is a transport that shows a certificate.
type certified struct {
	certificate *tls.Certificate
	*http.Transport
}

// mostCertified is how many are kept: for a while after a renewal a template
// holds tokens that are bound to the certificate before it.
const mostCertified = 3

// RoundTrip makes an attempt with a token, and with what it is bound to.
func (w *boundWay) RoundTrip(attempt *http.Request, tok *token.Token, plain *reverseproxy.HTTPTransport, kept *keptBody) (*http.Response, error) {
	if tok == nil {
		return plain.RoundTrip(attempt)
	}
	b, ok := tok.Binding.(*binding)
	if !ok {
		return nil, errors.New("the token is bound to nothing")
	}
	way := w.way(b.certificate, plain)
	plain.SetScheme(attempt)
	if b.key == nil {
		return way.RoundTrip(attempt)
	}
	return b.roundTrip(attempt, tok, way, kept)
}

// errNoProof is a request for whose address no proof can be made: its Host is
// none.
var errNoProof = errors.New("no DPoP proof can be made for the request's address")

// mostProofs is how often an attempt is made where the upstream replaces its
// nonce faster than one can be used: others use it up meanwhile.
const mostProofs = 5

// roundTrip makes an attempt with a proof (RFC 9449 §7.1). Where the upstream
// wants to see a nonce that it has just given, it makes it again (§9).
func (b *binding) roundTrip(attempt *http.Request, tok *token.Token, way http.RoundTripper, kept *keptBody) (*http.Response, error) {
	u := &url.URL{Scheme: attempt.URL.Scheme, Host: attempt.Host, Path: attempt.URL.Path, RawPath: attempt.URL.RawPath}
	if u.Host == "" {
		u.Host = attempt.URL.Host
	}
	for n := 1; ; n++ {
		nonce, err := b.prove(attempt.Header, attempt.Method, u, tok.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoProof, err)
		}
		res, err := way.RoundTrip(attempt)
		if err != nil {
			return nil, err
		}
		b.nonces.Learn(u, res.Header)
		if n == mostProofs || !dpop.NonceDemanded(res.StatusCode, res.Header) || dpop.Nonce(res.Header) == nonce {
			return res, nil
		}
		next, ok := kept.again(attempt)
		if !ok {
			return res, nil
		}
		discard(res)
		attempt = next
	}
}

// way is the transport that shows a certificate, unless the config has one for
// the upstream itself. A connection keeps the certificate that it began with, so
// another one has connections of its own.
func (w *boundWay) way(certificate *tls.Certificate, plain *reverseproxy.HTTPTransport) http.RoundTripper {
	if certificate == nil || plain.TLS == nil || plain.TLS.ClientCertificateFile != "" || plain.TLS.ClientCertificateAutomate != "" {
		return plain
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.IndexFunc(w.certified, func(c certified) bool { return c.certificate == certificate }); i >= 0 {
		return w.certified[i]
	}
	way := certified{certificate, plain.Transport.Clone()}
	way.TLSNextProto, way.ForceAttemptHTTP2 = nil, plain.Transport.TLSNextProto != nil // what is cloned of it belongs to the other
	show(way.TLSClientConfig, certificate)
	if w.certified = append(w.certified, way); len(w.certified) > mostCertified {
		w.certified[0].CloseIdleConnections()
		w.certified = slices.Delete(w.certified, 0, 1)
	}
	return way
}

func (w *boundWay) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.certified {
		c.CloseIdleConnections()
	}
}
