package authserver

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const tokenURL = "http://example.com/token"

// proof makes a DPoP proof with ecKey for a token request, with pairs of claims
// set; nil takes one away.
func proof(t *testing.T, more ...any) string {
	t.Helper()
	return proofBy(t, jose.ES256, ecKey(), more...)
}

func proofBy(t *testing.T, alg jose.SignatureAlgorithm, key any, more ...any) string {
	t.Helper()
	public := jose.JSONWebKey{Key: key}
	public = public.Public()
	return signed(t, alg, key, proofClaims(more...), "typ", "dpop+jwt", "jwk", public)
}

func proofClaims(more ...any) map[string]any {
	claims := map[string]any{"jti": random(), "htm": "POST", "htu": tokenURL, "iat": time.Now().Unix()}
	for i := 0; i < len(more); i += 2 {
		if claims[more[i].(string)] = more[i+1]; more[i+1] == nil {
			delete(claims, more[i].(string))
		}
	}
	return claims
}

// askProof is ask with DPoP headers.
func askProof(s *Server, body string, proofs ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, tokenURL, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, proof := range proofs {
		r.Header.Add("DPoP", proof)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func dpopServer(config Config) *Server {
	config.ClientID, config.ClientSecret = client, secret
	if config.DPoP == "" {
		config.DPoP = DPoPAllowed
	}
	return New(config)
}

func TestProofs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public := jose.JSONWebKey{Key: ecKey().Public()}
		now := time.Now().Unix()
		plain := signed(t, jose.ES256, ecKey(), proofClaims(), "jwk", public)
		parts := strings.Split(proof(t), ".")
		for name, test := range map[string]struct {
			proofs []string
			want   string // in the description; "" for a token
		}{
			"good":                        {[]string{proof(t)}, ""},
			"RSA":                         {[]string{proofBy(t, jose.PS256, rsaKey())}, ""},
			"Ed25519":                     {[]string{proofBy(t, jose.EdDSA, ed25519Key())}, ""},
			"the address in another case": {[]string{proof(t, "htu", "HTTP://Example.com:80/token")}, ""},
			"a little late":               {[]string{proof(t, "iat", now-60)}, ""},
			"a little early":              {[]string{proof(t, "iat", now+60)}, ""},
			"too late":                    {[]string{proof(t, "iat", now-61)}, "iat"},
			"too early":                   {[]string{proof(t, "iat", now+61)}, "iat"},
			"no iat":                      {[]string{proof(t, "iat", nil)}, "iat"},
			"no jti":                      {[]string{proof(t, "jti", nil)}, "jti"},
			"another method":              {[]string{proof(t, "htm", "GET")}, "htm"},
			"no method":                   {[]string{proof(t, "htm", nil)}, "htm"},
			"another address":             {[]string{proof(t, "htu", tokenURL+"2")}, "htu"},
			"another host":                {[]string{proof(t, "htu", "http://other.example/token")}, "htu"},
			"another port":                {[]string{proof(t, "htu", "http://example.com:8080/token")}, "htu"},
			"another scheme":              {[]string{proof(t, "htu", "https://example.com/token")}, "htu"},
			"a query":                     {[]string{proof(t, "htu", tokenURL+"?a=b")}, "htu"},
			"a fragment":                  {[]string{proof(t, "htu", tokenURL+"#a")}, "htu"},
			"no address":                  {[]string{proof(t, "htu", 7)}, "htu"},
			"two":                         {[]string{proof(t), proof(t)}, "more than one"},
			"no JWT":                      {[]string{"x"}, "no JWT"},
			"another typ":                 {[]string{signed(t, jose.ES256, ecKey(), proofClaims(), "typ", "JWT", "jwk", public)}, "typ"},
			"no typ":                      {[]string{plain}, "typ"},
			"no jwk":                      {[]string{signed(t, jose.ES256, ecKey(), proofClaims(), "typ", "dpop+jwt")}, "jwk"},
			"another jwk":                 {[]string{signed(t, jose.ES256, otherKey(), proofClaims(), "typ", "dpop+jwt", "jwk", public)}, "signature"},
			"a private jwk":               {[]string{signed(t, jose.ES256, ecKey(), proofClaims(), "typ", "dpop+jwt", "jwk", jose.JSONWebKey{Key: ecKey()})}, "JWT"},
			"a secret":                    {[]string{signed(t, jose.HS256, []byte(longSecret), proofClaims(), "typ", "dpop+jwt", "jwk", public)}, "JWT"},
			"another signature":           {[]string{parts[0] + "." + parts[1] + "." + strings.Split(proof(t), ".")[2]}, "signature"},
		} {
			s := dpopServer(Config{})
			m := members(t, askProof(s, form(), test.proofs...))
			text, _ := m["error_description"].(string)
			if test.want == "" && m["token_type"] != "DPoP" || test.want != "" && (m["error"] != "invalid_dpop_proof" || !strings.Contains(text, test.want)) {
				t.Errorf("%s: %v", name, m)
			}
		}
	})
}

