package authserver

import (
	"crypto/subtle"
	"net/url"
	"slices"
)

// authenticate checks the client (RFC 6749 §2.3), and tells how it proved
// itself. A parameter without a value counts as left out (§3.2).
func (s *Server) authenticate(r Request) (method string, no *refusal) {
	header, assertion := r.Header.Get("Authorization") != "", r.Form.Get("client_assertion")
	id, secret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	if header && (secret != "" || assertion != "") || secret != "" && assertion != "" {
		return "", refuse("invalid_request", "more than one client authentication")
	}
	var known bool
	switch {
	case header:
		method = Basic
		known = r.Basic && s.knowsBasic(r.BasicUser, r.BasicPassword) && (id == "" || id == s.config.ClientID)
	case assertion != "":
		return s.byAssertion(r, assertion)
	case secret != "":
		method = Post
		known = s.knows(id, secret)
	default:
		if method = s.byCertificate(r); method != "" {
			return method, nil
		}
		method = None
		known = s.knows(id, s.config.ClientSecret)
	}
	if known && s.accepts(method) {
		return method, nil
	}
	no = refuse("invalid_client", "unknown client, wrong secret, or a method not accepted here")
	no.basic = header
	no.stranger = id != s.config.ClientID && r.BasicUser != s.config.ClientID
	return "", no
}

func (s *Server) accepts(method string) bool {
	return slices.Contains(s.config.Methods, method)
}

// knowsBasic looks at the id and secret of a Basic header in the encodings that
// are accepted: servers differ, and the strict ones take only one.
func (s *Server) knowsBasic(id, secret string) bool {
	if s.config.BasicEncoding != "form" && s.knows(id, secret) {
		return true
	}
	if s.config.BasicEncoding == "raw" {
		return false
	}
	formID, err := url.QueryUnescape(id)
	if err != nil {
		return false
	}
	formSecret, err := url.QueryUnescape(secret)
	return err == nil && s.knows(formID, formSecret)
}

func (s *Server) knows(id, secret string) bool {
	return s.config.ClientID != "" && equal(id, s.config.ClientID) && equal(secret, s.config.ClientSecret)
}

func equal(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
