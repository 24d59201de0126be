package authserver

const (
	// DPoPAllowed binds a token to the key of the proof, if there is one.
	DPoPAllowed = "allowed"
	// DPoPRequired issues no token without a proof.
	DPoPRequired = "required"
)

// prove checks the proof of a token request, and returns the thumbprint of its
// key, "" for none (RFC 9449 §5).
func (s *Server) prove(r Request) (thumbprint string, no *refusal) {
	sent := r.Header.Values("DPoP")
	if s.config.DPoP == "" || s.config.DPoP != DPoPRequired && len(sent) == 0 {
		return "", nil
	}
	return s.proofs.check(proofRequest{method: r.Method, url: base(r) + r.Path, proofs: sent}, s.config.nonceRule())
}

func (c *Config) nonceRule() nonceRule {
	return nonceRule{on: c.DPoP != "" && c.DPoPNonce, uses: c.DPoPNonceUses, keep: c.DPoPNonceKeep, quiet: c.DPoPNonceQuiet}
}

// RotateNonce demands another nonce at the token endpoint from now on.
func (s *Server) RotateNonce() { s.proofs.nonces.rotate() }

// NonceChallenges is the number of token requests that were answered with
// use_dpop_nonce.
func (s *Server) NonceChallenges() int { return s.proofs.nonces.refusals() }

// Downgrade answers a request with a proof as if there were no DPoP: the token
// is said to be a bearer token. It is bound to the key all the same.
func Downgrade() Fault {
	return Answer(func(members map[string]any) { members["token_type"] = "Bearer" })
}
