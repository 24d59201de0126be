package authserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// FuzzRequest sends anything to any endpoint of a server that knows all there
// is, and to every copy. An answer that says it is JSON has to be.
func FuzzRequest(f *testing.F) {
	key := PublicKeys(ecKey().Public())
	config := Config{
		ClientID: client, ClientSecret: secret, Methods: []string{Basic, Post, SecretJWT, PrivateKeyJWT, None}, ClientKeys: key,
		AssertionKeys: key, FederatedKeys: key, SubjectTokens: func(token string) (string, bool) { return token, true },
		RefreshTokens: true, Rotate: RotateAlways, ReuseDetection: true, DPoP: DPoPAllowed, DPoPNonce: true, JWT: true,
	}
	servers := []*Server{New(config)}
	for _, name := range Vendors() {
		servers = append(servers, newVendor(name, Config{AssertionKeys: key}))
	}
	upstream := NewUpstream(servers[0])
	upstream.Nonces = true
	f.Add(byte(0), "POST", "/token", formType, "", form(), "")
	f.Add(byte(0), "POST", "/token", formType, "Basic eDp5", "grant_type=refresh_token&refresh_token=x", "a.b.c")
	f.Add(byte(0), "POST", "/token", formType, "", "client_assertion=eyJhbGciOiJFUzI1NiJ9.e30.AA&client_assertion_type="+assertionType, "")
	f.Add(byte(0), "POST", "/token", formType, "", grantForm(jwtBearerGrant, "assertion", "eyJhbGciOiJFUzI1NiJ9.e30.AA"), "")
	f.Add(byte(0), "POST", "/introspect", formType, "", tokenForm("x"), "")
	f.Add(byte(0), "GET", "/authorize?"+loginQuery().Encode(), "", "", "", "")
	f.Add(byte(0), "POST", "/device", formType, "", "user_code=x", "")
	f.Add(byte(1), "POST", "/oauth/token", "application/json", "", `{"grant_type":"client_credentials"}`, "")
	f.Add(byte(200), "PUT", "/orders", "", "DPoP x", "", "eyJhbGciOiJFUzI1NiIsInR5cCI6ImRwb3Arand0In0.e30.AA")
	f.Fuzz(func(t *testing.T, where byte, method, target, contentType, authorization, body, proof string) {
		if !slices.Contains([]string{"GET", "POST", "PUT"}, method) || !strings.HasPrefix(target, "/") {
			return
		}
		r, err := http.NewRequest(method, "http://example.com"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		r.Header = http.Header{"Content-Type": {contentType}, "Authorization": {authorization}, "Dpop": {proof}}
		var h http.Handler = upstream
		if int(where) < len(servers) {
			h = servers[where]
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Errorf("it answers %d %q", w.Code, w.Body)
		}
	})
}

// FuzzTarget compares the htu of a proof with an address.
func FuzzTarget(f *testing.F) {
	f.Add("http://example.com/token", "http://example.com/token")
	f.Add("HTTPS://Example.com:443", "https://example.com/")
	f.Add("http://[::1]:80/%2f?a#b", "http://[::1]/%2F")
	f.Fuzz(func(t *testing.T, a, b string) {
		if same := sameTarget(a, b); same && !strings.ContainsAny(b, "?#") && strings.Contains(b, "://") && !sameTarget(b, a) {
			t.Errorf("%q is %q, and not the other way round", a, b)
		}
	})
}

// FuzzJWT reads anything as a JWT.
func FuzzJWT(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjF9.AA")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := readJWT(text, asymmetric, []jose.JSONWebKey{{Key: otherKey().Public()}}); err == nil {
			t.Errorf("%q is taken, and says %v", text, c.all)
		}
	})
}
