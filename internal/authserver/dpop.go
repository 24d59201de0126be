package authserver

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// proofWindow is how far from now a proof may have been made (RFC 9449 §11.1).
	proofWindow = time.Minute
	// The two errors of RFC 9449 (§5 and §8).
	badProofCode  = "invalid_dpop_proof"
	needNonceCode = "use_dpop_nonce"
)

// proofs checks the DPoP proofs that come to one place.
type proofs struct {
	ids    once
	nonces nonces
	late   time.Duration
}

func newProofs(late time.Duration) proofs {
	return proofs{ids: newOnce(), nonces: newNonces(), late: late}
}

// proofRequest is a request that comes with proofs.
type proofRequest struct {
	method, url string
	proofs      []string // all values of the header
	token       string   // the access token that it brings, "" for none
}

// check returns the thumbprint of the key that a proof was made with, or what
// is wrong (RFC 9449 §4.3).
func (p *proofs) check(r proofRequest, rule nonceRule) (thumbprint string, no *refusal) {
	fail := func(why string) (string, *refusal) {
		return "", refuse(badProofCode, "the DPoP proof is not taken: "+why)
	}
	if len(r.proofs) != 1 {
		return fail("there is none, or more than one")
	}
	c, err := peekJWT(r.proofs[0], asymmetric)
	if err != nil {
		return fail(err.Error())
	}
	key := c.header.JSONWebKey
	switch {
	case c.header.ExtraHeaders[jose.HeaderType] != "dpop+jwt":
		return fail("its typ is not dpop+jwt")
	case key == nil || !key.IsPublic() || !key.Valid():
		return fail("its jwk is missing or no public key")
	}
	if _, err := readJWT(r.proofs[0], asymmetric, []jose.JSONWebKey{{Key: key.Key}}); err != nil {
		return fail(err.Error())
	}
	now := time.Now()
	switch {
	case c.text("htm") != r.method:
		return fail("its htm is another method")
	case !sameTarget(c.text("htu"), r.url):
		return fail("its htu is another address")
	case c.ID == "":
		return fail("it has no jti")
	case c.IssuedAt == nil:
		return fail("it has no iat")
	case now.Sub(c.IssuedAt.Time()).Abs() > proofWindow+p.late:
		return fail("its iat is too far from now")
	case r.token != "" && c.text("ath") != tokenHash(r.token):
		return fail("its ath is that of another access token")
	case !p.nonces.take(c.text("nonce"), rule):
		return "", refuse(needNonceCode, "the DPoP proof needs the nonce that comes with this answer")
	case !p.ids.first(c.ID, now.Add(2*proofWindow+p.late), now):
		return fail("its jti was used before")
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return fail("its key has no thumbprint")
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// text is a claim that is a string, "" for another.
func (c *claims) text(name string) string {
	text, _ := c.all[name].(string)
	return text
}

// tokenHash is the ath of an access token.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sameTarget compares the htu of a proof with an address, in any spelling of
// it that RFC 3986 §6.2 has as one. A htu has no query and no fragment.
func sameTarget(htu, target string) bool {
	a, err := url.Parse(htu)
	if err != nil || a.RawQuery != "" || a.Fragment != "" || a.Hostname() == "" {
		return false
	}
	b, err := url.Parse(target)
	return err == nil && plainTarget(a) == plainTarget(b)
}

func plainTarget(u *url.URL) string {
	scheme, host, path := strings.ToLower(u.Scheme), strings.ToLower(u.Host), u.EscapedPath()
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path
}

// tells returns the nonce to send along with an answer (RFC 9449 §8.2), "" for
// none.
func (p *proofs) tells(rule nonceRule, no *refusal) string {
	if !rule.on || rule.quiet && (no == nil || no.code != needNonceCode) {
		return ""
	}
	return p.nonces.newest()
}
