package authserver

import (
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// tokenForm is a client's question about a token.
func tokenForm(token string) string { return form("token", token) }

func TestRevoke(t *testing.T) {
	s := refresher(Config{Rotate: RotateAlways})
	first := s.IssueRefreshToken()
	access, second := mustRefresh(t, s, first)
	other, _ := mustRefresh(t, s, s.IssueRefreshToken())
	apart, _ := issueOne(t, s)
	for _, token := range []string{apart, "x", second} {
		if w := ask(s, RevokePath, tokenForm(token)); w.Code != 200 || w.Body.Len() > 0 {
			t.Errorf("it answers %d %s", w.Code, w.Body)
		}
	}
	for token, want := range map[string]error{apart: ErrRevoked, access: ErrRevoked, other: nil} {
		if _, err := s.Verify(token); !errors.Is(err, want) {
			t.Errorf("a token: %v, want %v", err, want)
		}
	}
	if !errors.Is(s.ChainEnd(first), ErrRevoked) || s.RequestsTo(RevokePath) != 3 {
		t.Errorf("the chain: %v, after %d requests", s.ChainEnd(first), s.RequestsTo(RevokePath))
	}
	s.Revocation.SetFault(Down())
	if w := ask(s, RevokePath, tokenForm(other)); w.Code != 503 {
		t.Errorf("a fault is answered %d", w.Code)
	}
}

func TestRevokeAndIntrospectRefuse(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret, Assertion: "x"})
	token, _ := issueOne(t, s)
	for _, path := range []string{RevokePath, IntrospectPath} {
		for body, want := range map[string]string{
			withoutClient(tokenForm(token)): "invalid_client",
			form():                          "invalid_request",
			withoutClient(grantForm(jwtBearerGrant, "token", token)): "invalid_client",
			"%zz": "invalid_request",
		} {
			if w := ask(s, path, body); w.Code != 400 || members(t, w)["error"] != want {
				t.Errorf("%s: %q is answered %d %s", path, body, w.Code, w.Body)
			}
		}
	}
	if _, err := s.Verify(token); err != nil {
		t.Errorf("the token: %v", err)
	}
}

func TestIntrospect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dpopServer(Config{RefreshTokens: true, Rotate: RotateAlways, Lifetime: time.Minute, Issuer: "https://idp.example", Subject: "ada"})
		plain, _ := issueOne(t, s)
		bound := members(t, askProof(s, form("scope", "read"), proof(t)))["access_token"].(string)
		spent := s.IssueRefreshToken()
		_, live := mustRefresh(t, s, spent)
		dead := s.IssueRefreshToken()
		s.RevokeChain(dead)
		wait(10 * time.Second)
		exp := float64(time.Now().Add(50 * time.Second).Unix())
		base := func(more ...any) map[string]any {
			m := map[string]any{"active": true, "client_id": client, "iss": "https://idp.example"}
			for i := 0; i < len(more); i += 2 {
				m[more[i].(string)] = more[i+1]
			}
			return m
		}
		inactive := map[string]any{"active": false}
		cnf := map[string]any{"jkt": thumbprintOf(t, jose.JSONWebKey{Key: ecKey().Public()})}
		want := func(name, token string, want map[string]any) {
			t.Helper()
			if got := members(t, ask(s, IntrospectPath, tokenForm(token))); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		want("a token", plain, base("exp", exp, "token_type", "Bearer"))
		want("a bound one", bound, base("exp", exp, "token_type", "DPoP", "scope", "read", "cnf", cnf))
		want("a refresh token", live, base("sub", "ada"))
		want("a spent one", spent, inactive)
		want("a dead one", dead, inactive)
		want("an unknown one", "x", inactive)
		wait(50 * time.Second)
		want("an expired one", plain, inactive)
		s.Introspection.SetFault(Down())
		if w := ask(s, IntrospectPath, tokenForm(live)); w.Code != 503 {
			t.Errorf("a fault is answered %d", w.Code)
		}
	})
}
