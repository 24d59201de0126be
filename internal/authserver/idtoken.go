package authserver

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"
)

// idTokenLifetime is that of an ID token.
const idTokenLifetime = time.Hour

// idToken is the ID token beside an access token of a login (OpenID Connect
// Core §2 and §3.1.3.3), "" where none was asked for.
func (s *Server) idToken(r Request, g given) string {
	if !g.user || !slices.Contains(strings.Fields(g.token.scope), "openid") {
		return ""
	}
	now := time.Now()
	half := sha256.Sum256([]byte(g.token.text))
	claims := map[string]any{
		"iss": s.issuer(r), "sub": g.token.subject, "aud": s.config.ClientID,
		"iat": now.Unix(), "exp": now.Add(idTokenLifetime).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:len(half)/2]),
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if s.config.IDTokenEdit != nil {
		s.config.IDTokenEdit(claims)
	}
	return s.signer().sign("JWT", claims)
}

// accessJWT is the text of an access token that is a JWT (RFC 9068).
func (t *tokens) accessJWT(r rights, on terms, now time.Time) string {
	subject := r.subject
	if subject == "" {
		subject = t.config.ClientID
	}
	claims := map[string]any{
		"iss": on.issuer, "sub": subject, "aud": t.config.ClientID, "client_id": t.config.ClientID,
		"iat": now.Unix(), "exp": now.Unix() + int64(t.config.Lifetime/time.Second), "jti": random(),
	}
	if r.scope != "" {
		claims["scope"] = r.scope
	}
	if cnf := on.confirmation(); len(cnf) > 0 {
		claims["cnf"] = cnf
	}
	if t.dialect.claims != nil {
		t.dialect.claims(claims)
	}
	return t.signer().sign(cmp.Or(t.dialect.jwtType, "at+jwt"), claims)
}
