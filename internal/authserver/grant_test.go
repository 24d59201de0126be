package authserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// secret has what form encoding changes (RFC 6749 §2.3.1).
const (
	client = "app 1"
	secret = "p+a%41s/w=d &!~:x"
)

// ask sends a token request to a handler in this process. basic is id and
// secret of the Basic header, or nothing.
func ask(h http.Handler, path, body string, basic ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) > 0 {
		r.SetBasicAuth(basic[0], basic[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// askPost is a good request with the client in the body.
func askPost(t *testing.T, s *Server) map[string]any {
	t.Helper()
	return members(t, ask(s, s.dialect.path, form()))
}

// form is the body of a good request, with pairs of parameters added.
func form(more ...string) string {
	values := url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {secret}}
	for i := 0; i < len(more); i += 2 {
		values.Add(more[i], more[i+1])
	}
	return values.Encode()
}

func members(t *testing.T, w *httptest.ResponseRecorder) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	return m
}

func TestGrant(t *testing.T) {
	escaped := []string{url.QueryEscape(client), url.QueryEscape(secret)}
	grant := "grant_type=client_credentials"
	tests := []struct {
		name   string
		config Config
		body   string
		basic  []string
		status int
		want   string // error, or scope
	}{
		{name: "post", body: form(), status: 200},
		{name: "basic raw", body: grant, basic: []string{client, secret}, status: 200},
		{name: "basic form", body: grant, basic: escaped, status: 200},
		{name: "basic with its client_id in the body too", body: grant + "&client_id=app+1", basic: escaped, status: 200},
		{name: "basic with another client_id in the body", body: grant + "&client_id=other", basic: escaped, status: 401, want: "invalid_client"},
		{name: "only form, raw sent", config: Config{BasicEncoding: "form"}, body: grant, basic: []string{client, secret}, status: 401, want: "invalid_client"},
		{name: "only form, form sent", config: Config{BasicEncoding: "form"}, body: grant, basic: escaped, status: 200},
		{name: "only raw, form sent", config: Config{BasicEncoding: "raw"}, body: grant, basic: escaped, status: 401, want: "invalid_client"},
		{name: "only raw, raw sent", config: Config{BasicEncoding: "raw"}, body: grant, basic: []string{client, secret}, status: 200},
		{name: "wrong secret in basic", body: grant, basic: []string{client, "x"}, status: 401, want: "invalid_client"},
		{name: "wrong secret in the body", body: grant + "&client_id=app+1&client_secret=x", status: 400, want: "invalid_client"},
		{name: "no client", body: grant, status: 400, want: "invalid_client"},
		{name: "basic not accepted", config: Config{Methods: []string{Post}}, body: grant, basic: escaped, status: 401, want: "invalid_client"},
		{name: "post not accepted", config: Config{Methods: []string{Basic}}, body: form(), status: 400, want: "invalid_client"},
		{name: "none", config: Config{Methods: []string{None}}, body: grant + "&client_id=app+1", status: 200},
		{name: "none not accepted", body: grant + "&client_id=app+1&client_secret=", status: 400, want: "invalid_client"},
		{name: "two methods", body: form(), basic: escaped, status: 400, want: "invalid_request"},
		{name: "repeated parameter", body: form("scope", "read", "scope", "write"), status: 400, want: "invalid_request"},
		{name: "resource may repeat", body: form("resource", "https://a.example", "resource", "https://b.example"), status: 200},
		{name: "no form", body: "%zz", status: 400, want: "invalid_request"},
		{name: "no grant type", body: "client_id=app+1&client_secret=" + url.QueryEscape(secret), status: 400, want: "invalid_request"},
		{name: "another grant type", body: strings.Replace(form(), "client_credentials", "password", 1), status: 400, want: "unsupported_grant_type"},
		{name: "any scope", body: form("scope", "read"), status: 200, want: "read"},
		{name: "all scopes unless asked", config: Config{Scopes: []string{"read", "write"}}, body: form(), status: 200, want: "read write"},
		{name: "one of the scopes", config: Config{Scopes: []string{"read", "write"}}, body: form("scope", "write"), status: 200, want: "write"},
		{name: "a scope too many", config: Config{Scopes: []string{"read"}}, body: form("scope", "read admin"), status: 400, want: "invalid_scope"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.config.ClientID, test.config.ClientSecret = client, secret
			s := New(test.config)
			w := ask(s, TokenPath, test.body, test.basic...)
			m := members(t, w)
			member := "scope"
			if test.status != 200 {
				member = "error"
			}
			got, _ := m[member].(string)
			if w.Code != test.status || got != test.want {
				t.Errorf("got status %d and %s %q, want %d and %q", w.Code, member, got, test.status, test.want)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control is %q", got)
			}
			if challenged := w.Header().Get("WWW-Authenticate") != ""; challenged != (test.status == 401) {
				t.Errorf("status %d and a challenge: %t", w.Code, challenged)
			}
			token, _ := m["access_token"].(string)
			if _, err := s.Verify(token); (err == nil) != (test.status == 200) {
				t.Errorf("status %d, and the token: %v", w.Code, err)
			}
			if issued := s.Issued(); (issued == 1) != (test.status == 200) {
				t.Errorf("status %d, and %d tokens issued", w.Code, issued)
			}
		})
	}
}

func TestGoodAnswer(t *testing.T) {
	var told []string
	s := New(Config{
		ClientID: client, ClientSecret: secret, Lifetime: 2900 * time.Millisecond,
		OnIssue: func(n int, lifetime time.Duration) { told = append(told, fmt.Sprint(n, lifetime)) },
	})
	first, second := askPost(t, s), askPost(t, s)
	if first["token_type"] != "Bearer" || first["expires_in"] != 2.0 || len(first) != 3 {
		t.Errorf("the answer is %v", first)
	}
	token, _ := first["access_token"].(string)
	if !strings.HasPrefix(token, "at-") || len(token) != 46 || first["access_token"] == second["access_token"] {
		t.Errorf("the tokens are %v and %v", first["access_token"], second["access_token"])
	}
	if got := strings.Join(told, ", "); got != "1 2.9s, 2 2.9s" {
		t.Errorf("OnIssue was told %s", got)
	}
}

func TestNobodyIsKnownWithoutAConfig(t *testing.T) {
	s := New(Config{Methods: []string{Basic, Post, None}})
	for _, body := range []string{"", "&client_id=", "&client_id=x&client_secret=y"} {
		if w := ask(s, TokenPath, "grant_type=client_credentials"+body); w.Code != 400 {
			t.Errorf("%q is answered %d", body, w.Code)
		}
	}
}
