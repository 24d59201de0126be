package authserver

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// newCertificate makes one for key, signed by parent, or by itself if that is
// nil.
func newCertificate(t *testing.T, name string, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return must(x509.ParseCertificate(der))
}

// askTLS is ask on a connection with a client's certificate, which the listener
// has verified if ca is not nil.
func askTLS(h http.Handler, path, body string, cert, ca *x509.Certificate) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "https://idp.example"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if cert != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
	}
	if ca != nil {
		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert, ca}}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestCertificates(t *testing.T) {
	ca := newCertificate(t, "ca", rsaKey(), nil, nil)
	app := newCertificate(t, "app", ecKey(), ca, rsaKey())
	other := newCertificate(t, "other", ecKey(), ca, rsaKey())
	const subject = "CN=app,O=Example"
	for name, test := range map[string]struct {
		methods    []string
		subject    string
		thumbprint string
		cert, ca   *x509.Certificate
		want       int
	}{
		"by subject":                       {[]string{TLSClientAuth}, subject, "", app, ca, 200},
		"by subject, not verified":         {[]string{TLSClientAuth}, subject, "", app, nil, 400},
		"by subject, another":              {[]string{TLSClientAuth}, subject, "", other, ca, 400},
		"by subject, none configured":      {[]string{TLSClientAuth}, "", "", app, ca, 400},
		"by subject, not accepted":         {[]string{Basic}, subject, "", app, ca, 400},
		"by thumbprint":                    {[]string{SelfSignedTLS}, "", Thumbprint(app), app, nil, 200},
		"by thumbprint, another":           {[]string{SelfSignedTLS}, "", Thumbprint(app), other, nil, 400},
		"by thumbprint, not accepted":      {[]string{TLSClientAuth}, "", Thumbprint(app), app, nil, 400},
		"by both":                          {[]string{TLSClientAuth, SelfSignedTLS}, subject, Thumbprint(app), app, ca, 200},
		"no certificate":                   {[]string{TLSClientAuth, SelfSignedTLS}, subject, Thumbprint(app), nil, nil, 400},
		"none accepted, and a certificate": {[]string{None}, "", "", other, nil, 200},
	} {
		s := New(Config{ClientID: client, Methods: test.methods, ClientSubject: test.subject, ClientThumbprint: test.thumbprint})
		w := askTLS(s, TokenPath, "grant_type=client_credentials&client_id=app+1", test.cert, test.ca)
		if w.Code != test.want || w.Code == 400 && members(t, w)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if w := askTLS(s, TokenPath, "grant_type=client_credentials&client_id=x", test.cert, test.ca); w.Code != 400 {
			t.Errorf("%s: another client_id is answered %d", name, w.Code)
		}
	}
	if w := askTLS(New(Config{Methods: []string{SelfSignedTLS}, ClientThumbprint: Thumbprint(app)}), TokenPath, "grant_type=client_credentials", app, nil); w.Code != 400 {
		t.Errorf("nobody is answered %d", w.Code)
	}
}

func TestThumbprint(t *testing.T) {
	cert := newCertificate(t, "app", ecKey(), nil, nil)
	sum := sha256.Sum256(cert.Raw)
	if got := Thumbprint(cert); len(got) != 43 || strings.ContainsAny(got, "+/=") || hex.EncodeToString(sum[:]) == got {
		t.Errorf("it is %s", got)
	}
}

