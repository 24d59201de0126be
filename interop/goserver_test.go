package interop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// The kinds of server that servers/ can be.
const (
	fosite   = "fosite"
	goOAuth2 = "go-oauth2"
	zitadel  = "zitadel"
)

var serverKinds = []string{fosite, goOAuth2, zitadel}

// serverNames are the kinds with the versions of go.mod.
var serverNames = map[string]string{
	fosite:   "fosite 0.49.0",
	goOAuth2: "go-oauth2 4.5.4",
	zitadel:  "zitadel/oidc 3.45.0",
}

// serverBinary is servers/, built once, beside Caddy's.
var serverBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "servers")
	if out, err := exec.Command("go", "build", "-o", path, "./servers").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./servers: %w\n%s", err, out)
	}
	return path, nil
})

// server is an authorization server of servers/ on loopback. It outlives what
// the tests do to Caddy: what it granted stays granted.
type server struct {
	*process
	kind   string
	ttl    time.Duration // of its access tokens
	delay  time.Duration // of each token request
	issuer string
	port   int
}

// startServer starts one whose access tokens live for ttl, and whose token
// endpoint takes longer by delay.
func startServer(t *testing.T, kind string, ttl, delay time.Duration) *server {
	t.Helper()
	path, err := serverBinary()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := clientKeys()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{kind: kind, ttl: ttl, delay: delay}
	s.process = start(t, serverNames[kind], exec.Command(path,
		"--server="+kind,
		"--ttl="+strconv.Itoa(int(ttl/time.Second)),
		"--delay="+strconv.Itoa(int(delay/time.Millisecond)),
		"--client-key="+keys.public))
	t.Cleanup(func() {
		s.stop(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s printed:\n%s", s.name, &s.output)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	ready, err := s.await(ctx, func(line string) bool { return strings.HasPrefix(line, `{"issuer"`) })
	if err != nil {
		t.Fatalf("%v\n%s", err, &s.output)
	}
	var at struct {
		Issuer string
		Port   int
	}
	if err := json.Unmarshal([]byte(ready), &at); err != nil {
		t.Fatalf("%s: its ready line %q: %v", s.name, ready, err)
	}
	s.issuer, s.port = at.Issuer, at.Port
	return s
}

func (s *server) tokenURL() string { return s.issuer + "/token" }

// serverStats is what the server counted at its token endpoint since it started.
type serverStats struct {
	providerStats
	Grants        map[string]int // granted, by grant_type
	Aborted       int            // cut off because the library panicked
	Rotations     int            // refresh tokens exchanged for another
	Chains        int            // begun by initial
	ChainsRevoked int            `json:"chains_revoked"` // because a spent refresh token came again; fosite alone
	Lost          []cut          // answers that lose took away
	Gone          []cut          // answers for clients that had gone
}

// cut is a token request that was processed and whose answer nobody got.
type cut struct {
	GrantType string `json:"grant_type"`
	ClientID  string `json:"client_id"`
	Spent     string // SHA-256 of the refresh token that was sent, in hex
	Next      string // likewise of the one that was issued
	Error     string
}

func (s *server) stats(t *testing.T) serverStats {
	t.Helper()
	var stats serverStats
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.issuer+"/stats", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := askProvider(req, &stats); err != nil {
		t.Fatalf("%s's counts: %v", s.name, err)
	}
	return stats
}

// introspect asks as the upstream does.
func (s *server) introspect(ctx context.Context, token string) (introspection, error) {
	var in introspection
	req, err := newForm(ctx, s.issuer+"/introspect", url.Values{"token": {token}})
	if err != nil {
		return in, err
	}
	req.SetBasicAuth(upstreamID, upstreamSecret)
	err = askProvider(req, &in)
	return in, err
}

// tokens is an answer of the token endpoint.
type tokens struct {
	AccessToken     string `json:"access_token"`
	RefreshToken    string `json:"refresh_token"`
	IDToken         string `json:"id_token"`
	TokenType       string `json:"token_type"`
	IssuedTokenType string `json:"issued_token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string
	Error           string
}

// initial begins a chain of refresh tokens for a client, as a login does.
func (s *server) initial(t *testing.T, clientID string) string {
	t.Helper()
	return s.login(t, clientID).RefreshToken
}

// login is initial with all that came beside the refresh token.
func (s *server) login(t *testing.T, clientID string) tokens {
	t.Helper()
	form := url.Values{"client_id": {clientID}}
	if strings.HasPrefix(clientID, "key-") {
		sign(t, form, clientID, s.assertionAudience())
	}
	req, err := newForm(t.Context(), s.issuer+"/initial", form)
	if err != nil {
		t.Fatal(err)
	}
	var first tokens
	if err := askProvider(req, &first); err != nil {
		t.Fatalf("%s: initial refresh token of %s: %v\n%s", s.name, clientID, err, &s.output)
	}
	return first
}

// lose has the server process the next n token requests and close the
// connections without an answer.
func (s *server) lose(t *testing.T, n int) {
	t.Helper()
	body := fmt.Appendf(nil, `{"lost": %d}`, n)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.issuer+"/fault", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%s: /fault: %s", s.name, resp.Status)
	}
}

// assertionAudience is the one that the server accepts in what its clients sign.
func (s *server) assertionAudience() string {
	if s.kind == zitadel {
		return s.issuer
	}
	return s.tokenURL()
}

// keyring holds the private keys of the clients key-rs256 and key-es256, whose
// kid is the client's ID.
type keyring struct {
	public  string            // file with the JWK Set of all
	private map[string]string // files with PKCS #8 in PEM
	signers map[string]jose.Signer
}

// clientKeys are the same for all servers, in files beside Caddy's binary.
var clientKeys = sync.OnceValues(func() (keyring, error) {
	dir := filepath.Dir(binary)
	ring := keyring{
		public:  filepath.Join(dir, "clients.jwks"),
		private: make(map[string]string),
		signers: make(map[string]jose.Signer),
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return ring, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return ring, err
	}
	var set jose.JSONWebKeySet
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{jose.RS256: rsaKey, jose.ES256: ecKey} {
		id := "key-" + strings.ToLower(string(alg))
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: string(alg), Use: "sig"})
		options := (&jose.SignerOptions{}).WithHeader(jose.HeaderKey("kid"), id)
		if ring.signers[id], err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options); err != nil {
			return ring, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return ring, err
		}
		ring.private[id] = filepath.Join(dir, id+".pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := os.WriteFile(ring.private[id], text, 0o600); err != nil {
			return ring, err
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		return ring, err
	}
	return ring, os.WriteFile(ring.public, text, 0o600)
})

// assertion is a JWT in which the client speaks of itself (RFC 7523 section 3).
func assertion(t *testing.T, clientID, audience string) string {
	t.Helper()
	ring, err := clientKeys()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signed, err := jwt.Signed(ring.signers[clientID]).Claims(jwt.Claims{
		Issuer:   clientID,
		Subject:  clientID,
		Audience: jwt.Audience{audience},
		ID:       rand.Text(),
		IssuedAt: jwt.NewNumericDate(now.Add(-5 * time.Second)),
		Expiry:   jwt.NewNumericDate(now.Add(time.Minute)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// sign puts the client's proof by private_key_jwt into the form.
func sign(t *testing.T, form url.Values, clientID, audience string) {
	t.Helper()
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion(t, clientID, audience))
}

func newForm(ctx context.Context, to string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}
