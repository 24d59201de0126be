package interop

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// proofs checks DPoP proofs as a resource server has to (RFC 9449 section 7.1):
// each is for one request, one token, one key and the nonce in use, and good
// once.
type proofs struct {
	uses int // of a nonce

	nonce string
	left  int  // uses of that one
	told  bool // the answer to a good request tells the next one; or else a refusal does
	used  map[string]bool
	alg   string // of the newest good one
	given int    // nonces
}

func newProofs(uses int) *proofs {
	p := &proofs{uses: uses, used: make(map[string]bool)}
	p.renew()
	return p
}

// renew makes the next nonce. Every other one is told before it is wanted.
func (p *proofs) renew() {
	p.nonce, p.left, p.told = rand.Text(), p.uses, !p.told
	p.given++
}

type proofClaims struct {
	ID       string           `json:"jti"`
	Method   string           `json:"htm"`
	URL      string           `json:"htu"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Hash     string           `json:"ath"`
	Nonce    string           `json:"nonce"`
}

// check returns the code of what is wrong with a request to a server at base,
// and "" where nothing is. jkt is the key that the token is bound to.
func (p *proofs) check(answer http.Header, r *http.Request, base, token, jkt string) (code string, err error) {
	claims, alg, err := p.read(r, jkt)
	if err == nil {
		err = p.judge(claims, r, base, token)
	}
	if err != nil {
		return "invalid_dpop_proof", err
	}
	if claims.Nonce != p.nonce {
		answer.Set("DPoP-Nonce", p.nonce)
		return "use_dpop_nonce", nil
	}
	p.alg = alg
	if p.left--; p.left == 0 {
		p.renew()
	}
	if p.told {
		answer.Set("DPoP-Nonce", p.nonce)
	}
	return "", nil
}

// read verifies the signature of the request's proof.
func (*proofs) read(r *http.Request, jkt string) (claims proofClaims, alg string, err error) {
	values := r.Header.Values("DPoP")
	if len(values) != 1 {
		return claims, "", fmt.Errorf("%d proofs", len(values))
	}
	signed, err := jwt.ParseSigned(values[0], []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	if err != nil {
		return claims, "", err
	}
	header := signed.Headers[0]
	key := header.JSONWebKey
	switch {
	case header.ExtraHeaders[jose.HeaderType] != "dpop+jwt":
		return claims, "", fmt.Errorf("typ is %v", header.ExtraHeaders[jose.HeaderType])
	case key == nil || !key.Valid() || !key.IsPublic():
		return claims, "", errors.New("no public key in the header")
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return claims, "", err
	}
	if base64.RawURLEncoding.EncodeToString(sum) != jkt {
		return claims, "", fmt.Errorf("the token is bound to %q, another key", jkt)
	}
	return claims, header.Algorithm, signed.Claims(key, &claims)
}

// judge compares what the proof says with the request.
func (p *proofs) judge(claims proofClaims, r *http.Request, base, token string) error {
	hash := sha256.Sum256([]byte(token))
	switch {
	case claims.Method != r.Method:
		return fmt.Errorf("htm is %q", claims.Method)
	case claims.URL != base+r.URL.EscapedPath():
		return fmt.Errorf("htu is %q, not %q", claims.URL, base+r.URL.EscapedPath())
	case claims.Hash != base64.RawURLEncoding.EncodeToString(hash[:]):
		return errors.New("ath is that of another token")
	case claims.IssuedAt == nil || time.Since(claims.IssuedAt.Time()).Abs() > 30*time.Second:
		return errors.New("iat is not about now")
	case claims.ID == "" || p.used[claims.ID]:
		return fmt.Errorf("jti %q has come before", claims.ID)
	}
	p.used[claims.ID] = true
	return nil
}

// manyProofs are the requests of the cell that sends many.
const manyProofs = 1000

// proven has the upstream of a cell check proofs, which the transport alone can
// make.
func (c *cell) proven(u *upstream) {
	c.upstream = u
	c.ways = []string{"transport"}
	c.least = 12 // some nonces
	c.refusals = map[string]int{"use_dpop_nonce": 0}
	c.seen = func(t *testing.T, _ map[string]fullIntrospection) {
		t.Helper()
		if u.proofs.given < 3 || u.verdicts().nonces == 0 {
			t.Errorf("%d nonces, asked for %d times; want more", u.proofs.given, u.verdicts().nonces)
		}
	}
}

// alg has the cell's proofs signed with one algorithm.
func (c *cell) alg(want string) {
	c.check = func(t *testing.T, c *cell, _ string) {
		t.Helper()
		if got := c.upstream.proofs.alg; got != want {
			t.Errorf("the proofs are signed with %s; want %s", got, want)
		}
	}
}

// sendMany has the cell send many requests, some at a time, and for so long that
// the token is renewed meanwhile.
func (c *cell) sendMany() {
	const senders, pause = 8, 60 * time.Millisecond
	c.send = func(t *testing.T, c *cell, sent *tally) {
		t.Helper()
		var all sync.WaitGroup
		for range senders {
			all.Go(func() {
				tick := time.NewTicker(pause)
				defer tick.Stop()
				for range manyProofs / senders {
					a, err := sent.send(t.Context(), &c.site, "transport", time.Now())
					if err != nil || a.status != http.StatusOK {
						t.Errorf("status %d %v %q, error %v; want 200", a.status, a.header, a.body, err)
						return
					}
					<-tick.C
				}
			})
		}
		all.Wait()
		if _, tokens := c.upstream.seen(); len(tokens) < 2 || c.upstream.proofs.given < 20 {
			t.Errorf("%d tokens and %d nonces came by; want more", len(tokens), c.upstream.proofs.given)
		}
	}
}

// proofKey is a key file for DPoP proofs.
type proofKey struct{ alg, file, thumbprint string }

func (k proofKey) line() string { return block("dpop", []string{"key_file " + k.file}) }

// newProofKeys are one of each kind, the first for ES256.
func newProofKeys(t *testing.T) []proofKey {
	t.Helper()
	dir := t.TempDir()
	var keys []proofKey
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256} {
		public := newSigningKey(t, dir, string(alg), alg)
		sum, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, proofKey{string(alg), filepath.Join(dir, string(alg)+".pem"), base64.RawURLEncoding.EncodeToString(sum)})
	}
	return keys
}
