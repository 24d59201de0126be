package authserver

import (
	"crypto"
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func thumbprintOf(t *testing.T, key jose.JSONWebKey) string {
	t.Helper()
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

const orders = "http://api.example/orders"

// callDPoP sends a request upstream with a token and a proof for it, with pairs
// of claims set.
func callDPoP(t *testing.T, u *Upstream, token string, more ...any) *httptest.ResponseRecorder {
	t.Helper()
	return sendDPoP(u, "DPoP "+token, proof(t, append([]any{"htm", "PUT", "htu", orders, "ath", tokenHash(token)}, more...)...))
}

func sendDPoP(u *Upstream, authorization string, proofs ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("PUT", orders+"?q=1", strings.NewReader("12345"))
	r.Header.Set("Authorization", authorization)
	for _, proof := range proofs {
		r.Header.Add("DPoP", proof)
	}
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w
}

func TestUpstreamDPoP(t *testing.T) {
	s := dpopServer(Config{})
	token := members(t, askProof(s, form(), proof(t)))["access_token"].(string)
	plain, _ := issueOne(t, s)
	ended := members(t, askProof(s, form(), proof(t)))["access_token"].(string)
	s.Revoke(ended)
	u := NewUpstream(s)
	upstreamProof := func(alg jose.SignatureAlgorithm, key any, token string) string {
		return proofBy(t, alg, key, "htm", "PUT", "htu", orders, "ath", tokenHash(token))
	}
	good := upstreamProof(jose.ES256, ecKey(), token)
	const invalid, bad = `error="invalid_token"`, `error="invalid_dpop_proof"`
	for _, test := range []struct {
		name, authorization string
		proofs              []string
		status              int
		challenge           string
		count               func() int
	}{
		{"good", "DPoP " + token, []string{good}, 200, "", u.OK},
		{"in another case", "dpop " + token, []string{upstreamProof(jose.ES256, ecKey(), token)}, 200, "", u.OK},
		{"a plain token", "Bearer " + plain, nil, 200, "", u.OK},
		{"replayed", "DPoP " + token, []string{good}, 401, bad, u.BadProof},
		{"no proof", "DPoP " + token, nil, 401, bad, u.BadProof},
		{"two proofs", "DPoP " + token, []string{upstreamProof(jose.ES256, ecKey(), token), upstreamProof(jose.ES256, ecKey(), token)}, 401, bad, u.BadProof},
		{"for another token", "DPoP " + token, []string{upstreamProof(jose.ES256, ecKey(), plain)}, 401, bad, u.BadProof},
		{"for another request", "DPoP " + token, []string{proof(t, "ath", tokenHash(token))}, 401, bad, u.BadProof},
		{"another key", "DPoP " + token, []string{upstreamProof(jose.ES256, otherKey(), token)}, 401, `DPoP realm="demo", ` + invalid, u.Unbound},
		{"as a bearer token", "Bearer " + token, []string{upstreamProof(jose.ES256, ecKey(), token)}, 401, `Bearer realm="demo", ` + invalid, u.Unbound},
		{"a plain token as DPoP", "DPoP " + plain, []string{upstreamProof(jose.ES256, ecKey(), plain)}, 401, `DPoP realm="demo", ` + invalid, u.Unbound},
		{"revoked", "DPoP " + ended, []string{upstreamProof(jose.ES256, ecKey(), ended)}, 401, `DPoP realm="demo", ` + invalid, u.Revoked},
		{"unknown", "DPoP x", []string{upstreamProof(jose.ES256, ecKey(), "x")}, 401, `DPoP realm="demo", ` + invalid, u.Unknown},
		{"no token", "DPoP ", []string{upstreamProof(jose.ES256, ecKey(), "")}, 401, `Bearer realm="demo"`, u.Missing},
	} {
		before := test.count()
		w := sendDPoP(u, test.authorization, test.proofs...)
		if challenge := w.Header().Get("WWW-Authenticate"); w.Code != test.status || !strings.Contains(challenge, test.challenge) || strings.Contains(challenge+w.Body.String(), token) {
			t.Errorf("%s: %d %s", test.name, w.Code, challenge)
		}
		if test.count() != before+1 || w.Header().Get("DPoP-Nonce") != "" {
			t.Errorf("%s: counted %d times, nonce %q", test.name, test.count()-before, w.Header().Get("DPoP-Nonce"))
		}
	}
	if u.Challenged() != 0 {
		t.Errorf("%d were challenged", u.Challenged())
	}
	u = NewUpstream(s)
	u.Header, u.Scheme = "Authorization", ""
	if w := callDPoP(t, u, token); w.Code != 401 || u.Unknown() != 1 {
		t.Errorf("where no scheme is wanted, it is answered %d", w.Code)
	}
}

func TestUpstreamNonces(t *testing.T) {
	s := dpopServer(Config{DPoPNonce: true})
	nonce := askProof(s, form(), proof(t)).Header().Get("DPoP-Nonce")
	token := members(t, askProof(s, form(), proof(t, "nonce", nonce)))["access_token"].(string)
	u := NewUpstream(s)
	u.Nonces, u.NonceUses = true, 2
	w := callDPoP(t, u, token, "nonce", nonce) // that of the other place
	first := w.Header().Get("DPoP-Nonce")
	if challenge := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.HasPrefix(challenge, "DPoP ") || !strings.Contains(challenge, `error="use_dpop_nonce"`) || first == "" {
		t.Fatalf("it answers %d %s, nonce %q", w.Code, challenge, first)
	}
	for i, same := range []bool{true, false} {
		w := callDPoP(t, u, token, "nonce", first)
		if told := w.Header().Get("DPoP-Nonce"); w.Code != 200 || (told == first) != same || told == "" {
			t.Errorf("the use %d: %d, nonce %q", i, w.Code, told)
		}
	}
	w = callDPoP(t, u, token, "nonce", first)
	second := w.Header().Get("DPoP-Nonce")
	if w.Code != 401 || second == first || u.Challenged() != 2 || u.OK() != 2 || u.BadProof() != 0 {
		t.Errorf("spent, it is answered %d; %d were challenged", w.Code, u.Challenged())
	}
	u.NonceQuiet = true
	if w := callDPoP(t, u, token, "nonce", second); w.Code != 200 || w.Header().Get("DPoP-Nonce") != "" {
		t.Errorf("it answers %d, and tells %q", w.Code, w.Header().Get("DPoP-Nonce"))
	}
	u.RotateNonce()
	if w := callDPoP(t, u, token, "nonce", second); w.Code != 401 || w.Header().Get("DPoP-Nonce") == "" {
		t.Errorf("it answers %d, and tells %q", w.Code, w.Header().Get("DPoP-Nonce"))
	}
	u.NonceKeep = 1
	if w := callDPoP(t, u, token, "nonce", second); w.Code != 200 {
		t.Errorf("an older one that is kept is answered %d", w.Code)
	}
	if w := call(u, "Authorization", "Basic x"); w.Header().Get("DPoP-Nonce") != "" {
		t.Error("who asked for no DPoP is told a nonce")
	}
}
