package authserver

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// TokenPath is where a Server made by New answers.
const TokenPath = "/token"

// standard is RFC 6749 as it is written.
var standard = dialect{path: TokenPath, refuse: refuseStandard}

// refusal is an error answer (RFC 6749 §5.2).
type refusal struct {
	code        string
	description string
	// basic is true for a client that tried the Authorization header and failed:
	// such a one must be told with 401 and a challenge.
	basic bool
}

func refuse(code, description string) *refusal {
	return &refusal{code: code, description: description}
}

func refuseStandard(w http.ResponseWriter, no *refusal) {
	status := http.StatusBadRequest
	if no.basic {
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="authserver"`)
	}
	writeJSON(w, status, map[string]any{"error": no.code, "error_description": no.description})
}

// grant answers a token request as a healthy server does.
func (s *Server) grant(w http.ResponseWriter, r Request) {
	scope, no := s.check(r)
	if no != nil {
		s.dialect.refuse(w, no)
		return
	}
	tok, left, fresh := s.tokens.issue(scope)
	if fresh && s.config.OnIssue != nil {
		s.config.OnIssue(tok.n, left)
	}
	answer := map[string]any{
		"access_token": tok.text,
		"token_type":   "Bearer",
		"expires_in":   int64(left / time.Second),
	}
	if scope != "" {
		answer["scope"] = scope
	}
	if s.dialect.answer != nil {
		s.dialect.answer(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// check returns the scope to grant, or why there is nothing to grant.
func (s *Server) check(r Request) (scope string, no *refusal) {
	for name, values := range r.Form {
		// RFC 6749 §3.2; RFC 8707 §2 and RFC 8693 §2.1 let these two repeat
		if len(values) > 1 && name != "resource" && name != "audience" {
			return "", refuse("invalid_request", "a parameter is repeated")
		}
	}
	if no := s.authenticate(r); no != nil {
		return "", no
	}
	switch r.Form.Get("grant_type") {
	case "client_credentials":
	case "":
		return "", refuse("invalid_request", "grant_type is missing")
	default:
		return "", refuse("unsupported_grant_type", "only client_credentials is known here")
	}
	if s.dialect.scope != "" {
		return s.dialect.scope, nil
	}
	wanted := strings.Fields(r.Form.Get("scope"))
	if len(wanted) == 0 {
		// RFC 6749 §3.3: a default
		wanted = s.config.Scopes
	}
	for _, scope := range wanted {
		if len(s.config.Scopes) > 0 && !slices.Contains(s.config.Scopes, scope) {
			return "", refuse("invalid_scope", "this client may not have that scope")
		}
	}
	return strings.Join(wanted, " "), nil
}

// authenticate checks the client (RFC 6749 §2.3). A parameter without a value
// counts as left out (§3.2).
func (s *Server) authenticate(r Request) *refusal {
	header := r.Header.Get("Authorization") != ""
	id, secret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	if header && (secret != "" || r.Form.Get("client_assertion") != "") {
		return refuse("invalid_request", "more than one client authentication")
	}
	var known bool
	switch {
	case header:
		known = s.accepts(Basic) && r.Basic && s.knowsBasic(r.BasicUser, r.BasicPassword) &&
			(id == "" || id == s.config.ClientID)
	case secret != "":
		known = s.accepts(Post) && s.knows(id, secret)
	default:
		known = s.accepts(None) && s.knows(id, s.config.ClientSecret)
	}
	if known {
		return nil
	}
	no := refuse("invalid_client", "unknown client, wrong secret, or a method not accepted here")
	no.basic = header
	return no
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

// writeJSON writes an answer that no cache may keep (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, members map[string]any) {
	body, err := json.Marshal(members)
	if err != nil {
		http.Error(w, "the answer cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	w.Write(body)
}
