package interop

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is an authorization server, as a resource server knows it.
type authority interface {
	tokenURL() string
	introspect(ctx context.Context, token string) (introspection, error)
}

// upstream is a resource server on loopback that believes nobody: it asks the
// server about each new token (RFC 7662), and judges one that it knows by its
// own clock, so that a server that forgot its tokens does not mislead it.
type upstream struct {
	*httptest.Server
	authority
	proofs *proofs // that it wants to see with each token (RFC 9449); nil for bearer tokens
	certs  bool    // it wants to see the certificate that a token is bound to (RFC 8705 section 3)

	mu     sync.Mutex
	known  map[string]fullIntrospection
	newest string // of those
	counts verdicts
}

// verdicts are the upstream's on the requests that it got.
type verdicts struct {
	requests  int
	missing   int // no bearer token, or more than one
	inactive  int // the server does not know it (any more)
	expired   int
	unchecked int // new, and the server did not answer
	unproven  int // bound, and the proof is missing or wrong
	nonces    int // asked for another nonce, which is no fault
}

func (v verdicts) bad() int { return v.missing + v.inactive + v.expired + v.unchecked + v.unproven }

func (v verdicts) String() string {
	return fmt.Sprintf("%d requests, %d without a token, %d with an inactive one, %d with an expired one, %d with one that could not be checked, %d not proven, %d asked for a nonce",
		v.requests, v.missing, v.inactive, v.expired, v.unchecked, v.unproven, v.nonces)
}

func startUpstream(t *testing.T, a authority) *upstream {
	t.Helper()
	u := newUpstream(t, a)
	u.Start()
	return u
}

// newUpstream is one that is not started.
func newUpstream(t *testing.T, a authority) *upstream {
	t.Helper()
	u := &upstream{authority: a, known: make(map[string]fullIntrospection)}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

// startBound starts one that speaks HTTPS and takes a token only from whom shows
// the certificate that it is bound to.
func startBound(t *testing.T, a authority, files certFiles) *upstream {
	t.Helper()
	u := newUpstream(t, a)
	u.certs = true
	u.TLS = &tls.Config{Certificates: []tls.Certificate{files.load(t)}, ClientAuth: tls.RequestClientCert}
	u.StartTLS()
	return u
}

// startProven starts one that wants DPoP proofs, each nonce of which is good for
// so many requests.
func startProven(t *testing.T, a authority, uses int) *upstream {
	t.Helper()
	u := newUpstream(t, a)
	u.proofs = newProofs(uses)
	u.Start()
	return u
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counts.requests++
	scheme := "Bearer"
	if u.proofs != nil {
		scheme = "DPoP"
	}
	authorization := r.Header.Values("Authorization")
	if len(authorization) != 1 || !strings.HasPrefix(authorization[0], scheme+" ") {
		u.counts.missing++
		w.Header().Set("WWW-Authenticate", scheme)
		http.Error(w, "one token, please", http.StatusUnauthorized)
		return
	}
	token := strings.TrimPrefix(authorization[0], scheme+" ")
	in, known := u.known[token]
	if !known {
		var err error
		if in, err = u.lookUp(r.Context(), token); err != nil {
			// the server may just have closed the connection, which was idle
			in, err = u.lookUp(r.Context(), token)
		}
		if err != nil {
			u.counts.unchecked++
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	code := "invalid_token"
	switch {
	case !in.Active:
		u.counts.inactive++
	case at.Unix() >= in.Exp:
		u.counts.expired++
	case u.certs && (len(r.TLS.PeerCertificates) == 0 || in.Cnf.X5tS256 != thumbprint(r.TLS.PeerCertificates[0].Raw)):
		u.counts.unproven++
	default:
		if !known {
			u.known[token], u.newest = in, token
		}
		if code = u.proven(w, r, token, in.Cnf.Jkt); code == "" {
			fmt.Fprintln(w, "welcome")
			return
		}
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf("%s error=%q", scheme, code))
	http.Error(w, "that token is no good", http.StatusUnauthorized)
}

// proven has the request's proof checked, if it needs one; the code is that of
// what is wrong.
func (u *upstream) proven(w http.ResponseWriter, r *http.Request, token, jkt string) (code string) {
	if u.proofs == nil {
		return ""
	}
	code, err := u.proofs.check(w.Header(), r, u.URL, token, jkt)
	if code == "use_dpop_nonce" {
		u.counts.nonces++
	} else if err != nil {
		u.counts.unproven++
		w.Header().Set("X-Why", err.Error())
	}
	return code
}

// lookUp asks about a token, as much as the server has to say.
func (u *upstream) lookUp(ctx context.Context, token string) (fullIntrospection, error) {
	if full, ok := u.authority.(interface {
		inspect(ctx context.Context, token string) (fullIntrospection, error)
	}); ok {
		return full.inspect(ctx, token)
	}
	in, err := u.introspect(ctx, token)
	return fullIntrospection{introspection: in}, err
}

// seen is the upstream's count, with the tokens that it accepted.
func (u *upstream) seen() (verdicts, map[string]fullIntrospection) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.counts, maps.Clone(u.known)
}

func (u *upstream) verdicts() verdicts {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.counts
}

// last is the newest of them.
func (u *upstream) last() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.newest
}

// thumbprint is that of a certificate.
func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
