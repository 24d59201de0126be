package authserver

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// claimsOf checks a JWT with the keys that a server publishes.
func claimsOf(t *testing.T, s *Server, token any, typ, alg string) map[string]any {
	t.Helper()
	text, _ := token.(string)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(get(s, KeysPath, nil).Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var claims map[string]any
	if err := parsed.Claims(set, &claims); err != nil {
		t.Fatal(err)
	}
	if header := parsed.Headers[0]; header.ExtraHeaders["typ"] != typ || header.KeyID == "" || len(set.Keys) != 1 || !set.Keys[0].IsPublic() {
		t.Errorf("the header is %v, the keys are %v", header, set.Keys)
	}
	return claims
}

func TestIDToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, alg := range []string{"ES256", "RS256"} {
			s := refresher(Config{SigningAlg: alg, Subject: "ada", Rotate: RotateAlways})
			m := members(t, ask(s, TokenPath, codeForm(login(t, s, loginQuery("scope", "openid read")).Get("code"))))
			got := claimsOf(t, s, m["id_token"], "JWT", alg)
			now := float64(time.Now().Unix())
			want := map[string]any{
				"iss": "http://example.com", "sub": "ada", "aud": client, "nonce": "n1",
				"iat": now, "exp": now + 3600, "at_hash": got["at_hash"],
			}
			for name, value := range want {
				if got[name] != value || value == nil || len(got) != len(want) {
					t.Errorf("%s: %s is %v, want %v, of %d claims", alg, name, got[name], value, len(got))
				}
			}

			again := members(t, askRefresh(s, m["refresh_token"].(string)))
			got = claimsOf(t, s, again["id_token"], "JWT", alg)
			if got["nonce"] != nil || got["sub"] != "ada" || got["at_hash"] == want["at_hash"] { // OpenID Connect Core §12.2
				t.Errorf("%s: after a refresh, the claims are %v", alg, got)
			}
		}
	})
}

func TestNoIDToken(t *testing.T) {
	s := refresher(Config{})
	for name, m := range map[string]map[string]any{
		"a login without openid": members(t, ask(s, TokenPath, codeForm(login(t, s, loginQuery("scope", "read openid2")).Get("code")))),
		"no login":               members(t, ask(s, TokenPath, form("scope", "openid"))),
	} {
		if m["access_token"] == nil || m["id_token"] != nil {
			t.Errorf("%s: the answer is %v", name, m)
		}
	}
	if s.RequestsTo(KeysPath) != 0 {
		t.Error("the keys were asked for")
	}
}

func TestIDTokenEdit(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret, IDTokenEdit: func(claims map[string]any) {
		claims["nonce"] = "forged"
		delete(claims, "aud")
	}})
	m := members(t, ask(s, TokenPath, codeForm(login(t, s, loginQuery("scope", "openid")).Get("code"))))
	if got := claimsOf(t, s, m["id_token"], "JWT", "ES256"); got["nonce"] != "forged" || got["aud"] != nil {
		t.Errorf("the claims are %v", got)
	}
	s.Keys.SetFault(Down())
	if w := get(s, KeysPath, nil); w.Code != 503 || s.RequestsTo(KeysPath) != 2 {
		t.Errorf("the keys are answered %d, %d times", w.Code, s.RequestsTo(KeysPath))
	}
}

func TestAccessTokenThatIsAJWT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{JWT: true, Lifetime: 300 * time.Second, Issuer: "https://idp.example"})
		first, second := askPost(t, s), askPost(t, s)
		got := claimsOf(t, s, first["access_token"], "at+jwt", "ES256")
		now := float64(time.Now().Unix())
		for name, want := range map[string]any{"iss": "https://idp.example", "sub": client, "aud": client, "client_id": client, "iat": now, "exp": now + 300} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
		if got["jti"] == claimsOf(t, s, second["access_token"], "at+jwt", "ES256")["jti"] || got["scope"] != nil || got["cnf"] != nil {
			t.Errorf("the claims are %v", got)
		}
		if left, err := s.Verify(first["access_token"].(string)); left != 300*time.Second {
			t.Errorf("%v is left: %v", left, err)
		}
		m := members(t, askRefresh(s, s.IssueRefreshToken("read")))
		if got := claimsOf(t, s, m["access_token"], "at+jwt", "ES256"); got["sub"] != "user" || got["scope"] != "read" {
			t.Errorf("of a login, the claims are %v", got)
		}
	})
}
