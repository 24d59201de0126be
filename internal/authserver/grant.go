package authserver

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// TokenPath is where a Server made by New answers.
const TokenPath = "/token"

// standard is RFC 6749 as it is written.
var standard = dialect{path: TokenPath, authorize: AuthorizePath, whole: true, refuse: asRFC}

// refusal is an error answer (RFC 6749 §5.2).
type refusal struct {
	code        string
	description string
	// basic is true for a client that tried the Authorization header and failed:
	// such a one must be told with 401 and a challenge.
	basic bool
	// stranger is true for a client that is not known at all.
	stranger bool
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

// asRFC is refuseStandard, for a dialect.
func asRFC(w http.ResponseWriter, _ Request, no *refusal) { refuseStandard(w, no) }

// asker is a token request whose client is known.
type asker struct {
	Request
	terms terms
}

// given is what a token request brings.
type given struct {
	token *token
	left  time.Duration
	fresh bool // false if the token was running already
	// refresh is the refresh token to answer, "" for none.
	refresh string
	// user is true if somebody logged in for it. nonce is what the ID token then
	// repeats, "" for nothing.
	user  bool
	nonce string
	// members are further ones of the answer, or take the place of others.
	members map[string]any
}

// grants are the grant types, each with what decides on a request.
var grants = map[string]func(*Server, asker) (given, *refusal){
	"client_credentials": (*Server).clientCredentials,
	"authorization_code": (*Server).authorizationCode,
	deviceGrant:          (*Server).deviceCode,
	jwtBearerGrant:       (*Server).jwtBearer,
	exchangeGrant:        (*Server).exchange,
	"refresh_token":      (*Server).refresh,
}

// offers tells whether there is what a grant type needs.
func (s *Server) offers(grantType string) bool {
	if grants[grantType] == nil || len(s.config.Grants) > 0 && !slices.Contains(s.config.Grants, grantType) {
		return false
	}
	switch grantType {
	case "authorization_code":
		return s.dialect.authorize != ""
	case deviceGrant:
		return s.dialect.whole
	case jwtBearerGrant:
		return s.config.Assertion != "" || len(s.config.AssertionKeys.Keys) > 0
	case exchangeGrant:
		return s.config.SubjectTokens != nil
	case "refresh_token":
		return s.config.RefreshTokens
	default:
		return true
	}
}

// token answers a token request as a healthy server does.
func (s *Server) token(w http.ResponseWriter, r Request, err error) {
	if s.dialect.words != nil && err == nil {
		err = s.dialect.words(&r)
	}
	if s.dialect.contentType != "" {
		w.Header().Set("Content-Type", s.dialect.contentType)
	}
	g, no := s.give(r, err)
	if nonce := s.proofs.tells(s.config.nonceRule(), no); nonce != "" {
		w.Header().Set("DPoP-Nonce", nonce)
	}
	if no != nil {
		s.dialect.refuse(w, r, no)
		return
	}
	if g.fresh && s.config.OnIssue != nil {
		s.config.OnIssue(g.token.n, g.left)
	}
	answer := map[string]any{
		"access_token": g.token.text,
		"token_type":   "Bearer",
		"expires_in":   int64(g.left / time.Second),
	}
	if g.token.key != "" {
		answer["token_type"] = "DPoP"
	}
	if g.token.scope != "" {
		answer["scope"] = g.token.scope
	}
	if g.refresh != "" {
		answer["refresh_token"] = g.refresh
	}
	maps.Copy(answer, g.members)
	if id := s.idToken(r, g); id != "" {
		answer["id_token"] = id
	}
	if s.dialect.answer != nil {
		s.dialect.answer(answer)
	}
	if s.dialect.wrap != nil {
		answer = s.dialect.wrap(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// give returns what a request brings, or why it brings nothing.
func (s *Server) give(r Request, err error) (given, *refusal) {
	if no := wellFormed(r, err); no != nil {
		return given{}, no
	}
	method := None
	var no *refusal
	if !anonymous(r) {
		if method, no = s.authenticate(r); no != nil {
			return given{}, no
		}
	}
	grantType := r.Form.Get("grant_type")
	if grantType == "" {
		return given{}, refuse("invalid_request", "grant_type is missing")
	}
	if !s.offers(grantType) {
		return given{}, refuse("unsupported_grant_type", "that grant type is not known here")
	}
	on := s.termsOf(r, method)
	if on.key, no = s.prove(r); no != nil {
		return given{}, no
	}
	if s.dialect.check != nil {
		if no := s.dialect.check(s, r); no != nil {
			return given{}, no
		}
	}
	return grants[grantType](s, asker{Request: r, terms: on})
}

// wellFormed checks a request that a client sends as a form.
func wellFormed(r Request, err error) *refusal {
	if err != nil {
		return refuse("invalid_request", "the body cannot be read as a form")
	}
	for name, values := range r.Form {
		// RFC 6749 §3.2; RFC 8707 §2 and RFC 8693 §2.1 let these two repeat
		if len(values) > 1 && name != "resource" && name != "audience" {
			return refuse("invalid_request", "a parameter is repeated")
		}
	}
	return nil
}

// admit checks such a request, and its client.
func (s *Server) admit(r Request, err error) *refusal {
	if no := wellFormed(r, err); no != nil {
		return no
	}
	_, no := s.authenticate(r)
	return no
}

// termsOf is what an access token takes from the request for it. Its issuer
// tells tokens apart only where they say it.
func (s *Server) termsOf(r Request, method string) terms {
	on := terms{public: method == None}
	if s.config.JWT {
		on.issuer = s.issuer(r)
	}
	if cert := certificate(r.TLS); s.config.BindCertificates && cert != nil {
		on.cert = Thumbprint(cert)
	}
	return on
}

// clientCredentials is RFC 6749 §4.4.
func (s *Server) clientCredentials(a asker) (given, *refusal) {
	scope, no := s.scope(a.Form.Get("scope"))
	if no != nil {
		return given{}, no
	}
	return s.issue(rights{scope: scope}, a), nil
}

// issue gives an access token that belongs to no login.
func (s *Server) issue(r rights, a asker) given {
	tok, left, fresh := s.tokens.issue(r, a.terms)
	return given{token: tok, left: left, fresh: fresh}
}

// scope returns the scope to grant to one who asks for wanted.
func (s *Server) scope(wanted string) (scope string, no *refusal) {
	if s.dialect.scope != "" {
		return s.dialect.scope, nil
	}
	scopes := strings.Fields(wanted)
	if len(scopes) == 0 {
		// RFC 6749 §3.3: a default
		scopes = s.config.Scopes
	}
	for _, scope := range scopes {
		if len(s.config.Scopes) > 0 && !slices.Contains(s.config.Scopes, scope) {
			return "", refuse("invalid_scope", "this client may not have that scope")
		}
	}
	return strings.Join(scopes, " "), nil
}

// writeJSON writes an answer that no cache may keep (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, members map[string]any) {
	body, err := json.Marshal(members)
	if err != nil {
		http.Error(w, "the answer cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	w.Write(body)
}