// TestBoundTokens takes a token that is bound to a certificate upstream, over
// the wire.
func TestBoundTokens(t *testing.T) {
	mine, other := newCertificate(t, "app", ecKey(), nil, nil), newCertificate(t, "other", ecKey(), nil, nil)
	s := New(Config{ClientID: client, Methods: []string{SelfSignedTLS}, ClientThumbprint: Thumbprint(mine), BindCertificates: true, JWT: true})
	u := NewUpstream(s)
	mux := http.NewServeMux()
	mux.Handle(TokenPath, s)
	mux.Handle("/", u)
	lender := httptest.NewTLSServer(nil) // of a certificate
	lender.Close()
	l, err := ListenTLS("127.0.0.1:0", mux, &tls.Config{Certificates: lender.TLS.Certificates, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	clientWith := func(cert *x509.Certificate) *http.Client {
		conf := lender.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		if cert != nil {
			conf.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: ecKey()}}
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	}

	response, err := clientWith(mine).Post(l.URL()+TokenPath, "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials&client_id=app+1"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	w := httptest.NewRecorder()
	if _, err := w.Body.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	token, _ := members(t, w)["access_token"].(string)
	if cnf := claimsOf(t, s, token, "at+jwt", "ES256")["cnf"]; !reflect.DeepEqual(cnf, map[string]any{"x5t#S256": Thumbprint(mine)}) {
		t.Errorf("the token is bound to %v", cnf)
	}
	for name, test := range map[string]struct {
		cert *x509.Certificate
		want int
	}{"the same": {mine, 200}, "another": {other, 401}, "none": {nil, 401}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.URL()+"/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := clientWith(test.cert).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if challenge := response.Header.Get("WWW-Authenticate"); response.StatusCode != test.want || (test.want == 401) != strings.Contains(challenge, "invalid_token") {
			t.Errorf("%s: %d %s", name, response.StatusCode, challenge)
		}
	}
	if u.OK() != 1 || u.Unbound() != 2 {
		t.Errorf("%d and %d are counted", u.OK(), u.Unbound())
	}
	if w := call(u, "Authorization", "Bearer "+token); w.Code != 401 {
		t.Errorf("without TLS it is answered %d", w.Code)
	}
	if m := members(t, get(s, OAuthMetadataPath, nil)); m["tls_client_certificate_bound_access_tokens"] != true {
		t.Errorf("the metadata is %v", m)
	}
}

func TestTokensAreBoundOnlyIfAsked(t *testing.T) {
	cert := newCertificate(t, "app", ecKey(), nil, nil)
	for bind, want := range map[bool]int{false: 200, true: 401} {
		s := New(Config{ClientID: client, ClientSecret: secret, BindCertificates: bind})
		token := members(t, askTLS(s, TokenPath, form(), cert, nil))["access_token"].(string)
		if w := call(NewUpstream(s), "Authorization", "Bearer "+token); w.Code != want {
			t.Errorf("bound %t: %d", bind, w.Code)
		}
		plain, _ := issueOne(t, s)
		if w := call(NewUpstream(s), "Authorization", "Bearer "+plain); w.Code != 200 {
			t.Errorf("without a certificate: %d", w.Code)
		}
	}
}

// TestRefreshTokenOfAPublicClient is RFC 8705 §4: with no other proof, it is
// bound itself.
func TestRefreshTokenOfAPublicClient(t *testing.T) {
	mine, other := newCertificate(t, "app", ecKey(), nil, nil), newCertificate(t, "other", ecKey(), nil, nil)
	for _, public := range []bool{true, false} {
		s := New(Config{ClientID: client, Methods: []string{None}, RefreshTokens: true, BindCertificates: true})
		if !public {
			s = New(Config{ClientID: client, Methods: []string{PrivateKeyJWT}, ClientKeys: PublicKeys(ecKey().Public()), RefreshTokens: true, BindCertificates: true})
		}
		prove := func(body string) string {
			if public {
				return strings.ReplaceAll(withoutClient(body), "client_assertion", "x") + "&client_id=app+1"
			}
			return withoutClient(body) + "&client_assertion_type=" + strings.ReplaceAll(assertionType, ":", "%3A") +
				"&client_assertion=" + signed(t, jose.ES256, ecKey(), assertionClaims("aud", "https://idp.example"))
		}
		m := members(t, askTLS(s, TokenPath, prove(codeForm(login(t, s, loginQuery()).Get("code"))), mine, nil))
		refresh, _ := m["refresh_token"].(string)
		for cert, want := range map[*x509.Certificate]int{mine: 200, other: 400, nil: 400} {
			if !public {
				want = 200
			}
			w := askTLS(s, TokenPath, prove(refreshForm(refresh)), cert, nil)
			if w.Code != want {
				t.Errorf("public %t: %d %s", public, w.Code, w.Body)
			}
		}
	}
}
