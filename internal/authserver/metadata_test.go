package authserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func TestMetadata(t *testing.T) {
	s := refresher(Config{Scopes: []string{"read"}, Methods: []string{Basic, None}, MetadataEdit: func(m map[string]any) { m["service_documentation"] = "x" }})
	for _, path := range []string{OpenIDMetadataPath, OAuthMetadataPath} {
		m := members(t, get(s, path, nil))
		for name, want := range map[string]any{
			"issuer":                                         "http://idp.example",
			"token_endpoint":                                 "http://idp.example/token",
			"authorization_endpoint":                         "http://idp.example/authorize",
			"device_authorization_endpoint":                  "http://idp.example/device_authorization",
			"revocation_endpoint":                            "http://idp.example/revoke",
			"introspection_endpoint":                         "http://idp.example/introspect",
			"revocation_endpoint_auth_methods_supported":     []any{Basic, None},
			"introspection_endpoint_auth_methods_supported":  []any{Basic, None},
			"jwks_uri":                                       "http://idp.example/jwks",
			"grant_types_supported":                          []any{"authorization_code", "client_credentials", "refresh_token", deviceGrant},
			"token_endpoint_auth_methods_supported":          []any{Basic, None},
			"code_challenge_methods_supported":               []any{"S256"},
			"scopes_supported":                               []any{"read"},
			"id_token_signing_alg_values_supported":          []any{"ES256"},
			"service_documentation":                          "x",
			"authorization_response_iss_parameter_supported": true,
		} {
			if !reflect.DeepEqual(m[name], want) {
				t.Errorf("%s: %s is %v", path, name, m[name])
			}
		}
	}
	if s.MetadataRequests() != 2 || s.Requests() != 0 {
		t.Errorf("%d and %d requests are counted", s.MetadataRequests(), s.Requests())
	}
	if m := members(t, get(New(Config{Grants: []string{deviceGrant}}), OAuthMetadataPath, nil)); !reflect.DeepEqual(m["grant_types_supported"], []any{deviceGrant}) || m["scopes_supported"] != nil {
		t.Errorf("with one grant, it is %v", m)
	}
}

func TestMetadataPaths(t *testing.T) {
	const oauthPath, openIDPath = "/.well-known/oauth-authorization-server/a", "/a/.well-known/openid-configuration"
	for name, test := range map[string]struct {
		config Config
		issuer string
		paths  []string
	}{
		"the request's": {Config{}, "http://idp.example", []string{OpenIDMetadataPath, OAuthMetadataPath}},
		"path":          {Config{IssuerPath: "/a"}, "http://idp.example/a", []string{openIDPath, oauthPath}},
		"configured":    {Config{Issuer: "https://other.example/a"}, "https://other.example/a", []string{openIDPath, oauthPath}},
		"a slash":       {Config{Issuer: "https://other.example/"}, "https://other.example/", []string{OpenIDMetadataPath, OAuthMetadataPath}},
		"no URL":        {Config{Issuer: "%zz"}, "%zz", []string{OpenIDMetadataPath, OAuthMetadataPath}},
		"OpenID alone":  {Config{NoOAuthMetadata: true}, "http://idp.example", []string{OpenIDMetadataPath}},
		"OAuth alone":   {Config{NoOpenIDMetadata: true}, "http://idp.example", []string{OAuthMetadataPath}},
		"none":          {Config{NoOpenIDMetadata: true, NoOAuthMetadata: true}, "", nil},
	} {
		s := New(test.config)
		for _, path := range []string{OpenIDMetadataPath, OAuthMetadataPath, openIDPath, oauthPath} {
			w := get(s, path, nil)
			if there := slices.Contains(test.paths, path); there != (w.Code == 200) || !there && w.Code != 404 {
				t.Errorf("%s: %s is answered %d", name, path, w.Code)
			} else if there && members(t, w)["issuer"] != test.issuer {
				t.Errorf("%s: the issuer is %v", name, members(t, w)["issuer"])
			}
		}
		if s.MetadataRequests() != len(test.paths) {
			t.Errorf("%s: %d requests are counted", name, s.MetadataRequests())
		}
	}
	if w := get(NewOneAccess(Config{}), OAuthMetadataPath, nil); w.Code != 404 {
		t.Errorf("OneAccess answers %d", w.Code)
	}
}

func TestMetadataFaults(t *testing.T) {
	s := New(Config{})
	s.Metadata.FailNext(1, Down())
	for _, want := range []int{503, 200} {
		if w := get(s, OpenIDMetadataPath, nil); w.Code != want {
			t.Errorf("it answers %d, want %d", w.Code, want)
		}
	}
}

// TestLoginWithALibrary has a client that nobody here wrote go the whole way:
// discovery, a code with a proof key, the check of the ID token, a refresh.
func TestLoginWithALibrary(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256"} {
		s := refresher(Config{SigningAlg: alg, IssuerPath: "/realms/a", Rotate: RotateAlways})
		l, c := listen(t, s)
		ctx := oidc.ClientContext(t.Context(), c)
		provider, err := oidc.NewProvider(ctx, l.URL()+"/realms/a")
		if err != nil {
			t.Fatal(err)
		}
		conf := oauth2.Config{ClientID: client, ClientSecret: secret, Endpoint: provider.Endpoint(), RedirectURL: callback, Scopes: []string{"openid"}}
		token := exchange(t, ctx, s, conf)
		raw, _ := token.Extra("id_token").(string)
		id, err := provider.Verifier(&oidc.Config{ClientID: client}).Verify(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := id.VerifyAccessToken(token.AccessToken); err != nil || id.Nonce != "n1" || id.Subject != "user" {
			t.Errorf("%s: the ID token: %v, nonce %s, subject %s", alg, err, id.Nonce, id.Subject)
		}
		again, err := conf.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		if err != nil || again.RefreshToken == token.RefreshToken || again.AccessToken == token.AccessToken {
			t.Errorf("%s: the refresh: %v", alg, err)
		}
	}
}

// exchange logs in and trades the code.
func exchange(t *testing.T, ctx context.Context, s *Server, conf oauth2.Config) *oauth2.Token { //nolint:revive // t comes first in tests
	t.Helper()
	proof := oauth2.GenerateVerifier()
	address := conf.AuthCodeURL("s2", oauth2.S256ChallengeOption(proof), oidc.Nonce("n1"))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, address, nil))
	back, err := url.Parse(w.Header().Get("Location"))
	if err != nil || back.Query().Get("state") != "s2" {
		t.Fatalf("the browser brings back %v, %v", back, err)
	}
	token, err := conf.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(proof))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestDeviceWithALibrary has it poll while nobody, and then somebody, agrees.
func TestDeviceWithALibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, SlowDown: true})
		l := ListenMemory(s)
		defer l.Close()
		transport := &http.Transport{DialContext: l.Dial}
		defer transport.CloseIdleConnections()
		ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: transport})
		provider, err := oidc.NewProvider(ctx, l.URL())
		if err != nil {
			t.Fatal(err)
		}
		conf := oauth2.Config{ClientID: client, ClientSecret: secret, Endpoint: provider.Endpoint()}
		answer, err := conf.DeviceAuth(ctx, oauth2.SetAuthURLParam("client_secret", secret))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(12*time.Second, func() { s.ApproveDevice(answer.UserCode) })
		token, err := conf.DeviceAccessToken(ctx, answer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(token.AccessToken); err != nil || s.Requests() != 3 {
			t.Errorf("after %d polls, the token: %v", s.Requests(), err)
		}
	})
}
