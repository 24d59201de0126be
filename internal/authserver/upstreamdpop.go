package authserver

import (
	"net/http"
	"strings"
)

// proveUpstream checks the proof of a request that brings a token as DPoP (RFC
// 9449 §7.1).
func (u *Upstream) proveUpstream(r *http.Request, token string) (thumbprint string, no *refusal) {
	return u.proofs.check(proofRequest{
		method: r.Method,
		url:    origin(r.TLS, r.Host) + r.URL.EscapedPath(),
		proofs: r.Header.Values("DPoP"),
		token:  token,
	}, u.nonceRule())
}

func (u *Upstream) nonceRule() nonceRule {
	return nonceRule{on: u.Nonces, uses: u.NonceUses, keep: u.NonceKeep, quiet: u.NonceQuiet}
}

// tellNonce sends the nonce for the next request along.
func (u *Upstream) tellNonce(w http.ResponseWriter, no *refusal) {
	if nonce := u.proofs.tells(u.nonceRule(), no); nonce != "" {
		w.Header().Set("DPoP-Nonce", nonce)
	}
}

// denyProof answers as RFC 9449 §7.1 and §9 say.
func (u *Upstream) denyProof(w http.ResponseWriter, no *refusal) {
	k := badProof
	if no.code == needNonceCode {
		k = challenged
	}
	u.counts[k].Add(1)
	w.Header().Set("WWW-Authenticate", dpopChallenge(no.code, no.description))
	w.WriteHeader(http.StatusUnauthorized)
}

func dpopChallenge(code, description string) string {
	return `DPoP realm="demo", error="` + code + `", error_description="` + description + `", algs="` + proofAlgorithms + `"`
}

// proofAlgorithms are all that a proof may be signed with.
var proofAlgorithms = func() string {
	var names []string
	for _, alg := range asymmetric {
		names = append(names, string(alg))
	}
	return strings.Join(names, " ")
}()

// RotateNonce demands another nonce from now on.
func (u *Upstream) RotateNonce() { u.proofs.nonces.rotate() }

// Challenged is the number of requests that were answered with use_dpop_nonce.
func (u *Upstream) Challenged() int { return u.count(challenged) }

// BadProof is the number of requests with a DPoP proof that was not taken for
// another reason.
func (u *Upstream) BadProof() int { return u.count(badProof) }