func TestSameTarget(t *testing.T) {
	for _, test := range []struct {
		htu, target string
		want        bool
	}{
		{"https://example.com/a", "https://example.com/a", true},
		{"https://example.com:443/a", "https://example.com/a", true},
		{"https://example.com:80/a", "https://example.com/a", false},
		{"http://example.com:80", "http://example.com/", true},
		{"http://example.com:443/a", "http://example.com/a", false},
		{"http://example.com/A", "http://example.com/a", false},
		{"http://example.com/a%20b", "http://example.com/a%20b", true},
		{"http://:80/a", "http:///a", false},
		{"/a", "http://example.com/a", false},
		{"http://example.com/%zz", "http://example.com/%zz", false},
	} {
		if sameTarget(test.htu, test.target) != test.want {
			t.Errorf("%s, %s: not %t", test.htu, test.target, test.want)
		}
	}
}

func TestProofReplay(t *testing.T) {
	s := dpopServer(Config{})
	one := proof(t)
	for i, want := range []int{200, 400} {
		if w := askProof(s, form(), one); w.Code != want || w.Header().Get("DPoP-Nonce") != "" {
			t.Errorf("the time %d: %d %s", i, w.Code, w.Body)
		}
	}
}

func TestDPoPModes(t *testing.T) {
	off, allowed, required := New(Config{ClientID: client, ClientSecret: secret, DPoPNonce: true}), dpopServer(Config{}), dpopServer(Config{DPoP: DPoPRequired})
	for name, test := range map[string]struct {
		server *Server
		proofs []string
		want   any
	}{
		"off":            {off, []string{proof(t)}, "Bearer"},
		"off, nonsense":  {off, []string{"x"}, "Bearer"},
		"allowed, none":  {allowed, nil, "Bearer"},
		"allowed":        {allowed, []string{proof(t)}, "DPoP"},
		"required":       {required, []string{proof(t)}, "DPoP"},
		"required, none": {required, nil, nil},
	} {
		w := askProof(test.server, form(), test.proofs...)
		if m := members(t, w); m["token_type"] != test.want || test.want == nil && m["error"] != "invalid_dpop_proof" || w.Header().Get("DPoP-Nonce") != "" {
			t.Errorf("%s: %d %v", name, w.Code, m)
		}
	}
	if w := askProof(required, withoutClient(form()), proof(t)); members(t, w)["error"] != "invalid_client" {
		t.Errorf("a proof stands for a client: %s", w.Body)
	}
	for s, want := range map[*Server]bool{off: false, allowed: true, required: true} {
		if _, got := members(t, get(s, OAuthMetadataPath, nil))["dpop_signing_alg_values_supported"]; got != want {
			t.Errorf("in the metadata: %t", got)
		}
	}
}

func TestNonce(t *testing.T) {
	s := dpopServer(Config{DPoPNonce: true, RefreshTokens: true, Rotate: RotateAlways})
	token := s.IssueRefreshToken()
	w := askProof(s, refreshForm(token), proof(t))
	nonce := w.Header().Get("DPoP-Nonce")
	if w.Code != 400 || members(t, w)["error"] != "use_dpop_nonce" || nonce == "" || s.Rotations() != 0 {
		t.Fatalf("it answers %d %s, nonce %q, after %d rotations", w.Code, w.Body, nonce, s.Rotations())
	}
	for range 3 {
		if w := askProof(s, form(), proof(t, "nonce", nonce)); w.Code != 200 || w.Header().Get("DPoP-Nonce") != nonce {
			t.Errorf("it answers %d %s, nonce %q", w.Code, w.Body, w.Header().Get("DPoP-Nonce"))
		}
	}
	s.RotateNonce()
	if w := askProof(s, form(), proof(t, "nonce", nonce)); w.Code != 400 || w.Header().Get("DPoP-Nonce") == nonce {
		t.Errorf("an old nonce is answered %d", w.Code)
	}
	if w := askProof(s, form(), proof(t, "nonce", "")); w.Code != 400 {
		t.Errorf("an empty one is answered %d", w.Code)
	}
	if s.NonceChallenges() != 3 || s.Requests() != 6 {
		t.Errorf("%d of %d requests were challenged", s.NonceChallenges(), s.Requests())
	}
}

