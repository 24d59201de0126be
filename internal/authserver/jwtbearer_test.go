package authserver

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// grantForm is form for another grant type.
func grantForm(grantType string, more ...string) string {
	return strings.Replace(form(more...), "client_credentials", url.QueryEscape(grantType), 1)
}

// subjectIn has an API say whom the token of an answer is about.
func subjectIn(t *testing.T, s *Server, m map[string]any) any {
	t.Helper()
	token, _ := m["access_token"].(string)
	return members(t, call(NewUpstream(s), "Authorization", "Bearer "+token))["subject"]
}

func TestJWTBearer(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret, Scopes: []string{"read", "write"}, RefreshTokens: true, AssertionKeys: PublicKeys(rsaKey().Public())})
	claims := func(more ...any) map[string]any {
		return assertionClaims(append([]any{"iss", "me@example.com", "sub", "ada"}, more...)...)
	}
	good := signed(t, jose.RS256, rsaKey(), claims())
	body := grantForm(jwtBearerGrant, "assertion", good, "scope", "read")
	for name, body := range map[string]string{"a client": body, "nobody": withoutClient(body), "again": body} {
		w := ask(s, TokenPath, body)
		if m := members(t, w); w.Code != 200 || m["scope"] != "read" || m["refresh_token"] != nil || subjectIn(t, s, m) != "ada" {
			t.Errorf("%s: %d %v", name, w.Code, m)
		}
	}
	now := time.Now().Unix()
	for name, test := range map[string]struct{ body, want string }{
		"no assertion":     {grantForm(jwtBearerGrant), "invalid_request"},
		"another key":      {grantForm(jwtBearerGrant, "assertion", signed(t, jose.ES256, ecKey(), claims())), "invalid_grant"},
		"a secret":         {grantForm(jwtBearerGrant, "assertion", signed(t, jose.HS256, []byte(longSecret), claims())), "invalid_grant"},
		"another audience": {grantForm(jwtBearerGrant, "assertion", signed(t, jose.RS256, rsaKey(), claims("aud", "x"))), "invalid_grant"},
		"expired":          {grantForm(jwtBearerGrant, "assertion", signed(t, jose.RS256, rsaKey(), claims("exp", now-1))), "invalid_grant"},
		"no sub":           {grantForm(jwtBearerGrant, "assertion", signed(t, jose.RS256, rsaKey(), claims("sub", nil))), "invalid_grant"},
		"no iss":           {grantForm(jwtBearerGrant, "assertion", signed(t, jose.RS256, rsaKey(), claims("iss", nil))), "invalid_grant"},
		"no JWT":           {grantForm(jwtBearerGrant, "assertion", "x"), "invalid_grant"},
		"another scope":    {grantForm(jwtBearerGrant, "assertion", good, "scope", "admin"), "invalid_scope"},
		"a wrong secret":   {strings.Replace(body, "client_secret=p", "client_secret=q", 1), "invalid_client"},
		"another grant":    {withoutClient(form()), "invalid_client"},
	} {
		if w := ask(s, TokenPath, test.body); w.Code != 400 || members(t, w)["error"] != test.want {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := ask(s, TokenPath, withoutClient(body), client, "x"); w.Code != 401 {
		t.Errorf("a wrong Basic header is answered %d", w.Code)
	}
}

func TestFixedAssertion(t *testing.T) {
	s := New(Config{Assertion: "fixed", Subject: "ada"})
	w := ask(s, TokenPath, withoutClient(grantForm(jwtBearerGrant, "assertion", "fixed")))
	if m := members(t, w); w.Code != 200 || subjectIn(t, s, m) != "ada" {
		t.Errorf("it answers %d %v", w.Code, m)
	}
	if w := ask(s, TokenPath, withoutClient(grantForm(jwtBearerGrant, "assertion", "fixed2"))); w.Code != 400 {
		t.Errorf("another is answered %d", w.Code)
	}
	for _, grantType := range []string{jwtBearerGrant, exchangeGrant} {
		if w := ask(New(Config{ClientID: client, ClientSecret: secret}), TokenPath, grantForm(grantType, "assertion", "")); members(t, w)["error"] != "unsupported_grant_type" {
			t.Errorf("without what it needs, %s is answered %s", grantType, w.Body)
		}
	}
}
