package authserver

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Upstream is an API that demands a token of one Server, and tells what it was
// sent, but for the token. A token that is bound to a key comes with the scheme
// DPoP and a proof (RFC 9449 §7), another as a bearer token (RFC 6750). It is an
// http.Handler.
type Upstream struct {
	// Header is where the token stands. Default: Authorization.
	Header string
	// Scheme stands before it; "" is none, and no blank. Default: Bearer.
	Scheme string
	// Nonces demands a nonce in each proof. One is taken NonceUses times, or for
	// ever if that is 0, and NonceKeep older ones still are. NonceQuiet tells
	// the newest with a refusal alone, and not with every answer.
	Nonces               bool
	NonceUses, NonceKeep int
	NonceQuiet           bool
	// Switch sets faults, as it does for a Server.
	Switch

	server   *Server
	proofs   proofs
	counts   [kinds]atomic.Int64
	smallest atomic.Int64
}

// kind is what became of a request.
type kind int

const (
	accepted kind = iota
	missing
	malformed
	expired
	revoked
	unknown
	unbound
	badProof
	challenged
	kinds
)

// NewUpstream returns an API that accepts the tokens of s. Change its fields
// before it serves.
func NewUpstream(s *Server) *Upstream {
	u := &Upstream{Header: "Authorization", Scheme: "Bearer", server: s, proofs: newProofs(s.config.Late)}
	u.smallest.Store(math.MaxInt64)
	return u
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.serve(w, r, http.HandlerFunc(u.echo))
}

// echo reads the whole request before it answers, so that a client that
// replays has sent all of its body.
func (u *Upstream) echo(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	text, dpop, kind := u.credential(r)
	if kind != accepted {
		u.deny(w, kind, dpop)
		return
	}
	var thumbprint string
	if dpop {
		var no *refusal
		thumbprint, no = u.proveUpstream(r, text)
		u.tellNonce(w, no)
		if no != nil {
			u.denyProof(w, no)
			return
		}
	}
	tok, left, err := u.server.tokens.verify(text)
	switch {
	case errors.Is(err, ErrExpired):
		u.deny(w, expired, dpop)
	case errors.Is(err, ErrRevoked):
		u.deny(w, revoked, dpop)
	case err != nil:
		u.deny(w, unknown, dpop)
	case tok.key != thumbprint || !showsCertificate(r, tok):
		u.deny(w, unbound, dpop)
	default:
		u.counts[accepted].Add(1)
		u.sawLeft(left)
		writeJSON(w, http.StatusOK, u.report(r, tok, left, size))
	}
}

// credential finds the token, and tells whether it came with the scheme DPoP.
// Another scheme is no token (RFC 6750 §3.1), and two headers are a request that
// someone put a second token on.
func (u *Upstream) credential(r *http.Request) (text string, dpop bool, k kind) {
	values := r.Header.Values(u.Header)
	if len(values) > 1 {
		return "", false, malformed
	}
	if len(values) == 0 || values[0] == "" {
		return "", false, missing
	}
	if u.Scheme == "" {
		return values[0], false, accepted
	}
	scheme, text, found := strings.Cut(values[0], " ")
	dpop = strings.EqualFold(scheme, "DPoP")
	if !found || text == "" || !dpop && !strings.EqualFold(scheme, u.Scheme) {
		return "", false, missing
	}
	return text, dpop, accepted
}

// deny answers as RFC 6750 §3 says, or RFC 9449 §7.1.
func (u *Upstream) deny(w http.ResponseWriter, k kind, dpop bool) {
	u.counts[k].Add(1)
	challenge, status := `Bearer realm="demo"`, http.StatusUnauthorized
	switch {
	case k == missing:
	case k == malformed:
		status = http.StatusBadRequest
		challenge += `, error="invalid_request", error_description="more than one credential"`
	case dpop:
		challenge = dpopChallenge("invalid_token", "the token is "+reasons[k])
	default:
		challenge += `, error="invalid_token", error_description="the token is ` + reasons[k] + `"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(status)
}

var reasons = map[kind]string{expired: "expired", revoked: "revoked", unknown: "unknown", unbound: "bound to another key or certificate"}

// report is the answer to an accepted request. The token's text is taken out
// wherever it stands.
func (u *Upstream) report(r *http.Request, tok *token, left time.Duration, size int64) map[string]any {
	redact := strings.NewReplacer(tok.text, "[redacted]")
	header := make(http.Header, len(r.Header))
	for name, values := range r.Header {
		for _, value := range values {
			header.Add(name, redact.Replace(value))
		}
	}
	for _, name := range []string{u.Header, "Authorization", "Proxy-Authorization"} {
		if header.Get(name) != "" {
			header.Set(name, "[redacted]")
		}
	}
	report := map[string]any{
		"method":             r.Method,
		"path":               redact.Replace(r.URL.Path),
		"host":               redact.Replace(r.Host),
		"token":              "#" + strconv.Itoa(tok.n),
		"token_left_seconds": float64(left.Milliseconds()) / 1000,
		"headers":            header,
		"body_bytes":         size,
	}
	if tok.subject != "" {
		report["subject"] = tok.subject
	}
	return report
}

func (u *Upstream) sawLeft(left time.Duration) {
	for {
		smallest := u.smallest.Load()
		if int64(left) >= smallest || u.smallest.CompareAndSwap(smallest, int64(left)) {
			return
		}
	}
}

// Smallest is the least that was left of an accepted token's life, and 0 before
// the first: how close the proxy came to sending an expired one.
func (u *Upstream) Smallest() time.Duration {
	if smallest := u.smallest.Load(); smallest != math.MaxInt64 {
		return time.Duration(smallest)
	}
	return 0
}

// OK is the number of requests accepted.
func (u *Upstream) OK() int { return u.count(accepted) }

// Missing is the number of requests without a token.
func (u *Upstream) Missing() int { return u.count(missing) }

// Malformed is the number of requests with more than one credential.
func (u *Upstream) Malformed() int { return u.count(malformed) }

// Expired is the number of requests with a token past its end.
func (u *Upstream) Expired() int { return u.count(expired) }

// Revoked is the number of requests with a token that was revoked.
func (u *Upstream) Revoked() int { return u.count(revoked) }

// Unknown is the number of requests with a token that was never issued.
func (u *Upstream) Unknown() int { return u.count(unknown) }

// Unbound is the number of requests with a token that is bound to another key
// or certificate than that of the request.
func (u *Upstream) Unbound() int { return u.count(unbound) }

func (u *Upstream) count(k kind) int { return int(u.counts[k].Load()) }

// Interface guards
var (
	_ http.Handler = (*Server)(nil)
	_ http.Handler = (*Upstream)(nil)
)
