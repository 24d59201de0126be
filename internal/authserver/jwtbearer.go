package authserver

import (
	"errors"
	"time"
)

// jwtBearerGrant is RFC 7523 §2.1.
const jwtBearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer" //nolint:gosec // a name

// jwtBearer trades an assertion for an access token of its subject. The same
// one may come again.
func (s *Server) jwtBearer(a asker) (given, *refusal) {
	text := a.Form.Get("assertion")
	if text == "" {
		return given{}, refuse("invalid_request", "assertion is missing")
	}
	read := (*Server).subject
	if s.dialect.subject != nil {
		read = s.dialect.subject
	}
	r, no := read(s, a.Request, text)
	if no != nil {
		return given{}, no
	}
	return s.issue(r, a), nil
}

// subject is whom an assertion is about, with the scope that was asked for.
func (s *Server) subject(r Request, text string) (rights, *refusal) {
	scope, no := s.scope(r.Form.Get("scope"))
	if no != nil {
		return rights{}, no
	}
	if s.config.Assertion != "" && equal(text, s.config.Assertion) {
		return rights{scope: scope, subject: s.config.Subject}, nil
	}
	c, err := readJWT(text, asymmetric, s.config.AssertionKeys.Keys)
	if err == nil {
		err = c.judge(s.audiences(r), time.Now(), s.config.Late)
	}
	if err == nil && (c.Issuer == "" || c.Subject == "") {
		err = errors.New("it has no iss or no sub")
	}
	if err != nil {
		return rights{}, refuse("invalid_grant", "the assertion is not taken: "+err.Error())
	}
	return rights{scope: scope, subject: c.Subject}, nil
}

// anonymous tells whether a request names no client where it need not (RFC 7523
// §3.1).
func anonymous(r Request) bool {
	return r.Form.Get("grant_type") == jwtBearerGrant && r.Header.Get("Authorization") == "" &&
		r.Form.Get("client_id") == "" && r.Form.Get("client_secret") == "" && r.Form.Get("client_assertion") == ""
}
