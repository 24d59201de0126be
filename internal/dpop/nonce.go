package dpop

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/challenge"
)

const (
	maxNonce   = 1024 // characters: it is sent with each request
	maxOrigins = 128  // one credential speaks to a few
)

// header is the field in which a server gives a nonce (RFC 9449 §8.1).
const header = "DPoP-Nonce"

// ErrorCode is the error with which a server demands a nonce (RFC 9449 §8 and
// §9).
const ErrorCode = "use_dpop_nonce"

// Nonce is the nonce that an answer gives, "" if it gives none that can be used.
func Nonce(h http.Header) string {
	values := h.Values(header)
	if len(values) != 1 || !isNonce(values[0]) {
		return ""
	}
	return values[0]
}

// isNonce tells whether a value is 1*NQCHAR (RFC 9449 §8.1, RFC 6749 A).
func isNonce(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return value != "" && len(value) <= maxNonce
}

// NonceDemanded tells whether an API refuses a request for its nonce alone (RFC
// 9449 §9): the same request with the nonce of the answer may then be taken.
func NonceDemanded(status int, h http.Header) bool {
	if status != http.StatusUnauthorized || Nonce(h) == "" {
		return false
	}
	for _, c := range challenge.Challenges(h.Values("WWW-Authenticate")) {
		if c.Is("DPoP") && c.Params["error"] == ErrorCode {
			return true
		}
	}
	return false
}

// Nonces are the last nonces that servers gave, one for each origin, 128 at
// most: one more replaces that which was given the longest ago.
type Nonces struct {
	mu      sync.Mutex
	given   uint64 // how many there were
	origins map[string]entry
}

type entry struct {
	nonce string
	given uint64
}

// NewNonces makes an empty store.
func NewNonces() *Nonces { return &Nonces{origins: make(map[string]entry)} }

// Get is the last nonce of a URL's origin, "" where there is none.
func (n *Nonces) Get(u *url.URL) string {
	origin, err := originOf(u)
	if err != nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.origins[origin].nonce
}

// Learn takes the nonce out of an answer from u, and tells whether it is another
// one than before.
func (n *Nonces) Learn(u *url.URL, h http.Header) (news bool) {
	nonce := Nonce(h)
	origin, err := originOf(u)
	if nonce == "" || err != nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before, known := n.origins[origin]
	if !known && len(n.origins) >= maxOrigins {
		n.dropOldest()
	}
	n.given++
	n.origins[origin] = entry{nonce, n.given}
	return before.nonce != nonce
}

func (n *Nonces) dropOldest() {
	oldest, given := "", n.given+1
	for origin, e := range n.origins {
		if e.given < given {
			oldest, given = origin, e.given
		}
	}
	delete(n.origins, oldest)
}
