package authserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// newVendor is a copy that signs what it signs with a key that is made quickly.
func newVendor(name Vendor, config Config) *Server {
	config.ClientID, config.ClientSecret, config.SigningAlg = client, secret, "ES256"
	return NewVendor(name, config)
}

// send sends a token request to a copy.
func send(s *Server, contentType, query, body string, basic ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, s.Path()+"?"+query, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if len(basic) > 0 {
		r.SetBasicAuth(basic[0], basic[1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const formType = "application/x-www-form-urlencoded"

func TestVendors(t *testing.T) {
	if names := Vendors(); len(names) != 14 || !slices.IsSorted(names) {
		t.Errorf("there are %v", names)
	}
	defer func() {
		if recover() == nil {
			t.Error("a vendor that is none has a copy")
		}
	}()
	NewVendor("other", Config{})
}

// TestVendorGrants asks each copy that has them for a token by client
// credentials, well and wrongly.
func TestVendorGrants(t *testing.T) {
	type want map[string]any // nil is a member that must be missing, any one that must be there
	there := struct{}{}
	wrong := strings.Replace(form("scope", "a/.default", "audience", "x"), url.QueryEscape(secret), "x", 1)
	for name, test := range map[Vendor]struct {
		form        []string
		basic       bool
		contentType string
		good        want
		wrongStatus int
		wrong       want
	}{
		Auth0:    {form: []string{"audience", "x"}, good: want{"expires_in": 86400.0, "token_type": "Bearer"}, wrongStatus: 401, wrong: want{"error": "access_denied", "error_description": "Unauthorized"}},
		Cognito:  {basic: true, contentType: "application/json;charset=UTF-8", form: []string{"scope", "api/read"}, good: want{"expires_in": 3600.0, "scope": nil}, wrongStatus: 400, wrong: want{"error": "invalid_client", "error_description": nil}},
		Entra:    {form: []string{"scope", "api://x/.default"}, contentType: "application/json; charset=utf-8", good: want{"expires_in": 3599.0, "ext_expires_in": 3599.0, "token_type": "Bearer", "scope": nil}, wrongStatus: 401, wrong: want{"error": "invalid_client", "error_codes": []any{7000215.0}, "trace_id": there, "error_uri": "https://login.microsoftonline.com/error?code=7000215"}},
		Keycloak: {good: want{"expires_in": 300.0, "refresh_expires_in": 0.0, "not-before-policy": 0.0}, wrongStatus: 401, wrong: want{"error": "unauthorized_client", "error_description": there}},
		Okta:     {form: []string{"scope", "read"}, good: want{"expires_in": 3600.0, "scope": "read"}, wrongStatus: 401, wrong: want{"error": "invalid_client", "error_description": there}},
		Salesforce: {contentType: "application/json;charset=UTF-8", good: want{"expires_in": nil, "token_type": "Bearer", "scope": "api", "instance_url": there, "id": there, "issued_at": there, "signature": there},
			wrongStatus: 400, wrong: want{"error": "invalid_client", "error_description": "invalid client credentials"}},
		TencentCIAM:  {contentType: "application/json;charset=UTF-8", good: want{"expires_in": 299.0, "scope": "openid", "id_token": nil}, wrongStatus: 400, wrong: want{"error": "invalid_client", "error_description": nil}},
		Enveloped:    {good: want{"code": 0.0, "data": there, "access_token": nil}, wrongStatus: 200, wrong: want{"code": 40001.0, "msg": there}},
		Milliseconds: {good: want{"expires_in": 3600000.0}, wrongStatus: 400, wrong: want{"error": "invalid_client"}},
	} {
		t.Run(string(name), func(t *testing.T) {
			s := newVendor(name, Config{})
			check := func(w *httptest.ResponseRecorder, status int, want want) map[string]any {
				t.Helper()
				m := members(t, w)
				for member, value := range want {
					if got, is := m[member]; is != (value != nil) || value != nil && value != there && !reflect.DeepEqual(got, value) {
						t.Errorf("%s is %v, want %v", member, got, value)
					}
				}
				contentType := test.contentType
				if contentType == "" {
					contentType = "application/json"
				}
				if got := w.Header().Get("Content-Type"); w.Code != status || got != contentType {
					t.Errorf("it answers %d %s %v", w.Code, got, m)
				}
				return m
			}
			var m map[string]any
			if test.basic {
				m = check(send(s, formType, "", withoutClient(form(test.form...)), client, secret), 200, test.good)
			} else {
				m = check(send(s, formType, "", form(test.form...)), 200, test.good)
			}
			if data, ok := m["data"].(map[string]any); ok {
				m = data
			}
			token, _ := m["access_token"].(string)
			if left, err := s.Verify(token); err != nil || left > 24*time.Hour {
				t.Errorf("the token has %v left: %v", left, err)
			}
			check(send(s, formType, "", wrong), test.wrongStatus, test.wrong)
			if w := ask(s, "/elsewhere", form()); w.Code != 404 || s.Requests() != 2 {
				t.Errorf("elsewhere it answers %d, after %d token requests", w.Code, s.Requests())
			}
			if w := get(s, OAuthMetadataPath, nil); w.Code != 404 {
				t.Errorf("its metadata is answered %d", w.Code)
			}
		})
	}
}

// TestVendorRefusals is what each copy says to mistakes that are its own.
func TestVendorRefusals(t *testing.T) {
	stranger := strings.Replace(form("scope", "a/.default", "audience", "x", "account_id", "x"), "client_id=app", "client_id=other", 1)
	for _, test := range []struct {
		vendor Vendor
		body   string
		status int
		want   string // in the answer
	}{
		{Auth0, form(), 403, `"access_denied"`},
		{Auth0, stranger, 401, `"access_denied"`},
		{Auth0, refreshForm("x"), 403, `"invalid_grant"`},
		{Auth0, grantForm("password"), 403, `"unsupported_grant_type"`},
		{Cognito, grantForm("password"), 400, `{"error":"unsupported_grant_type"}`},
		{Entra, form(), 400, `AADSTS90014: `},
		{Entra, form("scope", "read"), 400, `"error":"invalid_scope"`},
		{Entra, form("scope", "a/.default b/.default"), 400, `"error_codes":[1002012]`},
		{Entra, stranger, 400, `"error":"unauthorized_client"`},
		{Entra, stranger, 400, `AADSTS700016: `},
		{Entra, withoutClient(assertionForm("x")), 401, `AADSTS700027: `},
		{Entra, grantForm("password"), 400, `AADSTS70003: `},
		{Keycloak, stranger, 401, `"error":"invalid_client"`},
		{Keycloak, refreshForm("x"), 400, `{"error":"invalid_grant","error_description":"Invalid refresh token"}`},
		{Okta, form(), 400, `"error":"invalid_scope"`},
		{Okta, stranger, 401, `"errorCode":"invalid_client"`},
		{Okta, strings.Replace(form("scope", "read"), "client_secret=p", "client_secret=q", 1), 401, `"error":"invalid_client"`},
		{Salesforce, stranger, 400, `{"error":"invalid_client_id","error_description":"client identifier invalid"}`},
		{Salesforce, grantForm("x"), 400, `"grant type not supported"`},
		{Salesforce, refreshForm("x"), 400, `"expired access/refresh token"`},
		{TencentCIAM, refreshForm("x"), 400, `{"error":"invalid_grant"}`},
		{OneAccessOAuth, refreshForm("x"), 400, `{"error":"invalid_grant","error_description":"Invalid refresh token"}`},
		{OneAccessOIDC, refreshForm("x"), 400, `{"error":"invalid_grant","error_description":"Invalid authorization code"}`},
		{OneAccessOIDC, codeForm("x"), 400, `{"error":"invalid_grant","error_description":"Invalid authorization code"}`},
		{OneAccessOAuth, form(), 400, `"unsupported_grant_type"`},
		{Zoom, form(), 400, `"reason"`},
		{Enveloped, grantForm("password"), 200, `"code":40001`},
	} {
		s := newVendor(test.vendor, Config{})
		if w := send(s, formType, "", test.body); w.Code != test.status || !strings.Contains(w.Body.String(), test.want) || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %d %s, want %s", test.vendor, w.Code, w.Body, test.want)
		}
	}
}

func TestJSONBodies(t *testing.T) {
	body, err := json.Marshal(map[string]any{"grant_type": "client_credentials", "client_id": client, "client_secret": secret, "audience": "x", "odd": 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []Vendor{Auth0, Enveloped} {
		s := newVendor(name, Config{})
		if w := send(s, "application/json; charset=utf-8", "", string(body)); w.Code != 200 || !strings.Contains(w.Body.String(), `"access_token"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if w := send(s, "application/json", "", "{"); strings.Contains(w.Body.String(), `"access_token"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if s.Log()[0].Form != nil || s.Log()[0].Body != string(body) {
			t.Errorf("%s: the log has %v", name, s.Log()[0].Form)
		}
	}
	if w := send(newVendor(Okta, Config{}), "application/json", "", string(body)); w.Code == 200 {
		t.Error("JSON is taken where only forms are")
	}
}

func TestWeChat(t *testing.T) {
	s := newVendor(WeChat, Config{})
	query := func(pairs ...string) url.Values {
		q := url.Values{"grant_type": {"client_credential"}, "appid": {client}, "secret": {secret}}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		return q
	}
	first := members(t, get(s, "/cgi-bin/token", query()))
	w := get(s, "/cgi-bin/token", query())
	second := members(t, w)
	if len(first) != 2 || first["expires_in"] != 7200.0 || w.Header().Get("Content-Type") != "application/json; encoding=utf-8" {
		t.Errorf("the answer is %v %v", first, w.Header())
	}
	if _, err := s.Verify(first["access_token"].(string)); err == nil {
		t.Error("the older token lives")
	}
	if _, err := s.Verify(second["access_token"].(string)); err != nil {
		t.Errorf("the new token: %v", err)
	}
	for want, q := range map[string]url.Values{
		`{"errcode":40013,"errmsg":"invalid appid"}`:      query("appid", "x"),
		`{"errcode":40125,"errmsg":"invalid appsecret"}`:  query("secret", "x"),
		`{"errcode":41002,"errmsg":"appid missing"}`:      query("appid", ""),
		`{"errcode":41004,"errmsg":"appsecret missing"}`:  query("secret", ""),
		`{"errcode":40002,"errmsg":"invalid grant_type"}`: query("grant_type", "client_credentials"),
	} {
		if w := get(s, "/cgi-bin/token", q); w.Code != 200 || w.Body.String() != want {
			t.Errorf("it answers %d %s, want %s", w.Code, w.Body, want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/cgi-bin/token?%zz", nil)
	w = httptest.NewRecorder()
	if s.ServeHTTP(w, r); !strings.Contains(w.Body.String(), "errcode") {
		t.Errorf("what is no query is answered %s", w.Body)
	}
	if w := send(s, formType, query().Encode(), ""); w.Code != 404 {
		t.Errorf("POST is answered %d", w.Code)
	}
}

func TestZoom(t *testing.T) {
	const grant, account = "grant_type=account_credentials", "account_id=abc"
	for name, test := range map[string]struct {
		query, body string
		secret      string
		want        string
	}{
		"in the body":      {"", grant + "&" + account, secret, ""},
		"in the query":     {grant + "&" + account, "", secret, ""},
		"in both":          {grant, account, secret, ""},
		"no account":       {"", grant, secret, `{"error":"invalid_request","reason":"Bad Request"}`},
		"a wrong secret":   {"", grant + "&" + account, "x", `{"error":"invalid_client","reason":"Invalid client_id or client_secret"}`},
		"RFC 6749's grant": {"", "grant_type=client_credentials&" + account, secret, `{"error":"unsupported_grant_type","reason":"unsupported grant type"}`},
		"no query":         {"%zz", grant + "&" + account, secret, `"invalid_request"`},
	} {
		w := send(newVendor(Zoom, Config{Scopes: []string{"user:read:admin"}}), formType, test.query, test.body, client, test.secret)
		m := members(t, w)
		if test.want != "" {
			if w.Code != 400 || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		} else if w.Code != 200 || m["token_type"] != "bearer" || m["expires_in"] != 3599.0 || m["api_url"] == nil || m["scope"] != "user:read:admin" {
			t.Errorf("%s: %d %v", name, w.Code, m)
		}
	}
}

func TestGoogle(t *testing.T) {
	s := NewVendor(Google, Config{ClientID: "robot@project.example.com", AssertionKeys: PublicKeys(rsaKey().Public())})
	claims := func(more ...any) map[string]any {
		now := time.Now().Unix()
		return assertionClaims(append([]any{"iss", "robot@project.example.com", "sub", nil, "jti", nil, "aud", googleAudience, "exp", now + 3600, "iat", now, "scope", "https://www.googleapis.com/auth/cloud-platform"}, more...)...)
	}
	body := func(assertion string) string {
		return withoutClient(grantForm(jwtBearerGrant, "assertion", assertion))
	}
	w := send(s, formType, "", body(signed(t, jose.RS256, rsaKey(), claims(), "kid", "1")))
	m := members(t, w)
	token, _ := m["access_token"].(string)
	if w.Code != 200 || !strings.HasPrefix(token, "ya29.c.") || m["expires_in"] != 3599.0 || len(m) != 3 || subjectIn(t, s, m) != "robot@project.example.com" {
		t.Errorf("it answers %d %v", w.Code, m)
	}
	if m := members(t, send(s, formType, "", body(signed(t, jose.RS256, rsaKey(), claims("sub", "ada"))))); subjectIn(t, s, m) != "ada" {
		t.Errorf("for another it answers %v", m)
	}
	now := time.Now().Unix()
	for name, test := range map[string]struct{ body, code, text string }{
		"another key":      {body(signed(t, jose.ES256, ecKey(), claims())), "invalid_grant", "Invalid JWT Signature."},
		"another alg":      {body(signed(t, jose.PS256, rsaKey(), claims())), "invalid_grant", "Invalid JWT Signature."},
		"another account":  {body(signed(t, jose.RS256, rsaKey(), claims("iss", "x"))), "invalid_grant", "account"},
		"another audience": {body(signed(t, jose.RS256, rsaKey(), claims("aud", "http://example.com/token"))), "invalid_grant", "audience"},
		"too long":         {body(signed(t, jose.RS256, rsaKey(), claims("exp", now+3700))), "invalid_grant", "short-lived"},
		"expired":          {body(signed(t, jose.RS256, rsaKey(), claims("iat", now-60, "exp", now-1))), "invalid_grant", "short-lived"},
		"early":            {body(signed(t, jose.RS256, rsaKey(), claims("iat", now+60))), "invalid_grant", "short-lived"},
		"no iat":           {body(signed(t, jose.RS256, rsaKey(), claims("iat", nil))), "invalid_grant", "short-lived"},
		"no exp":           {body(signed(t, jose.RS256, rsaKey(), claims("exp", nil))), "invalid_grant", "short-lived"},
		"no scope":         {body(signed(t, jose.RS256, rsaKey(), claims("scope", nil))), "invalid_scope", "scope"},
		"another grant":    {"grant_type=client_credentials&client_id=robot%40project.example.com", "unsupported_grant_type", ""},
	} {
		w := send(s, formType, "", test.body)
		m := members(t, w)
		if text, _ := m["error_description"].(string); w.Code != 400 || m["error"] != test.code || !strings.Contains(text, test.text) {
			t.Errorf("%s: %d %v", name, w.Code, m)
		}
	}
}

func TestSalesforceToken(t *testing.T) {
	s := NewVendor(Salesforce, Config{ClientID: client, AssertionKeys: PublicKeys(rsaKey().Public())})
	assertion := signed(t, jose.RS256, rsaKey(), assertionClaims("sub", "ada@example.com", "aud", "https://login.salesforce.com"))
	m := members(t, send(s, formType, "", withoutClient(grantForm(jwtBearerGrant, "assertion", assertion))))
	token, _ := m["access_token"].(string)
	if !strings.HasPrefix(token, "00D") || strings.Count(token, "!") != 1 || m["expires_in"] != nil || subjectIn(t, s, m) != "ada@example.com" {
		t.Errorf("the answer is %v", m)
	}
	if w := send(s, formType, "", withoutClient(grantForm(jwtBearerGrant, "assertion", "x"))); !strings.Contains(w.Body.String(), `{"error":"invalid_grant","error_description":"invalid assertion"}`) {
		t.Errorf("it answers %s", w.Body)
	}
}

func TestTencentCIAM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewVendor(TencentCIAM, Config{ClientID: client, ClientSecret: secret})
		refresh := s.IssueRefreshToken()
		w := askRefresh(s, refresh)
		m := members(t, w)
		if w.Header().Get("Content-Type") != "application/json;charset=UTF-8" || m["expires_in"] != 299.0 || m["refresh_token"] != refresh || m["scope"] != "openid" || len(m) != 6 {
			t.Errorf("the answer is %v %v", m, w.Header())
		}
		claims := claimsOf(t, s, m["access_token"], "JWT", "RS256")
		if claims["exp"].(float64)-claims["iat"].(float64) != 300 || claims["aud"] != client || !reflect.DeepEqual(claims["scope"], []any{"openid"}) || claims["nbf"] != claims["iat"] {
			t.Errorf("the token says %v", claims)
		}
		claimsOf(t, s, m["id_token"], "JWT", "RS256")
		if left, err := s.Verify(m["access_token"].(string)); left != 300*time.Second {
			t.Errorf("%v is left: %v", left, err)
		}
		rotating := newVendor(TencentCIAM, Config{Rotate: RotateAlways})
		refresh = rotating.IssueRefreshToken()
		if m := members(t, askRefresh(rotating, refresh)); m["refresh_token"] == refresh || m["refresh_token"] == nil {
			t.Errorf("rotating, the answer is %v", m)
		}
	})
}

func TestOneAccessLogins(t *testing.T) {
	for name, test := range map[Vendor]struct {
		expires any
		scope   string
		idToken bool
	}{
		OneAccessOAuth: {7200.0, "get_user_info", false},
		OneAccessOIDC:  {"7200", "openid", true},
	} {
		for _, enabled := range []bool{false, true} {
			s := newVendor(name, Config{RefreshTokens: enabled})
			query := loginQuery("scope", test.scope, "code_challenge", "", "code_challenge_method", "", "nonce", "")
			back := login(t, s, query)
			if back.Has("iss") || !back.Has("code") || back.Get("state") != "s1" {
				t.Errorf("%s: the browser brings back %v", name, back)
			}
			body := codeForm(back.Get("code"), "code_verifier", "")
			m := members(t, ask(s, s.Path(), body))
			refresh, _ := m["refresh_token"].(string)
			if (refresh != "") != enabled {
				t.Errorf("%s: enabled %t, and the answer is %v", name, enabled, m)
			}
			if !enabled {
				refresh = s.IssueRefreshToken()
			}
			again := members(t, askRefresh(s, refresh))
			for _, m := range []map[string]any{m, again} {
				if m["expires_in"] != test.expires || m["scope"] != test.scope || m["token_type"] != "Bearer" || (m["id_token"] != nil) != test.idToken {
					t.Errorf("%s: the answer is %v", name, m)
				}
			}
			if next, _ := again["refresh_token"].(string); next == "" || next == refresh || askRefresh(s, refresh).Code != 400 || askRefresh(s, next).Code != 200 {
				t.Errorf("%s: it does not rotate", name)
			}
			if w := ask(s, s.Path(), withoutClient(refreshForm(refresh)), client, secret); w.Code != 400 {
				t.Errorf("%s: Basic is answered %d", name, w.Code)
			}
			with := login(t, s, loginQuery("scope", test.scope))
			if w := ask(s, s.Path(), codeForm(with.Get("code"), "code_verifier", "")); w.Code != 400 {
				t.Errorf("%s: a challenge is not kept to: %d", name, w.Code)
			}
		}
	}
}

// TestVendorDefaults has a Config say otherwise.
func TestVendorDefaults(t *testing.T) {
	s := newVendor(Keycloak, Config{Lifetime: time.Minute, Issue: func(int) string { return "own" }, Methods: []string{Basic}, Grants: []string{"client_credentials"}})
	if w := send(s, formType, "", form()); w.Code == 200 {
		t.Error("a method that is not accepted is taken")
	}
	m := members(t, send(s, formType, "", withoutClient(form()), client, secret))
	if m["expires_in"] != 60.0 || m["access_token"] != "own" {
		t.Errorf("the answer is %v", m)
	}
	if w := askRefresh(s, s.IssueRefreshToken()); w.Code == 200 {
		t.Error("a grant that is not accepted is taken")
	}
	s = newVendor(Keycloak, Config{})
	refresh := s.IssueRefreshToken()
	if m := members(t, askRefresh(s, refresh)); m["refresh_token"] != refresh || m["refresh_expires_in"] != 1800.0 {
		t.Errorf("the answer is %v", m)
	}
	if w := get(s, KeysPath, nil); w.Code != 200 {
		t.Errorf("its keys are answered %d", w.Code)
	}
}

// TestVendorMetadata looks at the copies that are found by their issuer.
func TestVendorMetadata(t *testing.T) {
	for name, issuer := range map[Vendor]string{Keycloak: "/realms/demo", Okta: "/oauth2/default"} {
		s := newVendor(name, Config{})
		for _, path := range []string{issuer + OpenIDMetadataPath, OAuthMetadataPath + issuer} {
			m := members(t, get(s, path, nil))
			if m["issuer"] != "http://idp.example"+issuer || m["token_endpoint"] != "http://idp.example"+s.Path() || m["jwks_uri"] != "http://idp.example"+KeysPath {
				t.Errorf("%s: %v", name, m)
			}
			for _, absent := range []string{"authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint", "introspection_endpoint_auth_methods_supported"} {
				if m[absent] != nil {
					t.Errorf("%s: it has a %s", name, absent)
				}
			}
		}
	}
}
