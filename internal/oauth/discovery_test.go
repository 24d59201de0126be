package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// ground is where the servers of these tests have what they have, with ISSUER
// for their own.
type ground map[string]canned

// serve makes a server of it, and keeps the paths that it was asked for.
func (g ground) serve(t *testing.T) (root string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.EscapedPath())
		c, ok := g[r.URL.EscapedPath()]
		if !ok {
			c = canned{status: 404, contentType: "text/html", body: "<html>not found"}
		}
		maps.Copy(w.Header(), c.header)
		w.Header().Set("Content-Type", c.contentType)
		w.WriteHeader(c.status)
		fmt.Fprint(w, strings.ReplaceAll(c.body, "ISSUER", server.URL))
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// loopbackOnly is a rule for URLs such as callers have.
func loopbackOnly(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is not the URL of an endpoint")
	case u.Scheme != "https" && u.Hostname() != "127.0.0.1":
		return errors.New("is http, and not loopback")
	}
	return nil
}

const (
	openIDPath = "/.well-known/openid-configuration"
	oauthPath  = "/.well-known/oauth-authorization-server"
)

func ok(body string) canned {
	return canned{status: 200, contentType: "application/json", body: body}
}

func TestDiscover(t *testing.T) {
	root, asked := ground{openIDPath: ok("\ufeff" + ` {
		"issuer": "ISSUER",
		"authorization_endpoint": "ISSUER/auth",
		"token_endpoint": "ISSUER/token",
		"device_authorization_endpoint": "https://idp.example.com/device",
		"revocation_endpoint": "https://idp.example.com/revoke",
		"jwks_uri": "https://idp.example.com/jwks",
		"token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
		"token_endpoint_auth_signing_alg_values_supported": ["ES256"],
		"dpop_signing_alg_values_supported": ["EdDSA"],
		"id_token_signing_alg_values_supported": ["RS256", 1, null],
		"code_challenge_methods_supported": "S256",
		"grant_types_supported": [],
		"mtls_endpoint_aliases": {"token_endpoint": "https://mtls.example.com/token", "revocation_endpoint": "https://mtls.example.com/revoke", "device_authorization_endpoint": "https://mtls.example.com/device", "x": 1},
		"authorization_response_iss_parameter_supported": true,
		"x": {"y": [1]}
	}`)}.serve(t)
	got, err := Discover(t.Context(), http.DefaultTransport, root, loopbackOnly)
	if err != nil {
		t.Fatal(err)
	}
	want := &Metadata{
		Issuer:                      root,
		AuthorizationEndpoint:       root + "/auth",
		TokenEndpoint:               root + "/token",
		DeviceAuthorizationEndpoint: "https://idp.example.com/device",
		RevocationEndpoint:          "https://idp.example.com/revoke",
		JWKSURI:                     "https://idp.example.com/jwks",
		TokenEndpointAuthMethods:    []string{"client_secret_basic", "private_key_jwt"},
		TokenEndpointAuthAlgorithms: []string{"ES256"},
		DPoPAlgorithms:              []string{"EdDSA"},
		IDTokenAlgorithms:           []string{"RS256"},
		CodeChallengeMethods:        []string{"S256"},
		MTLS: Aliases{
			TokenEndpoint:               "https://mtls.example.com/token",
			DeviceAuthorizationEndpoint: "https://mtls.example.com/device",
			RevocationEndpoint:          "https://mtls.example.com/revoke",
		},
		IssParameterSupported: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if !slices.Equal(*asked, []string{openIDPath}) {
		t.Errorf("asked for %v", *asked)
	}
}

// TestPlaces: servers have their metadata at one place or another, and what they
// answer at the rest is anything.
func TestPlaces(t *testing.T) {
	const good = `{"issuer":"ISSUER/t/1","token_endpoint":"ISSUER/token"}`
	for name, tc := range map[string]struct {
		ground ground
		want   []string
	}{
		"OpenID Connect":   {ground{"/t/1" + openIDPath: ok(good)}, []string{"/t/1" + openIDPath}},
		"RFC 8414":         {ground{oauthPath + "/t/1": ok(good)}, []string{"/t/1" + openIDPath, oauthPath + "/t/1"}},
		"confused":         {ground{"/t/1" + oauthPath: ok(good)}, []string{"/t/1" + openIDPath, oauthPath + "/t/1", "/t/1" + oauthPath}},
		"400 before":       {ground{"/t/1" + openIDPath: {status: 400}, oauthPath + "/t/1": ok(good)}, nil},
		"403 before":       {ground{"/t/1" + openIDPath: {status: 403}, oauthPath + "/t/1": ok(good)}, nil},
		"405 before":       {ground{"/t/1" + openIDPath: {status: 405}, oauthPath + "/t/1": ok(good)}, nil},
		"410 before":       {ground{"/t/1" + openIDPath: {status: 410}, oauthPath + "/t/1": ok(good)}, nil},
		"500 before":       {ground{"/t/1" + openIDPath: {status: 500}, oauthPath + "/t/1": ok(good)}, nil},
		"a page before":    {ground{"/t/1" + openIDPath: {status: 200, contentType: "text/html", body: "<html>"}, oauthPath + "/t/1": ok(good)}, nil},
		"a redirect":       {ground{"/t/1" + openIDPath: {status: 302, header: http.Header{"Location": {"/login"}}}, oauthPath + "/t/1": ok(good)}, nil},
		"an error object":  {ground{"/t/1" + openIDPath: ok(`{"error":"not_found"}`), oauthPath + "/t/1": ok(good)}, nil},
		"206 before":       {ground{"/t/1" + openIDPath: {status: 206, body: `{"issuer":"ISSUER/t/1","token_endpoint":"ISSUER/part"}`}, oauthPath + "/t/1": ok(good)}, nil},
		"another's before": {ground{"/t/1" + openIDPath: ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/other"}`), oauthPath + "/t/1": ok(good)}, nil},
		"half before":      {ground{"/t/1" + openIDPath: ok(`{"issuer":"ISSUER/t/1"}`), oauthPath + "/t/1": ok(good)}, nil},
		"as another type":  {ground{"/t/1" + openIDPath: {status: 200, contentType: "text/html", body: good}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root, asked := tc.ground.serve(t)
			m, err := Discover(t.Context(), http.DefaultTransport, root+"/t/1", loopbackOnly)
			if err != nil || m.TokenEndpoint != root+"/token" {
				t.Fatalf("got %+v, %v", m, err)
			}
			if tc.want != nil && !slices.Equal(*asked, tc.want) {
				t.Errorf("asked for %v, want %v", *asked, tc.want)
			}
		})
	}
}

// TestIssuerForms: what is asked for, and that the issuer is compared as it was
// written.
func TestIssuerForms(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://idp.example.com":         {"https://idp.example.com" + openIDPath, "https://idp.example.com" + oauthPath},
		"https://idp.example.com/":        {"https://idp.example.com" + openIDPath, "https://idp.example.com" + oauthPath},
		"https://idp.example.com:8443/a/": {"https://idp.example.com:8443/a" + openIDPath, "https://idp.example.com:8443" + oauthPath + "/a", "https://idp.example.com:8443/a" + oauthPath},
		"https://idp.example.com/a%2Fb":   {"https://idp.example.com/a%2Fb" + openIDPath, "https://idp.example.com" + oauthPath + "/a%2Fb", "https://idp.example.com/a%2Fb" + oauthPath},
		"https://[fe80::1%25eth0]":        {"https://[fe80::1%25eth0]" + openIDPath, "https://[fe80::1%25eth0]" + oauthPath},
	} {
		var asked []string
		rt := roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Accept") != "application/json" || req.Method != http.MethodGet {
				t.Errorf("sent %s with %v", req.Method, req.Header)
			}
			if asked = append(asked, req.URL.String()); len(asked) < len(want) {
				return canned{status: 404}.RoundTrip(req)
			}
			return ok(fmt.Sprintf(`{"issuer":%q,"token_endpoint":"https://idp.example.com/token"}`, issuer)).RoundTrip(req)
		})
		m, err := Discover(t.Context(), rt, issuer, loopbackOnly)
		if err != nil || m.Issuer != issuer || !slices.Equal(asked, want) {
			t.Errorf("%s: got %+v, %v; asked for %q", issuer, m, err, asked)
		}
	}
}

