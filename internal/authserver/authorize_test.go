package authserver

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
)

const (
	callback = "http://127.0.0.1:9/cb?keep=1"
	verifier = "a-verifier-of-forty-three-characters-or-more"
)

// get asks a handler in this process.
func get(h http.Handler, path string, query url.Values) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://idp.example"+path+"?"+query.Encode(), nil))
	return w
}

// loginQuery is a good request for a code, with pairs of parameters set; an
// empty value takes one away.
func loginQuery(more ...string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {callback}, "state": {"s1"}, "nonce": {"n1"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(more); i += 2 {
		if query.Set(more[i], more[i+1]); more[i+1] == "" {
			query.Del(more[i])
		}
	}
	return query
}

// login returns what a browser brings back.
func login(t *testing.T, s *Server, query url.Values) url.Values {
	t.Helper()
	path := s.dialect.authorize
	w := get(s, path, query)
	target, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != 302 || w.Header().Get("Cache-Control") != "no-store" || !strings.HasPrefix(target.String(), "http://127.0.0.1:9/cb?") || target.Query().Get("keep") != "1" {
		t.Fatalf("it answers %d %v, %v", w.Code, target, err)
	}
	return target.Query()
}

// codeForm is the body of a good exchange, with pairs of parameters set.
func codeForm(code string, more ...string) string {
	values := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {client}, "client_secret": {secret},
		"code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return values.Encode()
}

func TestAuthorizationCode(t *testing.T) {
	s := refresher(Config{Scopes: []string{"read", "openid"}, Issuer: "https://idp.example/a"})
	back := login(t, s, loginQuery("scope", "read"))
	if back.Get("state") != "s1" || back.Get("iss") != "https://idp.example/a" || back.Get("code") == "" || len(back) != 4 {
		t.Errorf("the browser brings back %v", back)
	}
	m := members(t, ask(s, TokenPath, codeForm(back.Get("code"))))
	access, _ := m["access_token"].(string)
	refresh, _ := m["refresh_token"].(string)
	if _, err := s.Verify(access); err != nil || m["scope"] != "read" || m["expires_in"] != 3600.0 || len(m) != 5 {
		t.Errorf("the answer is %v, and the token: %v", m, err)
	}
	if _, next := mustRefresh(t, s, refresh); next != "" {
		t.Errorf("without rotation, it returns %s", next)
	}
	if s.RequestsTo(AuthorizePath) != 1 || s.Requests() != 2 {
		t.Errorf("%d logins and %d token requests are counted", s.RequestsTo(AuthorizePath), s.Requests())
	}
	if back := login(t, New(Config{ClientID: client}), loginQuery("state", "")); back.Get("iss") != "http://idp.example" || back.Has("state") {
		t.Errorf("the browser brings back %v", back)
	}
}

func TestAuthorizationCodeWithoutRefreshToken(t *testing.T) {
	for name, s := range map[string]*Server{
		"server":      New(Config{ClientID: client, ClientSecret: secret}),
		"application": refresher(Config{NoRefreshToken: true}),
	} {
		m := members(t, ask(s, TokenPath, codeForm(login(t, s, loginQuery()).Get("code"))))
		if m["access_token"] == nil || m["refresh_token"] != nil {
			t.Errorf("%s: the answer is %v", name, m)
		}
	}
}

func TestCodeIsRefused(t *testing.T) {
	tests := []struct {
		name string
		form []string
		want string
	}{
		{"no code", []string{"code", ""}, "invalid_request"},
		{"another code", []string{"code", "x"}, "invalid_grant"},
		{"another verifier", []string{"code_verifier", strings.ToUpper(verifier)}, "invalid_grant"},
		{"no verifier", []string{"code_verifier", ""}, "invalid_grant"},
		{"another redirect_uri", []string{"redirect_uri", "http://127.0.0.1:9/cb"}, "invalid_grant"},
		{"another client", []string{"client_secret", "x"}, "invalid_client"},
	}
	for _, test := range tests {
		s := refresher(Config{})
		code := login(t, s, loginQuery()).Get("code")
		if w := ask(s, TokenPath, codeForm(code, test.form...)); w.Code != 400 || members(t, w)["error"] != test.want {
			t.Errorf("%s: %d %s", test.name, w.Code, w.Body)
		}
		spent := test.name != "no code" && test.name != "another code" && test.name != "another client"
		if w := ask(s, TokenPath, codeForm(code)); (w.Code == 400) != spent {
			t.Errorf("%s: afterwards, the code is answered %d", test.name, w.Code)
		}
	}
}

func TestShortVerifier(t *testing.T) {
	for length, want := range map[int]int{42: 400, 43: 200, 128: 200, 129: 400} {
		s := refresher(Config{})
		verifier := strings.Repeat("v", length)
		sum := sha256.Sum256([]byte(verifier))
		back := login(t, s, loginQuery("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:])))
		if w := ask(s, TokenPath, codeForm(back.Get("code"), "code_verifier", verifier)); w.Code != want {
			t.Errorf("a verifier of %d characters is answered %d", length, w.Code)
		}
	}
}

func TestCodeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{})
		first, second := login(t, s, loginQuery()).Get("code"), login(t, s, loginQuery()).Get("code")
		wait(codeLifetime - 1)
		if w := ask(s, TokenPath, codeForm(first)); w.Code != 200 {
			t.Errorf("in time, it is answered %d %s", w.Code, w.Body)
		}
		wait(1)
		if w := ask(s, TokenPath, codeForm(second)); w.Code != 400 || members(t, w)["error"] != "invalid_grant" {
			t.Errorf("too late, it is answered %d %s", w.Code, w.Body)
		}
	})
}

