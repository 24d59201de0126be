package authserver

import (
	"net/http"
	"time"
)

// Where a Server made by New takes a token back, and tells of one.
const (
	RevokePath     = "/revoke"
	IntrospectPath = "/introspect"
)

// revoke is RFC 7009: a refresh token ends with its whole chain, an access token
// by itself. One that is not known is no error (§2.2).
func (s *Server) revoke(w http.ResponseWriter, r Request, err error) {
	text, no := s.tokenOf(r, err)
	if no != nil {
		s.dialect.refuse(w, r, no)
		return
	}
	s.RevokeChain(text)
	s.Revoke(text)
	w.WriteHeader(http.StatusOK)
}

// introspect is RFC 7662.
func (s *Server) introspect(w http.ResponseWriter, r Request, err error) {
	text, no := s.tokenOf(r, err)
	if no != nil {
		s.dialect.refuse(w, r, no)
		return
	}
	members := s.tokens.describe(text)
	if members == nil {
		writeJSON(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	members["active"], members["client_id"], members["iss"] = true, s.config.ClientID, s.issuer(r)
	writeJSON(w, http.StatusOK, members)
}

// tokenOf is the token that a client asks about.
func (s *Server) tokenOf(r Request, err error) (string, *refusal) {
	if no := s.admit(r, err); no != nil {
		return "", no
	}
	text := r.Form.Get("token")
	if text == "" {
		return "", refuse("invalid_request", "token is missing")
	}
	return text, nil
}

// describe tells of a token that is valid, nil of another (RFC 7662 §2.2).
func (t *tokens) describe(text string) map[string]any {
	tok, left, err := t.verify(text)
	if err != nil {
		return t.describeRefreshToken(text)
	}
	members := map[string]any{"exp": time.Now().Add(left).Unix(), "token_type": "Bearer"}
	if tok.key != "" {
		members["token_type"] = "DPoP"
	}
	if cnf := tok.confirmation(); len(cnf) > 0 {
		members["cnf"] = cnf
	}
	tok.rights.describe(members)
	return members
}

func (t *tokens) describeRefreshToken(text string) map[string]any {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r := t.refreshTokens[text]
	if r == nil || r.successor != nil || r.chain.ended != nil {
		return nil
	}
	members := map[string]any{}
	r.chain.rights.describe(members)
	return members
}

func (r rights) describe(members map[string]any) {
	for name, value := range map[string]string{"scope": r.scope, "sub": r.subject} {
		if value != "" {
			members[name] = value
		}
	}
}