func TestNonceUses(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		want   int // challenges, for ten requests of one who listens
		stale  int // challenges, for ten requests of one who keeps the first
	}{
		"two uses":              {Config{DPoPNonceUses: 2}, 1, 8},
		"two uses, told late":   {Config{DPoPNonceUses: 2, DPoPNonceQuiet: true}, 5, 8},
		"two uses, one kept":    {Config{DPoPNonceUses: 2, DPoPNonceKeep: 1}, 1, 6},
		"for ever":              {Config{}, 1, 1},
		"for ever, told late":   {Config{DPoPNonceQuiet: true}, 1, 1},
		"one use, nine kept":    {Config{DPoPNonceUses: 1, DPoPNonceKeep: 9}, 1, 1},
		"one use, told at once": {Config{DPoPNonceUses: 1}, 1, 9},
	} {
		for listens, want := range map[bool]int{true: test.want, false: test.stale} {
			test.config.DPoPNonce = true
			s := dpopServer(test.config)
			nonce := ""
			for range 10 {
				w := askProof(s, form(), proof(t, "nonce", nonce))
				if told := w.Header().Get("DPoP-Nonce"); told != "" && (listens || nonce == "") {
					nonce = told
				}
				if w.Code == 400 && listens { // once more
					w = askProof(s, form(), proof(t, "nonce", nonce))
					if w.Code != 200 {
						t.Errorf("%s: %d %s", name, w.Code, w.Body)
					}
					if told := w.Header().Get("DPoP-Nonce"); told != "" {
						nonce = told
					}
				}
			}
			if s.NonceChallenges() != want {
				t.Errorf("%s: of one who listens, %t: %d challenges, want %d", name, listens, s.NonceChallenges(), want)
			}
		}
	}
	n := newNonces()
	for range 3 * maxNonces {
		n.rotate()
	}
	if len(n.known) != maxNonces {
		t.Errorf("%d nonces are remembered", len(n.known))
	}
}

func TestKeyOfARefreshToken(t *testing.T) {
	for _, public := range []bool{true, false} {
		s := New(Config{ClientID: client, Methods: []string{None}, RefreshTokens: true, DPoP: DPoPAllowed})
		prove := func(body string) string { return withoutClient(body) + "&client_id=app+1" }
		if !public {
			s = dpopServer(Config{RefreshTokens: true})
			prove = func(body string) string { return body }
		}
		m := members(t, askProof(s, prove(codeForm(login(t, s, loginQuery()).Get("code"))), proof(t)))
		refresh, _ := m["refresh_token"].(string)
		for name, test := range map[string]struct {
			proofs []string
			public int
			bound  any
		}{
			"the key":     {[]string{proof(t)}, 200, "DPoP"},
			"another key": {[]string{proofBy(t, jose.ES256, otherKey())}, 400, "DPoP"},
			"none":        {nil, 400, "Bearer"},
		} {
			want := 200
			if public {
				want = test.public
			}
			w := askProof(s, prove(refreshForm(refresh)), test.proofs...)
			if m := members(t, w); w.Code != want || want == 200 && m["token_type"] != test.bound {
				t.Errorf("%s, public %t: %d %v", name, public, w.Code, m)
			}
		}
	}
}

func TestDowngrade(t *testing.T) {
	s := dpopServer(Config{JWT: true})
	s.FailNext(1, Downgrade())
	m := members(t, askProof(s, form(), proof(t)))
	key := jose.JSONWebKey{Key: ecKey().Public()}
	cnf := map[string]any{"jkt": thumbprintOf(t, key)}
	if got := claimsOf(t, s, m["access_token"], "at+jwt", "ES256")["cnf"]; m["token_type"] != "Bearer" || !reflect.DeepEqual(got, cnf) {
		t.Errorf("the answer is %v, bound to %v", m, got)
	}
}