func TestCodeReuse(t *testing.T) {
	s := refresher(Config{Rotate: RotateAlways})
	code := login(t, s, loginQuery()).Get("code")
	m := members(t, ask(s, TokenPath, codeForm(code)))
	other := members(t, ask(s, TokenPath, codeForm(login(t, s, loginQuery()).Get("code"))))
	access, next := mustRefresh(t, s, m["refresh_token"].(string))
	if w := ask(s, TokenPath, codeForm(code)); w.Code != 400 || members(t, w)["error"] != "invalid_grant" {
		t.Errorf("it is answered %d %s", w.Code, w.Body)
	}
	wantRefused(t, s, "invalid_grant", next)
	for _, token := range []any{m["access_token"], access} {
		if _, err := s.Verify(token.(string)); !errors.Is(err, ErrRevoked) {
			t.Errorf("an access token: %v", err)
		}
	}
	if !errors.Is(s.ChainEnd(next), ErrReused) {
		t.Errorf("the chain: %v", s.ChainEnd(next))
	}
	if _, err := s.Verify(other["access_token"].(string)); err != nil {
		t.Errorf("another login: %v", err)
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	s := New(Config{ClientID: client, Scopes: []string{"read"}})
	repeated := loginQuery()
	repeated.Add("scope", "read")
	repeated.Add("scope", "read")
	for name, test := range map[string]struct {
		query url.Values
		want  string // "" for a page and no redirect
	}{
		"another client":       {loginQuery("client_id", "x"), ""},
		"no redirect_uri":      {loginQuery("redirect_uri", ""), ""},
		"elsewhere":            {loginQuery("redirect_uri", "http://app.example/cb"), ""},
		"another address":      {loginQuery("redirect_uri", "http://192.0.2.1/cb"), ""},
		"another scheme":       {loginQuery("redirect_uri", "javascript://localhost/cb"), ""},
		"a fragment":           {loginQuery("redirect_uri", callback+"#x"), ""},
		"no response_type":     {loginQuery("response_type", ""), "unsupported_response_type"},
		"the implicit grant":   {loginQuery("response_type", "token"), "unsupported_response_type"},
		"no challenge":         {loginQuery("code_challenge", ""), "invalid_request"},
		"a short challenge":    {loginQuery("code_challenge", "abcd"), "invalid_request"},
		"the plain method":     {loginQuery("code_challenge_method", "plain"), "invalid_request"},
		"no method":            {loginQuery("code_challenge_method", ""), "invalid_request"},
		"another scope":        {loginQuery("scope", "write"), "invalid_scope"},
		"a repeated parameter": {repeated, "invalid_request"},
	} {
		if test.want == "" {
			if w := get(s, AuthorizePath, test.query); w.Code != 400 || w.Header().Get("Location") != "" {
				t.Errorf("%s: it answers %d", name, w.Code)
			}
			continue
		}
		if back := login(t, s, test.query); back.Get("error") != test.want || back.Has("code") || back.Get("state") != "s1" || back.Get("iss") == "" {
			t.Errorf("%s: the browser brings back %v", name, back)
		}
	}
	if w := get(New(Config{}), AuthorizePath, loginQuery("client_id", "")); w.Code != 400 {
		t.Errorf("nobody is answered %d", w.Code)
	}
	if w := ask(s, AuthorizePath, ""); w.Code != 404 {
		t.Errorf("POST is answered %d", w.Code)
	}
}

func TestRedirectURIs(t *testing.T) {
	s := New(Config{ClientID: client, RedirectURIs: []string{"https://app.example/cb"}})
	for uri, want := range map[string]int{"https://app.example/cb": 302, "https://app.example/cb2": 400, callback: 400} {
		if w := get(s, AuthorizePath, loginQuery("redirect_uri", uri)); w.Code != want {
			t.Errorf("%s is answered %d", uri, w.Code)
		}
	}
	for _, uri := range []string{"http://localhost:1/", "http://[::1]/x", "http://127.1.2.3:99"} {
		if w := get(New(Config{ClientID: client}), AuthorizePath, loginQuery("redirect_uri", uri)); w.Code != 302 {
			t.Errorf("%s is answered %d", uri, w.Code)
		}
	}
}

func TestRedirectFaults(t *testing.T) {
	for name, test := range map[string]struct {
		fault Fault
		want  map[string]string // "" for what is missing
	}{
		"denied":     {Denied(), map[string]string{"error": "access_denied", "error_description": "the person said no", "code": "", "state": "s1"}},
		"state":      {WrongState(), map[string]string{"state": "forged", "error": ""}},
		"iss":        {WrongIssuer("https://other.example"), map[string]string{"iss": "https://other.example", "state": "s1"}},
		"no iss":     {WrongIssuer(""), map[string]string{"iss": "", "state": "s1"}},
		"two faults": {Chain(WrongState(), Denied()), map[string]string{"state": "forged", "error": "access_denied"}},
	} {
		s := New(Config{ClientID: client, ClientSecret: secret})
		s.Authorization.FailNext(1, test.fault)
		back := login(t, s, loginQuery())
		for parameter, want := range test.want {
			if back.Get(parameter) != want || back.Has(parameter) != (want != "") {
				t.Errorf("%s: the browser brings back %v", name, back)
			}
		}
		if back := login(t, s, loginQuery()); !back.Has("code") || back.Get("state") != "s1" {
			t.Errorf("%s: the next one brings back %v", name, back)
		}
		s.Authorization.SetFault(test.fault)
		if w := get(s, AuthorizePath, loginQuery("client_id", "x")); w.Code != 400 || w.Header().Get("Location") != "" {
			t.Errorf("%s: what is no redirect becomes %d %v", name, w.Code, w.Header())
		}
	}
}

func TestFaultsOfEndpointsAreApart(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	s.Authorization.SetFault(Down())
	if askPost(t, s); get(s, AuthorizePath, loginQuery()).Code != 503 {
		t.Error("the authorization endpoint is healthy")
	}
	s.SetFault(Down())
	s.Authorization.SetFault(nil)
	if login(t, s, loginQuery()); ask(s, TokenPath, form()).Code != 503 {
		t.Error("the token endpoint is healthy")
	}
}
