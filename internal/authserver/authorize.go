package authserver

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
)

// AuthorizePath is where a Server made by New takes a browser to log in.
const AuthorizePath = "/authorize"

// authorize is RFC 6749 §4.1.1, with everybody logged in and nobody asked. A
// proof key is required, and S256 (RFC 7636).
func (s *Server) authorize(w http.ResponseWriter, r Request, _ error) {
	query, err := url.ParseQuery(r.RawQuery)
	// RFC 6749 §4.1.2.1: whom one does not know, one does not send anybody to
	if err != nil || query.Get("client_id") != s.config.ClientID || s.config.ClientID == "" || !s.redirects(query.Get("redirect_uri")) {
		http.Error(w, "unknown client_id, or a redirect_uri that is not known for it", http.StatusBadRequest)
		return
	}
	target, err := url.Parse(query.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "redirect_uri is no URL", http.StatusBadRequest)
		return
	}
	answer := target.Query()
	if !s.dialect.noIss {
		answer.Set("iss", s.issuer(r)) // RFC 9207
	}
	if state := query.Get("state"); state != "" {
		answer.Set("state", state)
	}
	if code, no := s.newCode(query); no != nil {
		answer.Set("error", no.code)
		answer.Set("error_description", no.description)
	} else {
		answer.Set("code", code)
	}
	target.RawQuery = answer.Encode()
	w.Header().Set("Location", target.String())
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusFound)
}

// newCode returns a code, or what is wrong with the request for it.
func (s *Server) newCode(query url.Values) (code string, no *refusal) {
	for name, values := range query {
		if len(values) > 1 && name != "resource" {
			return "", refuse("invalid_request", "a parameter is repeated")
		}
	}
	if query.Get("response_type") != "code" {
		return "", refuse("unsupported_response_type", "only code is known here")
	}
	challenge, method := query.Get("code_challenge"), query.Get("code_challenge_method")
	if sum, err := base64.RawURLEncoding.DecodeString(challenge); method != "S256" || err != nil || len(sum) != 32 {
		if !s.dialect.pkceOptional || challenge != "" {
			return "", refuse("invalid_request", "a code_challenge with code_challenge_method=S256 is required")
		}
	}
	scope, no := s.scope(query.Get("scope"))
	if no != nil {
		return "", no
	}
	return s.tokens.newCode(loginCode{
		rights:    rights{scope: scope, subject: s.config.Subject},
		redirect:  query.Get("redirect_uri"),
		challenge: challenge,
		nonce:     query.Get("nonce"),
	}), nil
}

// redirects tells whether a browser may be sent to a URI.
func (s *Server) redirects(uri string) bool {
	if len(s.config.RedirectURIs) > 0 {
		return slices.Contains(s.config.RedirectURIs, uri)
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.Fragment != "" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
