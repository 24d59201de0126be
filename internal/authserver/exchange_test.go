package authserver

import "testing"

func TestExchange(t *testing.T) {
	config := Config{ClientID: client, ClientSecret: secret, Scopes: []string{"read"},
		SubjectTokens: func(token string) (string, bool) { return "of " + token, token != "bad" }}
	s := New(config)
	const jwtType = "urn:ietf:params:oauth:token-type:jwt"
	good := []string{"subject_token", "tok", "subject_token_type", accessTokenType}
	m := members(t, ask(s, TokenPath, grantForm(exchangeGrant, append(good, "audience", "a", "audience", "b", "actor_token", "x", "actor_token_type", jwtType)...)))
	if m["issued_token_type"] != accessTokenType || m["token_type"] != "Bearer" || m["scope"] != "read" || m["refresh_token"] != nil || subjectIn(t, s, m) != "of tok" {
		t.Errorf("the answer is %v", m)
	}
	for name, test := range map[string]struct {
		form []string
		want string
	}{
		"no subject_token":      {[]string{"subject_token_type", accessTokenType}, "invalid_request"},
		"no subject_token_type": {[]string{"subject_token", "tok"}, "invalid_request"},
		"no actor_token_type":   {append(good, "actor_token", "x"), "invalid_request"},
		"no actor_token":        {append(good, "actor_token_type", jwtType), "invalid_request"},
		"a bad one":             {[]string{"subject_token", "bad", "subject_token_type", accessTokenType}, "invalid_request"},
		"another scope":         {append(good, "scope", "write"), "invalid_scope"},
	} {
		if w := ask(s, TokenPath, grantForm(exchangeGrant, test.form...)); w.Code != 400 || members(t, w)["error"] != test.want {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	config.ExchangeTokenType, config.IssuedTokenType = "N_A", jwtType
	if m := members(t, ask(New(config), TokenPath, grantForm(exchangeGrant, good...))); m["issued_token_type"] != jwtType || m["token_type"] != "N_A" {
		t.Errorf("the answer is %v", m)
	}
	if w := ask(s, TokenPath, withoutClient(grantForm(exchangeGrant, good...))); w.Code != 400 {
		t.Errorf("nobody is answered %d", w.Code)
	}
}
