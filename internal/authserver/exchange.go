package authserver

const (
	// exchangeGrant is RFC 8693.
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	// accessTokenType is an access token in the words of RFC 8693 §3.
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token" //nolint:gosec // a name, and no token
)

// exchange is RFC 8693 §2.
func (s *Server) exchange(a asker) (given, *refusal) {
	subject := a.Form.Get("subject_token")
	switch actor := a.Form.Get("actor_token") != ""; {
	case subject == "" || a.Form.Get("subject_token_type") == "":
		return given{}, refuse("invalid_request", "subject_token or subject_token_type is missing")
	case actor != (a.Form.Get("actor_token_type") != ""):
		return given{}, refuse("invalid_request", "actor_token and actor_token_type go together")
	}
	user, ok := s.config.SubjectTokens(subject)
	if !ok {
		// RFC 8693 §2.2.2: not invalid_grant
		return given{}, refuse("invalid_request", "the subject_token is not taken here")
	}
	scope, no := s.scope(a.Form.Get("scope"))
	if no != nil {
		return given{}, no
	}
	g := s.issue(rights{scope: scope, subject: user}, a)
	g.members = map[string]any{"issued_token_type": s.config.IssuedTokenType}
	if s.config.ExchangeTokenType != "" {
		g.members["token_type"] = s.config.ExchangeTokenType
	}
	return g, nil
}