// TestIssuersRefused: nothing is asked, and what may hold a secret is not shown.
func TestIssuersRefused(t *testing.T) {
	for issuer, says := range map[string]string{
		"":                               "is not a URL",
		"idp.example.com":                "is not a URL",
		"https:idp.example.com":          "is not a URL",
		"https://idp.example.com/%zz":    "is not a URL",
		"https://app:s3cret@idp.example": "holds a user",
		"https://idp.example.com?s3cret": "a query",
		"https://idp.example.com/#":      "a fragment",
		"http://idp.example.com":         "is http, and not loopback",
	} {
		var rec recorder
		_, err := Discover(t.Context(), &rec, issuer, loopbackOnly)
		f, ok := errors.AsType[*Failure](err)
		if !ok || f.Kind != Refused || !strings.Contains(f.Error(), "issuer: "+says) && !strings.Contains(f.Error(), says) || strings.Contains(f.Error(), "s3cret") || rec.req != nil {
			t.Errorf("%q: got %v, sent %v", issuer, err, rec.req)
		}
	}
}

func TestDiscoverFails(t *testing.T) {
	here := func(c canned) ground { return ground{openIDPath: c} }
	for name, tc := range map[string]struct {
		ground ground
		path   string // of the issuer
		kind   Kind
		status int
		retry  time.Duration
		asked  int
		says   []string
	}{
		"nothing there": {
			path: "/t/1", kind: Refused, asked: 3,
			says: []string{"no metadata found: ISSUER/t/1" + openIDPath + " gave HTTP 404; ISSUER" + oauthPath + "/t/1 gave HTTP 404; ISSUER/t/1" + oauthPath + " gave HTTP 404;", "write token_url in place of issuer"},
		},
		"401":                 {ground: here(canned{status: 401}), kind: Refused, asked: 2, says: []string{"gave HTTP 401"}},
		"a page":              {ground: here(canned{status: 200, contentType: "text/html", body: "<html>s3cret"}), kind: Malformed, asked: 2, says: []string{"gave HTTP 200, the answer is a page", "token_url"}},
		"not JSON":            {ground: here(ok("OK s3cret")), kind: Malformed, asked: 2, says: []string{"not a JSON object"}},
		"a list":              {ground: here(ok(`["s3cret"]`)), kind: Malformed, asked: 2, says: []string{"not a JSON object"}},
		"cut":                 {ground: here(ok(`{"issuer":"ISSUER","token_`)), kind: Malformed, asked: 2, says: []string{"cut short"}},
		"two":                 {ground: here(ok(`{"issuer":"ISSUER"}{}`)), kind: Malformed, asked: 2, says: []string{"does not parse"}},
		"empty":               {ground: here(ok("")), kind: Malformed, asked: 2, says: []string{"is empty"}},
		"204":                 {ground: here(canned{status: 204}), kind: Malformed, asked: 2, says: []string{"HTTP 204"}},
		"206":                 {ground: here(canned{status: 206, body: "{}"}), kind: Malformed, asked: 2, says: []string{"HTTP 206"}},
		"not metadata":        {ground: here(ok(`{"error":"s3cret"}`)), kind: Malformed, asked: 2, says: []string{"without issuer and token_endpoint"}},
		"1 MiB":               {ground: here(ok(`{"issuer":"ISSUER","x":"` + strings.Repeat("x", 1<<20) + `"}`)), kind: Malformed, asked: 2, says: []string{"1 MiB"}},
		"redirect":            {ground: here(canned{status: 302, header: http.Header{"Location": {"https://u:s3cret@login.example.com/s3cret?s3cret"}}}), kind: Malformed, asked: 2, says: []string{"HTTP 302, a redirect to the host login.example.com, which is not followed"}},
		"redirect to a path":  {ground: here(canned{status: 307, header: http.Header{"Location": {"/s3cret"}}}), kind: Malformed, asked: 2, says: []string{"a redirect to the host HOST,"}},
		"redirect nowhere":    {ground: here(canned{status: 301}), kind: Malformed, asked: 2, says: []string{"a redirect, which"}},
		"redirect to no host": {ground: here(canned{status: 301, header: http.Header{"Location": {"mailto:s3cret"}}}), kind: Malformed, asked: 2, says: []string{"to the host (none)"}},
		"500":                 {ground: here(canned{status: 500, body: "s3cret"}), kind: Unreachable, status: 500, asked: 2, says: []string{"HTTP 500, metadata at ISSUER" + openIDPath}},
		"408":                 {ground: here(canned{status: 408}), kind: Unreachable, status: 408, asked: 2},
		"425":                 {ground: here(canned{status: 425}), kind: Unreachable, status: 425, asked: 2},
		"503, when to return": {ground: here(canned{status: 503, header: http.Header{"Retry-After": {"7"}}}), kind: Unreachable, status: 503, retry: 7 * time.Second, asked: 1},
		"429":                 {ground: here(canned{status: 429}), kind: Unreachable, status: 429, asked: 1},
		"429, when to return": {ground: here(canned{status: 429, header: http.Header{"Retry-After": {"Sat, 21 Nov 2026 10:02:00 GMT"}, "Date": {answered}}}), kind: Unreachable, status: 429, retry: 2 * time.Minute, asked: 1},
		"503 at the second":   {ground: ground{oauthPath: {status: 503}}, kind: Unreachable, status: 503, asked: 2, says: []string{"metadata at ISSUER" + oauthPath}},
		"503, then another's": {ground: ground{openIDPath: {status: 503}, oauthPath: ok(`{"issuer":"https://idp.example.org"}`)}, kind: Unreachable, status: 503, asked: 2},
		"another's, then 503": {ground: ground{openIDPath: ok(`{"issuer":"https://idp.example.org"}`), oauthPath: {status: 503}}, kind: Refused, status: 200, asked: 2, says: []string{"idp.example.org"}},
		"half of its fields":  {ground: here(ok(`{"issuer":"ISSUER","jwks_uri":"ISSUER/jwks"}`)), kind: Refused, status: 200, asked: 2, says: []string{"it has no token_endpoint: write token_url"}},
		"the other half":      {ground: here(ok(`{"token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2, says: []string{"it has no issuer: "}},
		"both are empty":      {ground: here(ok(`{"issuer":"","token_endpoint":""}`)), kind: Refused, status: 200, asked: 2, says: []string{"it has no issuer and no token_endpoint: "}},
		"another issuer": {
			ground: here(ok(`{"issuer":"https://idp.example.org","token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2,
			says: []string{"it is for the issuer https://idp.example.org, and configured is ISSUER: write issuer https://idp.example.org, if"},
		},
		"a slash more":       {ground: here(ok(`{"issuer":"ISSUER/","token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2, says: []string{"which differs in the trailing slash alone: write issuer ISSUER/"}},
		"no slash":           {path: "/", ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2, says: []string{"configured is ISSUER/, which differs in the trailing slash alone: write issuer ISSUER"}},
		"many tenants":       {ground: here(ok(`{"issuer":"https://idp.example.org/{tenantid}/v2.0","token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2, says: []string{"write the issuer of the one tenant"}},
		"issuer a number":    {ground: here(ok(`{"issuer":1,"token_endpoint":"ISSUER/token"}`)), kind: Refused, status: 200, asked: 2, says: []string{"issuer is not a string"}},
		"terminal":           {ground: here(ok(`{"issuer":"\u001b[31mhttps://idp.example.org\n"}`)), kind: Refused, status: 200, asked: 2, says: []string{"for the issuer [31mhttps://idp.example.org,"}},
		"endpoint a list":    {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":["ISSUER/token"]}`)), kind: Refused, status: 200, asked: 2, says: []string{"token_endpoint is not a string"}},
		"endpoint a number":  {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token","revocation_endpoint":1}`)), kind: Refused, status: 200, asked: 2, says: []string{"revocation_endpoint is not a string"}},
		"aliases a string":   {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token","mtls_endpoint_aliases":"s3cret"}`)), kind: Refused, status: 200, asked: 2, says: []string{"mtls_endpoint_aliases is not an object"}},
		"endpoint in clear":  {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"http://idp.example.com/s3cret"}`)), kind: Refused, status: 200, asked: 2, says: []string{"token_endpoint, at the host idp.example.com: is http"}},
		"jwks in clear":      {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token","jwks_uri":"http://idp.example.com/s3cret"}`)), kind: Refused, status: 200, asked: 2, says: []string{"jwks_uri, at the host idp.example.com: is http"}},
		"alias in clear":     {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"ISSUER/token","mtls_endpoint_aliases":{"token_endpoint":"http://idp.example.com/s3cret"}}`)), kind: Refused, status: 200, asked: 2, says: []string{"mtls_endpoint_aliases.token_endpoint, at the host idp.example.com: is http"}},
		"endpoint a path":    {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"/s3cret"}`)), kind: Refused, status: 200, asked: 2, says: []string{"token_endpoint, at the host (none): is not the URL"}},
		"endpoint no scheme": {ground: here(ok(`{"issuer":"ISSUER","token_endpoint":"%zz s3cret"}`)), kind: Refused, status: 200, asked: 2, says: []string{"token_endpoint, at the host (none)"}},
	} {
		t.Run(name, func(t *testing.T) {
			root, asked := tc.ground.serve(t)
			m, err := Discover(t.Context(), http.DefaultTransport, root+tc.path, loopbackOnly)
			f, ok := errors.AsType[*Failure](err)
			if !ok || m != nil {
				t.Fatalf("got %+v, %v; want a failure", m, err)
			}
			if f.Kind != tc.kind || f.Status != tc.status || f.RetryAfter != tc.retry || len(*asked) != tc.asked {
				t.Errorf("got %v, status %d, retry after %s, asked for %q", f.Kind, f.Status, f.RetryAfter, *asked)
			}
			for _, says := range tc.says {
				says = strings.NewReplacer("ISSUER", root, "HOST", strings.TrimPrefix(root, "http://")).Replace(says)
				if !strings.Contains(f.Error(), says) {
					t.Errorf("it says %q, which does not tell %q", f, says)
				}
			}
			if strings.Contains(f.Error(), "s3cret") || strings.ContainsAny(f.Error(), "\x1b\n") {
				t.Errorf("too many of the server's words: %q", f)
			}
		})
	}
}

// TestDiscoverNetwork: the network is the same for every place.
func TestDiscoverNetwork(t *testing.T) {
	timeout, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-timeout.Done()
	cut := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"issuer":"`), errReader{}))}
	for name, tc := range map[string]struct {
		ctx  context.Context
		rt   roundTripper
		says string
	}{
		"refused": {t.Context(), func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, openIDPath + ": connection refused"},
		"timeout": {timeout, func(req *http.Request) (*http.Response, error) { return nil, req.Context().Err() }, "within the timeout"},
		"cut":     {t.Context(), func(*http.Request) (*http.Response, error) { return cut, nil }, "reading the answer: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			rt := roundTripper(func(req *http.Request) (*http.Response, error) { asked++; return tc.rt(req) })
			_, err := Discover(tc.ctx, rt, "https://idp.example.com/a", loopbackOnly)
			f, ok := errors.AsType[*Failure](err)
			if !ok || f.Kind != Unreachable || f.Status != 0 || f.Lost || !strings.Contains(f.Error(), tc.says) || asked != 1 {
				t.Errorf("got %#v (%v), asked %d times", f, err, asked)
			}
		})
	}
}

func TestSupportsMethod(t *testing.T) {
	m := &Metadata{TokenEndpointAuthMethods: []string{"client_secret_basic", "private_key_jwt\x1b"}}
	for _, names := range [][]string{{"client_secret_basic"}, {"self_signed_tls_client_auth", "client_secret_basic"}} {
		if err := m.SupportsMethod(names...); err != nil {
			t.Errorf("%v: %v", names, err)
		}
	}
	err := m.SupportsMethod("tls_client_auth", "self_signed_tls_client_auth")
	if err == nil || !strings.Contains(err.Error(), "tls_client_auth or self_signed_tls_client_auth is not among") ||
		!strings.Contains(err.Error(), ": client_secret_basic, private_key_jwt;") || !strings.Contains(err.Error(), "token_url in place of issuer") {
		t.Errorf("got %v", err)
	}
	// RFC 8414 §2 has client_secret_basic for a list that is missing; servers do not
	if err := new(Metadata).SupportsMethod("private_key_jwt"); err != nil {
		t.Errorf("not said: %v", err)
	}
}

func FuzzMetadata(f *testing.F) {
	const issuer = "https://idp.example.com/t"
	for _, seed := range []string{
		`{"issuer":"` + issuer + `","token_endpoint":"https://idp.example.com/token","grant_types_supported":["a"]}`,
		`{"issuer":"` + issuer + `/","token_endpoint":1}`, `{"token_endpoint":"http://x"}`, `{"mtls_endpoint_aliases":{"token_endpoint":"//"},"issuer":"` + issuer + `"}`,
		`{"mtls_endpoint_aliases.token_endpoint":"http://x","issuer":"` + issuer + `","token_endpoint":"https://x"}`,
		"\ufeff{}", "<html>", "[]", "", `{"issuer":"\u001b{"}`,
	} {
		f.Add(200, seed, "", "")
		f.Add(302, seed, "https://login.example.com/\x1b", "12")
		f.Add(503, seed, "", "Sat, 21 Nov 2026 10:02:00 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, body, location, retryAfter string) {
		if status < 100 || status > 999 {
			return
		}
		answer := canned{status: status, body: body, header: http.Header{"Location": {location}, "Retry-After": {retryAfter}, "Date": {answered}}}
		m, err := Discover(context.Background(), answer, issuer, loopbackOnly)
		if err != nil {
			failure, ok := errors.AsType[*Failure](err)
			if !ok || failure.Kind == 0 || failure.RetryAfter < 0 || m != nil {
				t.Fatalf("not one of the three failures: %#v", err)
			}
			if strings.ContainsFunc(failure.Error(), func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("control characters in %q", failure)
			}
			return
		}
		if status < 200 || status > 299 || m.Issuer != issuer || m.TokenEndpoint == "" {
			t.Fatalf("got %+v of status %d", m, status)
		}
		for _, u := range []string{m.TokenEndpoint, m.AuthorizationEndpoint, m.DeviceAuthorizationEndpoint, m.RevocationEndpoint, m.JWKSURI, m.MTLS.TokenEndpoint, m.MTLS.DeviceAuthorizationEndpoint, m.MTLS.RevocationEndpoint} {
			if u != "" && loopbackOnly(u) != nil {
				t.Fatalf("%q passed", u)
			}
		}
	})
}
