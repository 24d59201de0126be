package authserver

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneAccessAnswer asks as the vendor's page does, whose example has 1719
// seconds left of 1800.
func TestOneAccessAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewOneAccess(Config{ClientID: client, ClientSecret: secret, Scopes: []string{"read"}})
		first := askPost(t, s)
		wait(81 * time.Second)
		second := members(t, ask(s, OneAccessPath, form("scope", "other")))
		for m, left := range map[*map[string]any]float64{&first: 1800, &second: 1719} {
			if m := *m; m["expires_in"] != left || m["token_type"] != "Bearer" || m["scope"] != "all" || m["id_token"] != OneAccessIDToken || len(m) != 5 {
				t.Errorf("the answer is %v, want %v left", m, left)
			}
		}
		token := first["access_token"].(string)
		if second["access_token"] != token || s.Issued() != 1 {
			t.Error("the running token is not handed out again")
		}
		if left, err := s.Verify(token); left != 1719*time.Second {
			t.Errorf("%v is left: %v", left, err)
		}
		if _, err := s.Verify(OneAccessIDToken); err == nil {
			t.Error("the ID token is an access token")
		}
		wait(1719 * time.Second)
		if third := askPost(t, s); third["access_token"] == token || third["expires_in"] != 1800.0 {
			t.Errorf("after its end the answer is %v", third)
		}
	})
}

func TestOneAccessRefusals(t *testing.T) {
	tests := []struct {
		name, body string
		basic      []string
	}{
		{"basic", "grant_type=client_credentials", []string{client, secret}},
		{"both", form(), []string{client, secret}},
		{"wrong secret", "grant_type=client_credentials&client_id=app+1&client_secret=x", nil},
		{"no grant type", strings.Replace(form(), "grant_type", "type", 1), nil},
		{"another grant type", strings.Replace(form(), "client_credentials", "password", 1), nil},
		{"repeated", form("client_id", client), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := NewOneAccess(Config{ClientID: client, ClientSecret: secret, Methods: []string{Basic, Post, None}})
			w := ask(s, OneAccessPath, test.body, test.basic...)
			m := members(t, w)
			code, _ := m["error_code"].(string)
			text, _ := m["error_msg"].(string)
			if w.Code != 400 || code == "" || text == "" || len(m) != 2 || w.Header().Get("WWW-Authenticate") != "" {
				t.Errorf("it answers %d %s", w.Code, w.Body)
			}
		})
	}
	if w := ask(NewOneAccess(Config{}), TokenPath, form()); w.Code != 404 {
		t.Errorf("it answers at %s too: %d", TokenPath, w.Code)
	}
}
